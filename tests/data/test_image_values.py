"""Sound files of rare kinds are read with their right values, or refused by name."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from attrib_core.common.errors import InputError
from attrib_core.data.images import decode, to_rgb
from tests.data.image_file_fixtures import chunk, png, tiff_image
from tests.data.image_fixtures import encoded

RANDOM = np.random.default_rng(5)
DEPTHS = {1: 1, 2: 3, 4: 15, 8: 255, 12: 4095, 16: 65535}
"""The number of white by bits."""
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
ALPHA, TRUECOLOUR, INDEXED, GRAY = 4, 2, 3, 0


def numbers(bits: int, samples: int = 1, height: int = 6, width: int = 10) -> np.ndarray:
    """Random numbers with black and white among them, (height, width, samples)."""
    some = RANDOM.integers(0, DEPTHS[bits] + 1, (height, width, samples))
    some[0, 0], some[0, 1] = 0, DEPTHS[bits]
    return some


def scaled(some: np.ndarray, bits: int) -> np.ndarray:
    """Numbers of gray as (height, width, 3) of 0 to 255, rounded."""
    return np.repeat(np.rint(some * 255 / DEPTHS[bits]), 3 // some.shape[2], axis=2)


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours of 0 to 255 with an alpha of 0 to 1 over white."""
    return colours * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "deflate"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["II", "MM"])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO], ids=["white is 0", "black is 0"])
@pytest.mark.parametrize("bits", DEPTHS)
def test_gray_tiff_of_all_depths(bits: int, photometric: int, order: str, compressed: bool) -> None:
    some = numbers(bits)
    data = tiff_image(some, bits, photometric, order=order, compressed=compressed)
    if (bits == 12 and (order, photometric) != ("<", BLACK_IS_ZERO)) or (
        bits == 16 and order == ">" and photometric == WHITE_IS_ZERO
    ):  # what Pillow does not know
        with pytest.raises(InputError, match="^x: .* a TIFF that is damaged or of a kind that is not read"):
            to_rgb(data, where="x")
        return
    expected = scaled(some if photometric == BLACK_IS_ZERO else DEPTHS[bits] - some, bits)
    assert np.array_equal(to_rgb(data, where="x"), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_gray_tiff_with_bits_from_the_right(bits: int) -> None:
    some = numbers(bits, height=4, width=8)
    mirrored = bytes.maketrans(bytes(range(256)), bytes(int(f"{n:08b}"[::-1], 2) for n in range(256)))
    data = tiff_image(some, bits, BLACK_IS_ZERO, more={266: (3, [2])})
    size = 4 * 8 * bits // 8
    got = to_rgb(data[:-size] + data[-size:].translate(mirrored), where="x")
    assert np.array_equal(got, scaled(some, bits))


@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "deflate"])
@pytest.mark.parametrize("planar", [False, True], ids=["chunky", "planar"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["II", "MM"])
@pytest.mark.parametrize("bits", [8, 16])
def test_colour_tiff(bits: int, order: str, planar: bool, compressed: bool) -> None:
    some = numbers(bits, 3)
    data = tiff_image(some, bits, RGB, order=order, planar=planar, compressed=compressed)
    if bits == 16 and planar and not compressed:
        with pytest.raises(InputError, match="^x: a TIFF of separate planes with 16 bits, uncompressed"):
            to_rgb(data, where="x")
        return
    assert np.array_equal(to_rgb(data, where="x"), some >> (bits - 8))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["straight", "premultiplied", "ignored"])
def test_tiff_with_a_fourth_channel(kind: str, bits: int) -> None:
    some = numbers(8, 4)
    extra = {"ignored": 0, "premultiplied": 1, "straight": 2}[kind]
    alpha = some[..., 3:] / 255
    expected = over_white(some[..., :3], alpha) if extra else some[..., :3]
    if extra == 1:
        some[..., :3] = np.rint(some[..., :3] * alpha)
        expected = over_white(some[..., :3] / np.maximum(alpha, 1e-9), alpha)
    got = to_rgb(
        tiff_image(some * (257 if bits == 16 else 1), bits, RGB, more={338: (3, [extra])}), where="x"
    )
    assert np.abs(got - expected).max() <= 1 + 2 * (extra == 1)


