"""Decode image files to 8-bit RGB by one rule for all stages, and encode arrays as PNG.

The steps of decoding, in this order:
1. only the first frame of a file with several counts;
2. the EXIF orientation is applied, so that the image is upright;
3. 16-bit gray is scaled by 255 / 65535 and rounded (Pillow alone would clip it); of
   16-bit colour Pillow keeps the upper byte of each number;
4. palettes are looked up; CMYK becomes RGB by (255 - ink) * (255 - black) / 255;
   YCbCr becomes RGB; colour profiles are ignored;
5. transparency, from an alpha channel or a transparent colour, is composited
   over white.
32-bit integer, floating-point and Lab images are refused: their white point is
unknown, or they need a colour profile.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from attrib_core.common.errors import InputError

_DEEP_GRAY = ("I;16", "I;16L", "I;16B", "I;16N")
_REFUSED = ("I", "F", "LAB", "HSV")
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa")


def to_rgb(data: bytes, *, where: str) -> np.ndarray:
    """Decode an image file to (height, width, 3) uint8.

    `where` names the image in error messages. Raises InputError for bytes that are
    no readable image, for more pixels than Pillow's limit, and for the refused
    pixel modes (see above).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                upright = ImageOps.exif_transpose(image)
                upright.load()
                return _rgb(upright, where)
    except UnidentifiedImageError:
        raise InputError(
            f"{where}: {len(data)} bytes are no image that Pillow knows; expected PNG, JPEG, WebP, ..."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(
            f"{where}: more than {Image.MAX_IMAGE_PIXELS} pixels; make the image smaller"
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: the image is damaged ({error}); expected a complete file") from None


def _rgb(image: Image.Image, where: str) -> np.ndarray:
    if image.mode in _DEEP_GRAY:
        gray = np.asarray(image).astype(np.uint32)
        eight = ((gray * 255 + 32767) // 65535).astype(np.uint8)
        eight[gray == image.info.get("transparency", -1)] = 255
        return np.repeat(eight[..., None], 3, axis=2)
    if image.mode in _REFUSED:
        raise InputError(
            f"{where}: pixels of mode {image.mode!r}; expected 8 or 16 bit gray, RGB, CMYK or a palette"
        )
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        straight = image.convert("RGBA")
        white = Image.new("RGBA", straight.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, straight)
    return np.asarray(image.convert("RGB")).copy()


def to_png(image: np.ndarray) -> bytes:
    """Encode an image, (height, width, 3) uint8, as PNG.

    One version of Pillow gives the same bytes for the same pixels.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected (height, width, 3) uint8, got {image.shape} {image.dtype}")
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=6)
    return stream.getvalue()
