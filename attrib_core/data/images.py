"""Decode image files to 8-bit RGB by one rule for all stages, and encode arrays as PNG.

The steps of decoding, in this order:
1. only the formats of FORMATS are tried, whatever the file's name; none of them starts a program;
2. only the first frame of a file with several counts;
3. 12-bit and 16-bit gray is scaled to 255 and rounded (Pillow alone would clip it); of
   16-bit colour Pillow keeps the upper byte of each number;
4. palettes are looked up; CMYK becomes RGB by (255 - ink) * (255 - black) / 255;
   YCbCr becomes RGB; colour profiles are ignored;
5. transparency, from an alpha channel or a transparent colour, is composited
   over white;
6. the orientation (EXIF, TIFF) is applied, so that the image is upright.
32-bit integer, floating-point, signed and Lab images are refused: their white point is
unknown, or they need a colour profile.
"""

from __future__ import annotations

import functools
import io
import logging
import re
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.IcoImagePlugin import IcoImageFile

from attrib_core.common.errors import InputError
from attrib_core.data import image_headers, image_kinds, image_modes

FORMATS = (
    "PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO",
    "TGA",  # the last, since it is recognized by no fixed bytes
)  # fmt: skip
EXPECTED = "expected PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or JPEG 2000"
KEPT_FORMATS = frozenset({"PNG", "JPEG", "WEBP"})
MAX_BYTES = 1_000_000_000
"""Memory that decoding an image may take, about."""
DECODER_BYTES = {"WEBP": 18, "AVIF": 20, "JPEG2000": 24}
"""Bytes a pixel while an image is decoded, where Pillow's limit of pixels alone would go beyond MAX_BYTES."""
FLAT_LEVELS = 8
"""Most levels between the darkest and the brightest number of each channel in an image that shows nothing.

One colour that is saved as WebP of quality 80 comes back with up to 7, as AVIF of quality 10 with 4, as JPEG
with none; the eye hardly sees 8 of 255. The faintest image of the demo's pool has 64.
"""
# without a handler of its own, Pillow writes on the terminal where logging is not set up
logging.getLogger("PIL").addHandler(logging.NullHandler())
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_UPRIGHT = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image.transpose(1, 0, 2)[:, ::-1],
    7: lambda image: image.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda image: image.transpose(1, 0, 2)[::-1],
}
"""How an image with an orientation is turned upright; with any other number it stays as it is."""


class Decoded(NamedTuple):
    """An image, and what its file says that the pixels do not."""

    image: np.ndarray
    """(height, width, 3) uint8."""
    transparent: bool
    """Whether the file has transparency, which was laid over white."""
    plain: bool
    """Whether the file is 8-bit RGB, upright, opaque, one frame, and in a format that all programs decode alike."""


def to_rgb(data: bytes, *, where: str) -> np.ndarray:
    """Decode an image file to (height, width, 3) uint8.

    `where` names the image in error messages. Raises InputError for bytes that are no image of FORMATS or are
    damaged, for more pixels than Pillow's limit, and for numbers without a known white (see above).
    """
    return decode(data, where=where).image


def decode(data: bytes, *, where: str) -> Decoded:
    """Decode an image file; `where` and errors are those of `to_rgb`."""
    try:
        return _decode(data)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except UnidentifiedImageError:
        what = image_kinds.describe(data)
        but = f", but {what}" if what else ""
        raise InputError(
            f"{where}: {len(data)} bytes are no image that can be read{but}; {EXPECTED}"
        ) from None
    except Image.DecompressionBombError:
        raise InputError(f"{where}: {_too_large(Image.MAX_IMAGE_PIXELS)}") from None
    except MemoryError:
        raise InputError(f"{where}: does not fit into memory; expected a smaller image") from None
    except Exception as error:  # of damaged files decoders make struct.error, TypeError, RuntimeError, ...
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(f"{where}: the image is damaged ({reason}); expected a complete file") from None


