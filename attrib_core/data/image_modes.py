"""Convert the pixels that Pillow opens, of whatever mode, to 8-bit RGB; where Pillow alone would be wrong, mend it.

Pillow forgets how bright white is in 12-bit gray, and that TIFF may begin with white; it compares the transparent
colour of a PNG with numbers of another depth; and it reads planes of 16 bits as if they had 8.
"""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from attrib_core.common.errors import InputError

DEEP_GRAY = ("I;16", "I;16L", "I;16B", "I;16N")
REFUSED = {
    "I": "32-bit or signed whole numbers",
    "F": "floating-point numbers",
    "LAB": "Lab colours",
    "HSV": "HSV colours",
}
GRAY_STEPS = {"L;2": 85, "L;4": 17}
"""Levels of 255 between neighbouring numbers of 2 and 4 bits, by how PNG's pixels are packed."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"
STRIP_PIXELS = 1 << 20
"""Pixels that are converted at once, so that a large image is in memory no more than twice."""


class Rule(NamedTuple):
    """How the numbers of an opened image are to be understood, where its mode does not say it."""

    white: int = 65535
    """The number of white in gray of more than 8 bits."""
    inverted: bool = False
    """Whether gray of more than 8 bits has white at 0."""
    key: tuple[int, int, int] | None = None
    """The transparent colour of 16-bit RGB, whose lower bytes are in `low`."""
    low: Image.Image | None = None


def rule(image: Image.Image) -> Rule:
    """Find out how to read an image that is opened and not yet loaded.

    A transparent gray of 2 or 4 bits is scaled as its pixels are, in `image.info`. Raises InputError for pixels
    without a known white, and for a TIFF that Pillow would read wrongly.
    """
    if image.mode in REFUSED and not (image.format == "PPM" and image.mode == "I"):
        raise InputError(
            f"pixels of mode {image.mode!r}, {REFUSED[image.mode]}; expected 8 or 16 bit gray, RGB, CMYK or a palette"
        )
    if isinstance(image, TiffImageFile):
        return _tiff_rule(image)
    if isinstance(image, PngImageFile) and "transparency" in image.info:
        return _png_rule(image)
    return Rule()


def is_deep(image: Image.Image) -> bool:
    """Return whether an image that is opened and not yet loaded has colours of 16 bits, of which Pillow keeps 8."""
    return isinstance(image, PngImageFile) and bool(image.tile) and _packed(image).endswith(";16B")


def _png_rule(image: PngImageFile) -> Rule:
    """Scale the transparent colour to the depth of the pixels; see `rule`."""
    key = image.info["transparency"]
    packed = _packed(image)
    if image.mode == "L":
        step = GRAY_STEPS.get(packed, 1)
        image.info["transparency"] = (key & (255 // step)) * step
    elif image.mode == "RGB" and packed == "RGB;16B":
        del image.info["transparency"]
        low = Image.open(io.BytesIO(_whole(image)), formats=["PNG"])
        # read as numbers in the other order of bytes, the upper byte that Pillow keeps is the lower one
        low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]  # type: ignore[attr-defined]
        return Rule(key=key, low=low)
    elif image.mode == "RGB":
        image.info["transparency"] = tuple(level & 255 for level in key)
    return Rule()


def _packed(image: PngImageFile) -> str:
    """Return how the pixels of a PNG are packed, as Pillow names it: "L;2"."""
    args: Any = image.tile[0].args
    return str(args if isinstance(args, str) else args[0])


def _whole(image: PngImageFile) -> bytes:
    """Return the bytes of a PNG that is opened from memory; in an icon those from the PNG on."""
    assert isinstance(image.fp, io.BytesIO)
    data = image.fp.getvalue()
    return data if data.startswith(SIGNATURE) else data[data.rfind(SIGNATURE, 0, image.tile[0].offset) :]


def _tiff_rule(image: TiffImageFile) -> Rule:
    tags = image.tag_v2
    assert isinstance(image.fp, io.BytesIO)
    if tags.next >= len(image.fp.getbuffer()):
        raise InputError("a TIFF that goes on beyond the end of the file; expected a complete file")
    bits: tuple[int, ...] = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    photometric = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0)
    raw = image.info.get("compression") == "raw"
    if image.mode == "L" and 2 in tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,)):
        raise InputError(
            "a TIFF of signed numbers, whose white is unknown; expected 8 or 16 bits without sign"
        )
    if raw and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2:
        plain = tags.get(TiffImagePlugin.FILLORDER, 1) == 1 and photometric != 0
        if set(bits) != {8} or not plain or 1 in tags.get(TiffImagePlugin.EXTRASAMPLES, ()):
            raise InputError(
                f"a TIFF of separate planes with {bits[0]} bits, uncompressed; expected 8 bits, or one plane"
            )
    if raw and photometric == 6 and _subsampled(image):
        raise InputError("a TIFF of uncompressed YCbCr with fewer colours than pixels; expected RGB or JPEG")
    white_is_zero = (
        tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    )  # without the tag: black, as libtiff does
    return Rule(white=4095 if bits[0] == 12 else 65535, inverted=white_is_zero)


def _subsampled(image: TiffImageFile) -> bool:
    """Return whether uncompressed YCbCr has fewer colours than pixels: by its tag, or by its bytes without one."""
    tags = image.tag_v2
    stated = tags.get(TiffImagePlugin.YCBCRSUBSAMPLING)
    if stated is not None:
        return tuple(stated) != (1, 1)
    width, height = image.size
    return sum(tags.get(TiffImagePlugin.STRIPBYTECOUNTS, (3 * width * height,))) < 3 * width * height


def convert(image: Image.Image, how: Rule) -> np.ndarray:
    """Convert a loaded image by its rule to (height, width, 3) uint8, transparency over white."""
    width, height = image.size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        strip = image if rows >= height else image.crop(box)
        pixels[top : box[3]] = _rgb(strip, how)
        if how.key is not None and how.low is not None:
            upper, lower = pixels[top : box[3]].astype(np.uint16), np.asarray(how.low.crop(box))
            pixels[top : box[3]][((upper << 8 | lower) == how.key).all(axis=2)] = 255
    return pixels


def _rgb(image: Image.Image, how: Rule) -> np.ndarray:
    """Convert an image, or a strip of one; the result may not be writable."""
    if image.mode in DEEP_GRAY or image.mode == "I":
        gray = np.asarray(image).astype(np.uint32)
        level = how.white - np.minimum(gray, how.white) if how.inverted else gray
        eight = ((level * 255 + how.white // 2) // how.white).astype(np.uint8)
        eight[gray == image.info.get("transparency", -1)] = 255
        return np.repeat(eight[..., None], 3, axis=2)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        straight = image.convert("RGBA")
        white = Image.new("RGBA", straight.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, straight)
    return np.asarray(image.convert("RGB"))
