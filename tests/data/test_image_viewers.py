"""Sound files that Pillow alone shows otherwise than viewers do, and PNG whose pixels end too early."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from attrib_core.common.errors import InputError
from attrib_core.data import image_headers
from attrib_core.data.images import decode, to_rgb
from tests.data.image_file_fixtures import chunk, packed, png, tiff_image
from tests.data.image_fixtures import encoded, image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
GRAYS = [(level, level, level) for level in range(4)]
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
SHOWN = image(16, 24)


def gif(
    numbers: np.ndarray,
    colours: Sequence[tuple[int, int, int]],
    own: Sequence[tuple[int, int, int]] = (),
    *,
    screen: tuple[int, int] | None = None,
    place: tuple[int, int] = (0, 0),
    clear: int | None = None,
) -> bytes:
    """A GIF of numbers 0 to 3, (height, width), with four colours of the file and four of the frame, at (x, y)."""
    height, width = numbers.shape
    codes = [256, *(int(number) for number in numbers.ravel()), 257]  # so few that all have 9 bits
    bits = sum(code << 9 * at for at, code in enumerate(codes))
    stream = bits.to_bytes((9 * len(codes) + 7) // 8, "little")
    blocks = b"".join(
        bytes([len(part)]) + part for part in (stream[at : at + 255] for at in range(0, len(stream), 255))
    )
    control = b"" if clear is None else bytes([0x21, 0xF9, 4, 1, 0, 0, clear, 0])
    frame = struct.pack("<BHHHHB", 0x2C, *place, width, height, 0x81 if own else 0)
    head = b"GIF89a" + struct.pack("<HHBBB", *(screen or (width, height)), 0x81, 0, 0)
    tables = [b"".join(bytes(one) for one in table) for table in (colours, own)]
    return head + tables[0] + control + frame + tables[1] + b"\x08" + blocks + b"\0;"


NUMBERS = np.arange(60).reshape(6, 10) * 7 % 4


@pytest.mark.parametrize(
    ("colours", "own"),
    [
        (COLOURS, ()),
        (COLOURS, GRAYS),
        (GRAYS, COLOURS),
        (GRAYS, ()),
        (GRAYS, GRAYS),
        (COLOURS, COLOURS[::-1]),
    ],
)
@pytest.mark.parametrize("clear", [None, 2])
def test_a_gif_is_shown_in_the_colours_of_its_frame(
    colours: list[tuple[int, int, int]], own: list[tuple[int, int, int]], clear: int | None
) -> None:
    expected = np.array(own or colours)[NUMBERS]
    if clear is not None:
        expected[clear == NUMBERS] = 255
    found = decode(gif(NUMBERS, colours, own, clear=clear), where="x")
    assert np.array_equal(found.image, expected) and found.transparent == (clear is not None)


@pytest.mark.parametrize("own", [(), GRAYS, COLOURS[::-1]], ids=["file", "grays", "frame"])
@pytest.mark.parametrize("clear", [None, 1])
@pytest.mark.parametrize("place", [(0, 0), (3, 2), (10, 6)])
def test_what_the_first_frame_of_a_gif_does_not_cover_is_white(
    place: tuple[int, int], clear: int | None, own: list[tuple[int, int, int]]
) -> None:
    data = gif(NUMBERS, COLOURS, own, screen=(20, 12), place=place, clear=clear)
    inside = np.array(own or COLOURS)[NUMBERS]
    inside[(-1 if clear is None else clear) == NUMBERS] = 255
    expected = np.full((12, 20, 3), 255)
    expected[place[1] : place[1] + 6, place[0] : place[0] + 10] = inside
    found = decode(data, where="x")
    assert np.array_equal(found.image, expected) and found.transparent


def bmp(pixels: np.ndarray, alpha: int) -> bytes:
    """A BMP of version 4 with 32 bits, (height, width, 4) in the order BGRA, and a mask for alpha."""
    height, width = pixels.shape[:2]
    head = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, 0, 0, 0, 0, 0)
    head += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, alpha) + bytes(52)
    return b"BM" + struct.pack("<IHHI", 122 + pixels.nbytes, 0, 0, 122) + head + pixels[::-1].tobytes()


@pytest.mark.parametrize("alpha", [0, 0xFF000000])
def test_an_alpha_that_is_zero_everywhere_in_bmp_is_none(alpha: int) -> None:
    pixels = np.dstack([SHOWN[..., ::-1], np.zeros(SHOWN.shape[:2], dtype=np.uint8)])
    found = decode(bmp(pixels, alpha), where="x")
    assert np.array_equal(found.image, SHOWN) and not found.transparent
    pixels[3, 4, 3] = 255
    found = decode(bmp(pixels, alpha), where="x")
    assert found.transparent == (alpha > 0) and found.image[3, 4].tolist() == SHOWN[3, 4].tolist()
    assert not alpha or (found.image.sum(axis=2) == 765).sum() >= SHOWN.shape[0] * SHOWN.shape[1] - 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_alpha_that_is_zero_everywhere_elsewhere_is_one(kind: str) -> None:
    clear = Image.fromarray(SHOWN)
    clear.putalpha(0)
    assert (to_rgb(encoded(clear, kind), where="x") == 255).all()


def rows_of(numbers: np.ndarray, bits: int, interlaced: bool) -> list[bytes]:
    """The rows of a PNG's passes, each with its filter, which is none."""
    made = []
    for left, top, right, down in PASSES if interlaced else ((0, 0, 1, 1),):
        some = numbers[top::down, left::right]
        made += [b"\0" + packed(row[None], bits, ">") for row in some if row.size]
    return made