def _decode(data: bytes) -> Decoded:
    _silence()
    with Image.open(io.BytesIO(data), formats=_formats()) as opened:
        kept = opened.format in KEPT_FORMATS and getattr(opened, "n_frames", 1) == 1
        _check_size(opened.size, opened.format)
        if opened.format == "TGA" and not image_headers.is_tga(data):
            raise UnidentifiedImageError
        image: Image.Image = opened
        if isinstance(opened, IcoImageFile):  # the icon alone would lose what its PNG says of transparency
            image = opened.ico.getimage(opened.size)
            _check_size(image.size, opened.format)
        plain = kept and image.mode == "RGB" and "transparency" not in image.info
        plain = plain and not image_modes.is_deep(image)
        rule = image_modes.rule(image)
        image.load()
        turned = 1 if image.format == "TIFF" else _orientation(image)  # Pillow turns TIFF as it loads
        pixels = image_modes.convert(image, rule)
        transparent = rule.key is not None or image.has_transparency_data
    upright = _UPRIGHT.get(turned)
    if upright is not None:
        del image, opened
        pixels = np.ascontiguousarray(upright(pixels))
    return Decoded(pixels, transparent, plain and turned == 1)


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return the formats of FORMATS that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _silence() -> None:
    """Have Pillow's warnings ignored; `catch_warnings` would not do, since images are decoded in threads."""
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _check_size(size: tuple[int, int], kind: str | None) -> None:
    width, height = size
    limits = [Image.MAX_IMAGE_PIXELS] if Image.MAX_IMAGE_PIXELS else []
    if kind in DECODER_BYTES:
        limits.append(MAX_BYTES // DECODER_BYTES[kind])
    if limits and width * height > min(limits):
        raise InputError(_too_large(min(limits), kind))


def _too_large(limit: int | None, kind: str | None = None) -> str:
    as_kind = f" as {kind}" if kind in DECODER_BYTES else ""
    return f"more than {limit} pixels{as_kind}; make the image smaller"


def _orientation(image: Image.Image) -> int:
    """Return the orientation that a loaded file states, 1 if none; in EXIF, or else in XMP, as Pillow looks for it."""
    exif = image.info.get("exif")
    if exif is None and "Raw profile type exif" in image.info:  # how ImageMagick writes it into a PNG
        lines = str(image.info["Raw profile type exif"]).split("\n")[3:]
        with_digits = re.fullmatch(r"(?:[0-9a-fA-F]{2})*", "".join(lines).replace(" ", ""))
        exif = bytes.fromhex(with_digits[0]) if with_digits else None
    turned = image_headers.exif_orientation(exif) if isinstance(exif, bytes) else None
    if turned is not None:
        return turned
    xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or ""
    text = xmp.decode("latin-1") if isinstance(xmp, bytes) else str(xmp)
    match = re.search(r'tiff:Orientation(?:="|>)([0-9])', text)
    return int(match[1]) if match else 1


def is_flat(image: np.ndarray) -> bool:
    """Return whether an image, (height, width, 3) uint8, has one colour all over, up to FLAT_LEVELS."""
    for part in (image[:: max(1, len(image) // 8)], image):  # a few rows tell nearly always
        spread = part.max(axis=(0, 1)).astype(int) - part.min(axis=(0, 1))
        if spread.max() > FLAT_LEVELS:
            return False
    return True


def check_content(image: np.ndarray, *, where: str, transparent: bool = False) -> None:
    """Raise InputError for an image that shows nothing (`is_flat`); `transparent` is that of its file."""
    if not is_flat(image):
        return
    red, green, blue = (int(level) for level in image[0, 0])
    name = {(0, 0, 0): "black ", (255, 255, 255): "white "}.get((red, green, blue), "")
    nearly = "" if (image == image[0, 0]).all() else "nearly "
    colour = f"{nearly}{name}({red}, {green}, {blue})"
    if transparent:
        why = "transparency is laid over white, so what is drawn in white is lost"
    elif (red, green, blue) == (0, 0, 0):
        why = "as a safety checker leaves it, or a failed download"
    else:
        why = "so it shows nothing"
    raise InputError(f"{where}: every pixel is {colour}, {why}; expected an image with content")


def to_png(image: np.ndarray) -> bytes:
    """Encode an image, (height, width, 3) uint8, as PNG.

    One version of Pillow gives the same bytes for the same pixels.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected (height, width, 3) uint8, got {image.shape} {image.dtype}")
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=6)
    return stream.getvalue()
