"""Decoding image files to upright 8-bit RGB by the documented rule, and errors."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from attrib_core.common.errors import InputError
from attrib_core.data import images
from attrib_core.data.images import to_png, to_rgb
from tests.data.image_fixtures import encoded


def decode(image: Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
    return to_rgb(encoded(image, kind, **options), where="pool.parquet: image 'a'")


def test_rgb_is_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    got = decode(Image.fromarray(image))
    assert got.dtype == np.uint8
    assert np.array_equal(got, image)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled_and_not_clipped(kind):
    gray = np.array([[0, 128, 129], [32768, 65406, 65535]], dtype=np.uint16)
    got = decode(Image.fromarray(gray), kind)
    expected = np.rint(gray.astype(np.float64) * 255 / 65535)
    assert np.array_equal(got, np.repeat(expected[..., None], 3, axis=2))


def test_the_transparent_number_of_sixteen_bit_gray_becomes_white():
    gray = Image.fromarray(np.array([[0, 300, 301]], dtype=np.uint16))
    assert decode(gray)[0, :, 0].tolist() == [0, 1, 1]
    assert decode(gray, transparency=300)[0, :, 0].tolist() == [0, 255, 1]


def test_sixteen_bit_colour_keeps_its_upper_bytes():
    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)  # one pixel of 16-bit RGB
    pixel = zlib.compress(b"\0" + struct.pack(">HHH", 0x01FF, 0x8000, 0xFFFF))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")
    assert to_rgb(data, where="a").tolist() == [[[0x01, 0x80, 0xFF]]]
    assert not images.decode(data, where="a").plain  # other programs round
    assert images.decode(to_png(to_rgb(data, where="a")), where="a").plain


def test_cmyk_by_the_plain_formula():
    got = decode(Image.new("CMYK", (1, 1), (51, 102, 0, 51)), "TIFF")
    assert np.abs(got[0, 0].astype(int) - [204 * 204 // 255, 153 * 204 // 255, 204]).max() <= 1


def palette_image() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([0, 1])
    return image


def test_palette_is_looked_up_and_its_transparent_colour_becomes_white():
    assert decode(palette_image()).tolist() == [[[10, 20, 30], [200, 100, 0]]]
    assert decode(palette_image(), transparency=1).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_alpha_is_composited_over_white():
    got = decode(Image.new("RGBA", (1, 1), (100, 0, 200, 51)))[0, 0].astype(float)
    expected = np.array([100, 0, 200]) * 0.2 + 255 * 0.8
    assert np.abs(got - expected).max() <= 1
    assert decode(Image.new("LA", (1, 1), (0, 0))).tolist() == [[[255, 255, 255]]]


def test_black_and_white_and_gray():
    assert decode(Image.new("1", (1, 1), 1)).tolist() == [[[255, 255, 255]]]
    assert decode(Image.new("L", (1, 1), 77)).tolist() == [[[77, 77, 77]]]


def test_exif_orientation_is_applied():
    image = np.zeros((2, 3, 3), dtype=np.uint8)
    image[0, 0] = 255  # a white corner, which a quarter turn clockwise moves to the upper right
    exif = Image.Exif()
    exif[0x0112] = 6
    got = decode(Image.fromarray(image), exif=exif)
    assert got.shape == (3, 2, 3)
    assert got[0, 1].tolist() == [255, 255, 255] and got.sum() == 3 * 255


def test_first_frame_of_several():
    frames = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
    got = decode(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert got[0, 0].tolist() == [255, 0, 0]


def test_other_bytes_and_damaged_images_are_named():
    with pytest.raises(
        InputError, match=r"^x: 5 bytes are no image that can be read, but text \('hello'\); expected PNG"
    ):
        to_rgb(b"hello", where="x")
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    with pytest.raises(InputError, match="^x: the image is damaged"):
        to_rgb(whole[: len(whole) // 2], where="x")


def test_an_image_with_too_many_pixels_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match="^x: more than 10 pixels"):
        to_rgb(encoded(Image.new("L", (4, 4))), where="x")
    with pytest.raises(InputError, match="^x: more than 10 pixels"):
        to_rgb(encoded(Image.new("L", (40, 40))), where="x")
