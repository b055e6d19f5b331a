"""The orientation of EXIF, XMP and TIFF is read alone, whatever else is damaged, and applied."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from attrib_core.data import image_headers
from attrib_core.data.images import decode, to_rgb
from tests.data.image_file_fixtures import chunk, exif, png, tiff_image
from tests.data.image_fixtures import encoded, image

SHOWN = image(16, 24)
SHOWN_IMAGE = Image.fromarray(SHOWN)
ORIENTATION, RESOLUTION, MAKER = image_headers.ORIENTATION, 0x011A, 0x010F
SHORT, LONG, RATIONAL, SIGNED_RATIONAL = 3, 4, 5, 10
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda shown: np.rot90(shown, 2),
    4: np.flipud,
    5: lambda shown: np.fliplr(np.rot90(shown, -1)),
    6: lambda shown: np.rot90(shown, -1),
    7: lambda shown: np.fliplr(np.rot90(shown, 1)),
    8: lambda shown: np.rot90(shown, 1),
}
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'


def upright(turned: int, stored: np.ndarray = SHOWN) -> np.ndarray:
    """What is shown of a stored image, by the definition of EXIF."""
    return UPRIGHT.get(turned, lambda shown: shown)(stored)


def in_png(raw: bytes, *, late: bool = False) -> bytes:
    """SHOWN as PNG with raw EXIF, before or after the pixels; the chunk has no header."""
    one = chunk(b"eXIf", raw.removeprefix(b"Exif\0\0"))
    return png(SHOWN, 8, 2, after=one) if late else png(SHOWN, 8, 2, one)


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "late PNG", "WEBP", "TIFF", "XMP", "PNG as text"])
def test_every_orientation_is_applied(kind: str, turned: int) -> None:
    raw = exif((ORIENTATION, SHORT, [turned]))
    if kind.endswith("PNG"):
        data = in_png(raw, late=kind.startswith("late"))
    elif kind == "WEBP":
        data = encoded(SHOWN_IMAGE, kind, lossless=True, exif=raw)
    elif kind == "TIFF":
        data = tiff_image(SHOWN, 8, 2, more={ORIENTATION: (SHORT, [turned])})
    else:
        notes = PngInfo()
        if kind == "XMP":
            notes.add_itxt("XML:com.adobe.xmp", XMP.format(turned))
        else:
            notes.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n")
        data = encoded(SHOWN_IMAGE, "PNG", pnginfo=notes)
    assert np.array_equal(to_rgb(data, where="x"), upright(turned))
    assert decode(data, where="x").plain == (turned == 1 and kind != "TIFF")


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "AVIF"])
@pytest.mark.parametrize("turned", [3, 6])
def test_lossy_formats_are_turned_too(kind: str, turned: int) -> None:
    stored = to_rgb(encoded(SHOWN_IMAGE, kind), where="x")
    data = encoded(SHOWN_IMAGE, kind, exif=exif((ORIENTATION, SHORT, [turned])))
    assert np.array_equal(to_rgb(data, where="x"), upright(turned, stored))


@pytest.mark.parametrize(
    "raw",
    [
        exif((ORIENTATION, SHORT, [6]), (RESOLUTION, SIGNED_RATIONAL, [-72, 1])),
        exif((ORIENTATION, SHORT, [6]), (RESOLUTION, RATIONAL, [72, 0])),
        exif((ORIENTATION, SHORT, [6]), headers=2),
        exif((ORIENTATION, SHORT, [6]), order=">"),
        exif((ORIENTATION, LONG, [6])),
        exif((ORIENTATION, LONG, [6]), order=">"),
        exif((MAKER, 1, [7]), (ORIENTATION, SHORT, [6])).replace(struct.pack("<HH", MAKER, 1), b"\x0f\x01\xff\xff"),
        exif((ORIENTATION, SHORT, [6]), (RESOLUTION, RATIONAL, [72, 1]))[:-20],
        exif((ORIENTATION, SHORT, [6])).replace(struct.pack("<IH", 8, 1), struct.pack("<IH", 8, 999)),
    ],
    ids=["signed", "by zero", "headers", "MM", "long", "MM long", "type", "cut off", "too many"],
)  # fmt: skip
def test_what_else_the_exif_has_does_not_matter(raw: bytes) -> None:
    assert np.array_equal(to_rgb(in_png(raw), where="x"), upright(6))
    jpeg, stored = encoded(SHOWN_IMAGE, "JPEG", exif=raw), to_rgb(encoded(SHOWN_IMAGE, "JPEG"), where="x")
    assert np.array_equal(to_rgb(jpeg, where="x"), upright(6, stored))


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0XX*\0" + bytes(20), b"junk" * 9,
        exif((ORIENTATION, SHORT, [0])), exif((ORIENTATION, SHORT, [9])), exif((ORIENTATION, SHORT, [65535])),
        exif((ORIENTATION, SHORT, [6, 6])), exif((ORIENTATION, RATIONAL, [6, 1])), exif((MAKER, SHORT, [6])),
    ],
)  # fmt: skip
def test_without_a_valid_orientation_an_image_stays_as_it_is(raw: bytes) -> None:
    assert np.array_equal(to_rgb(in_png(raw), where="x"), SHOWN)


@pytest.mark.parametrize("turned", [0, 9, 77])
def test_tiff_with_an_orientation_that_is_none(turned: int) -> None:
    data = tiff_image(SHOWN, 8, 2, more={ORIENTATION: (SHORT, [turned])})
    assert np.array_equal(to_rgb(data, where="x"), SHOWN)


def test_exif_goes_before_xmp() -> None:
    notes = PngInfo()
    notes.add_itxt("XML:com.adobe.xmp", XMP.format(3))
    data = encoded(SHOWN_IMAGE, "PNG", pnginfo=notes, exif=exif((ORIENTATION, SHORT, [1])))
    assert np.array_equal(to_rgb(data, where="x"), SHOWN)