def png_of(numbers: np.ndarray, bits: int, colour: int, pixels: bytes, interlaced: bool) -> bytes:
    """A PNG whose pixels are these bytes, compressed, in chunks of 50."""
    head = struct.pack(">IIBBBBB", numbers.shape[1], numbers.shape[0], bits, colour, 0, 0, interlaced)
    parts = [zlib.compress(pixels)[at:][:50] for at in range(0, len(zlib.compress(pixels)), 50)]
    palette = chunk(b"PLTE", bytes(range(256)) * 3) if colour == 3 else b""
    content = chunk(b"IHDR", head) + palette + b"".join(chunk(b"IDAT", part) for part in parts)
    return SIGNATURE + content + chunk(b"IEND", b"")


@pytest.mark.parametrize("interlaced", [False, True], ids=["in order", "interlaced"])
@pytest.mark.parametrize(
    ("bits", "colour"),
    [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (2, 3), (8, 3), (8, 4), (8, 6), (16, 6)],
)
def test_png_whose_pixels_end_too_early(bits: int, colour: int, interlaced: bool) -> None:
    some = np.random.default_rng(3).integers(0, 1 << bits, (11, 13, SAMPLES[colour]))
    for last in (1, 0):  # black in the last row, as in what is not there
        some[-1] *= last
        rows = rows_of(some, bits, interlaced)
        whole = to_rgb(png_of(some, bits, colour, b"".join(rows), interlaced), where="x")
        plain = b"".join(rows_of(some, bits, False))
        assert np.array_equal(whole, to_rgb(png_of(some, bits, colour, plain, False), where="x"))
        more = png_of(some, bits, colour, b"".join(rows) + bytes(99), interlaced)
        assert np.array_equal(whole, to_rgb(more, where="x"))
        for kept in (len(rows) - 1, len(rows) // 2, 1):
            data = png_of(some, bits, colour, b"".join(rows[:kept]), interlaced)
            missing = sum(len(row) for row in rows[kept:])
            assert image_headers.png_bytes_missing(data) == missing
            # where the stream ends in a chunk of its own, Pillow sees it
            with pytest.raises(InputError, match=f"^x: (a PNG whose pixels end {missing} bytes|.*truncated)"):
                to_rgb(data, where="x")


def test_pixels_that_end_between_two_rows_are_named() -> None:
    some = np.random.default_rng(3).integers(0, 256, (64, 64, 3))
    rows = rows_of(some, 8, False)
    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    content = chunk(b"IDAT", zlib.compress(b"".join(rows[:32]))) + chunk(b"IEND", b"")
    with pytest.raises(
        InputError, match="^x: a PNG whose pixels end 6176 bytes too early; expected a complete"
    ):
        to_rgb(SIGNATURE + chunk(b"IHDR", head) + content, where="x")


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (3, 3), (8, 8), (2000, 40)])
@pytest.mark.parametrize("interlaced", [False, True], ids=["in order", "interlaced"])
def test_black_png_of_all_sizes(size: tuple[int, int], interlaced: bool) -> None:
    black = np.zeros((size[1], size[0], 3), dtype=int)
    data = png_of(black, 8, 2, b"".join(rows_of(black, 8, interlaced)), interlaced)
    assert np.array_equal(to_rgb(data, where="x"), black)


def test_frames_of_a_png_with_black_below() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("black", "blue")]
    data = encoded(frames[0], save_all=True, append_images=frames[1:])
    assert not to_rgb(data, where="x").any()
    apart = encoded(frames[0], save_all=True, append_images=frames, default_image=True)
    assert not to_rgb(apart, where="x").any()


@pytest.mark.parametrize("key", [0, 1, 2, 3, 0xFF00, 0xFF01])
def test_a_transparent_gray_of_one_bit_is_its_last_bit(key: int) -> None:
    some = np.arange(64).reshape(8, 8, 1) * 5 // 3 % 2
    data = png(some, 1, 0, chunk(b"tRNS", struct.pack(">H", key)))
    assert (to_rgb(data, where="x") == np.where(some == key & 1, 255, some * 255)).all()


@pytest.mark.parametrize(
    "words",
    ['Orientation="6"', "Orientation='6'", "Orientation = '6'", 'Orientation\n= "6"', "Orientation> 6 <"],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_xmp_in_other_quotes_and_with_spaces(kind: str, words: str) -> None:
    xmp = f"<rdf:Description tiff:{words}/>".encode()
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    if kind == "TIFF":
        data = tiff_image(SHOWN, 8, 2, more={700: (1, list(xmp))})
    elif kind == "PNG":
        notes = PngInfo()
        notes.add_itxt("XML:com.adobe.xmp", xmp.decode())
        data = encoded(Image.fromarray(SHOWN), pnginfo=notes)
    else:
        data = encoded(Image.fromarray(SHOWN), kind, xmp=xmp, **options)
    stored = to_rgb(encoded(Image.fromarray(SHOWN), kind, **options), where="x")
    assert np.array_equal(to_rgb(data, where="x"), np.rot90(stored, -1))


def test_whole_files_of_kinds_that_are_not_read_are_not_called_damaged_alone() -> None:
    notes = PngInfo()
    notes.add_text("a", "b" * 80_000_000, zip=True)
    odd = bmp(np.zeros((4, 4, 4), dtype=np.uint8), 0xFF000000).replace(
        struct.pack("<II", 0xFF0000, 0xFF00), struct.pack("<II", 0xFF00, 0xFF0000)
    )
    for data in (encoded(Image.new("RGB", (9, 9)), pnginfo=notes), odd):
        with pytest.raises(
            InputError, match=r"^x: the image is damaged or of a kind that is not read \(.*\); expected"
        ):
            to_rgb(data, where="x")