@pytest.mark.parametrize("premultiplied", [False, True])
def test_gray_tiff_with_alpha(premultiplied: bool) -> None:
    some = numbers(8, 2)
    alpha = some[..., 1:] / 255
    expected = np.repeat(over_white(some[..., :1], alpha), 3, axis=2)
    if premultiplied:
        some[..., 0] = np.rint(some[..., 0] * alpha[..., 0])
    data = tiff_image(some, 8, BLACK_IS_ZERO, more={338: (3, [1 if premultiplied else 2])})
    assert np.abs(to_rgb(data, where="x") - expected).max() <= 2 and decode(data, where="x").transparent


@pytest.mark.parametrize("bits", [8, 16])
def test_cmyk_tiff(bits: int) -> None:
    some = numbers(8, 4)
    expected = (255 - some[..., :3]) * (255 - some[..., 3:]) / 255
    got = to_rgb(tiff_image(some * (257 if bits == 16 else 1), bits, CMYK), where="x")
    assert np.abs(got - expected).max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_tiff(bits: int) -> None:
    some, colours = numbers(bits), RANDOM.integers(0, 256, (DEPTHS[bits] + 1, 3))
    data = tiff_image(some, bits, PALETTE, more={320: (3, [int(level) * 257 for level in colours.T.ravel()])})
    assert np.array_equal(to_rgb(data, where="x"), colours[some[..., 0]])


def test_uncompressed_ycbcr_tiff_unless_it_has_fewer_colours() -> None:
    some = np.full((4, 8, 3), 128)
    some[:, :4, 0], some[:, 4:, 0] = 0, 255
    one_each = tiff_image(some, 8, YCBCR, more={530: (3, [1, 1])})
    expected = np.repeat(some[..., :1], 3, axis=2)
    assert np.array_equal(to_rgb(one_each, where="x"), expected)
    assert np.array_equal(
        to_rgb(tiff_image(some, 8, YCBCR), where="x"), expected
    )  # by the bytes, with no tag
    with pytest.raises(InputError, match="^x: a TIFF of uncompressed YCbCr with fewer colours than pixels"):
        to_rgb(tiff_image(some, 8, YCBCR, more={530: (3, [2, 2])}), where="x")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiff_image(numbers(8, 3), 8, LAB), "pixels of mode 'LAB', Lab colours"),
        (tiff_image(numbers(8), 8, BLACK_IS_ZERO, more={339: (3, [SIGNED])}), "a TIFF of signed numbers"),
        (tiff_image(numbers(16), 16, BLACK_IS_ZERO, more={339: (3, [SIGNED])}), "mode 'I', 32-bit or signed"),
        (encoded(Image.new("F", (9, 9)), "TIFF"), "mode 'F', floating-point numbers"),
        (encoded(Image.new("I", (9, 9)), "TIFF"), "mode 'I', 32-bit or signed"),
        (b"Pf 2 2 -1.0\n" + bytes(16), "mode 'F', floating-point numbers"),
        (
            tiff_image(numbers(8), 8, BLACK_IS_ZERO, next_directory=0xFF00),
            "goes on beyond the end",
        ),
    ],
)
def test_what_has_no_known_white_is_refused_by_name(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        to_rgb(data, where="x")
    assert str(caught.value).startswith("x: ") and "\n" not in str(caught.value)


def keyed(bits: int, colour: int, some: np.ndarray, key: np.ndarray) -> tuple[bytes, np.ndarray]:
    """A PNG with a transparent colour, and where it is that."""
    trns = chunk(b"tRNS", struct.pack(f">{len(key)}H", *(int(level) for level in key)))
    return png(some, bits, colour, trns), (some == key).all(axis=2)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_every_transparent_gray_of_a_png_becomes_white(bits: int) -> None:
    some = numbers(bits, height=8, width=8)
    for level in np.unique(some)[:16]:
        data, clear = keyed(bits, GRAY, some, np.array([level]))
        expected = scaled(some, bits)
        expected[clear] = 255
        assert np.array_equal(to_rgb(data, where="x"), expected), (bits, level)
        assert decode(data, where="x").transparent


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_colour_of_a_png_is_compared_in_full(bits: int) -> None:
    some = numbers(bits, 3, 16, 16)
    some[3, 3] = some[5, 5]
    some[4, 4] = some[5, 5] ^ 1  # in 16 bits, only the lower byte tells them apart
    data, clear = keyed(bits, TRUECOLOUR, some, some[5, 5])
    expected = some >> (bits - 8)
    expected[clear] = 255
    assert clear[3, 3] and clear[5, 5] and not clear[4, 4]
    assert np.array_equal(to_rgb(data, where="x"), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_a_png_with_alpha(bits: int) -> None:
    some, colours = numbers(bits, height=16, width=16), RANDOM.integers(0, 256, (DEPTHS[bits] + 1, 3))
    alpha = RANDOM.integers(0, 256, DEPTHS[bits] + 1)
    chunks = [chunk(b"PLTE", bytes(colours.ravel().tolist())), chunk(b"tRNS", bytes(alpha.tolist()))]
    data = png(some, bits, INDEXED, *chunks)
    expected = over_white(colours, alpha[:, None] / 255)[some[..., 0]]
    assert np.abs(to_rgb(data, where="x") - expected).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("samples", [2, 4])
def test_png_with_alpha(samples: int, bits: int) -> None:
    some = numbers(8, samples)
    colours = np.repeat(some[..., :-1], 3 // (samples - 1), axis=2)
    data = png(some * (257 if bits == 16 else 1), bits, ALPHA + (TRUECOLOUR if samples == 4 else 0))
    assert np.abs(to_rgb(data, where="x") - over_white(colours, some[..., -1:] / 255)).max() <= 1


def test_portable_maps() -> None:
    gray = np.array([[[0], [1000], [500], [251]]])
    assert np.array_equal(
        to_rgb(b"P5 4 1 1000\n" + gray.astype(">u2").tobytes(), where="x"),
        np.repeat(np.rint(gray * 255 / 1000), 3, axis=2),
    )
    deep = numbers(16)
    assert np.array_equal(to_rgb(b"P5 10 6 65535\n" + packed_big(deep), where="x"), scaled(deep, 16))
    assert to_rgb(b"P3 2 1 255 1 2 3 4 5 6 ", where="x").tolist() == [[[1, 2, 3], [4, 5, 6]]]
    assert to_rgb(b"P1 2 1 0 1 ", where="x")[0, :, 0].tolist() == [255, 0]


def packed_big(some: np.ndarray) -> bytes:
    return some.astype(">u2").tobytes()


def test_cmyk_and_ycck_jpeg() -> None:
    inks = (255, 0, 51, 102)
    data = encoded(Image.new("CMYK", (16, 16), inks), "JPEG", quality=100)
    expected = [(255 - ink) * (255 - inks[3]) / 255 for ink in inks[:3]]
    assert np.abs(to_rgb(data, where="x")[8, 8] - expected).max() <= 2
    adobe = data.index(b"Adobe")
    assert data[adobe + 11] == 0  # as CMYK; the same numbers as YCCK are another colour
    y, cb, cr, k = (255 - ink for ink in inks)  # an Adobe file has inverted inks
    turned = [y + 1.402 * (cr - 128), y - 0.344 * (cb - 128) - 0.714 * (cr - 128), y + 1.772 * (cb - 128)]
    stored = [255 - min(255, max(0, level)) for level in turned]  # libjpeg gives inverted inks again
    got = to_rgb(data[: adobe + 11] + b"\2" + data[adobe + 12 :], where="x")[8, 8]
    assert np.abs(got - [level * k / 255 for level in stored]).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF", "AVIF", "MPO"])
def test_first_frame_of_all_formats_with_several(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(to_rgb(data, where="x").astype(int) - [255, 0, 0]).max() <= 3
    assert not decode(data, where="x").plain


def test_sixteen_bits_without_a_photometric_tag_begin_with_black() -> None:
    some = numbers(16)
    data = tiff_image(some, 16, BLACK_IS_ZERO)
    without = data.replace(struct.pack("<HHI", 262, 3, 1), struct.pack("<HHI", 263, 3, 1))
    assert without != data and np.array_equal(to_rgb(without, where="x"), scaled(some, 16))
