"""The gate through which images come in: which formats, what any failure becomes, what blank images are told."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attrib_core.common.errors import InputError
from attrib_core.data import images
from attrib_core.data.image_kinds import describe
from attrib_core.data.images import FLAT_LEVELS, check_content, decode, is_flat, to_rgb
from tests.data.image_file_fixtures import exif, tiff_image
from tests.data.image_fixtures import encoded, image

ROOT = Path(__file__).parents[2]
SHOWN = Image.fromarray(image())
NAMED = {
    b"": "an empty file",
    bytes(600): "zeros alone",
    b"<!DOCTYPE html><html>403</html>": "an HTML page",
    b"\xef\xbb\xbf\n <HTML><body>": "an HTML page",
    b"<?xml version='1.0'?><html xmlns=''>": "an HTML page",
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>": "XML",
    b"<?xml version='1.0'?><!-- made --><svg xmlns=''/>": "an SVG drawing",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>": "an SVG drawing",
    "<svg/>".encode("utf-16"): "an SVG drawing",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 492\n": "a Git LFS pointer",
    b"/annex/objects/SHA256E-s1--a.png\n": "a git-annex pointer",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99): "HEIC",
    b"\0\0\0\x1cftypmif1" + bytes(99): "HEIC",
    b"\0\0\0\x20ftypisom" + bytes(99): "a video",
    b"\xff\x0a" + b"\x7f" * 50: "JPEG XL",
    b"%PDF-1.7\n": "a PDF",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n": "PostScript",
    b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(90): "JPEG 2000",
    b"\xff\x4f\xff\x51" + bytes(90): "JPEG 2000",
    b"\0\0\1\0\1\0" + bytes(90): "a Windows icon (ICO)",
    b"\0\0\2\0\1\0" + bytes(90): "a Windows cursor (CUR)",
    b"\0\0\2" + bytes(9) + b"\x10\0\x10\0\x18\0" + bytes(90): "TGA",
    b"8BPS\0\1" + bytes(90): "a Photoshop file",
    b"PK\3\4" + bytes(90): "a zip archive",
    b"\x1f\x8b\x08" + bytes(90): "a gzip file",
    b"RIFF\x24\0\0\0WAVEfmt ": "audio",
    b"\0\x05\x16\x07" + bytes(90): "a macOS resource file",
    b"data:image/png;base64,iVBORw0KGgo=": "an image in a data URI",
    b"iVBORw0KGgoAAAANSUhEUg": "a PNG in base64",
    b"404: Not Found": "text ('404: Not Found')",
    "Größe\n".encode(): "text ('Größe')",
    b"\x89PNG\r\n\x1a\n": "a damaged PNG",
    b"\x89PNG\n\x1a\n\0\0": "a PNG that was changed in a transfer as text",
    b"II*\0\x08\0\0\0": "a TIFF that is damaged or of a kind that is not read",
}  # fmt: skip


@pytest.mark.parametrize("data", NAMED, ids=range(len(NAMED)))
def test_what_is_no_image_is_named(data: bytes) -> None:
    name = describe(data)
    assert name is not None and name.startswith(NAMED[data])
    with pytest.raises(InputError) as caught:
        to_rgb(data, where="a.jpg")
    assert f"a.jpg: {len(data)} bytes are no image that can be read, but {name}; expected PNG, JPEG," in str(
        caught.value
    )


def test_other_bytes_have_no_name() -> None:
    assert describe(bytes(range(128, 256))) is None
    with pytest.raises(InputError, match="^x: 128 bytes are no image that can be read; expected PNG"):
        to_rgb(bytes(range(128, 256)), where="x")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
def test_the_content_decides_about_the_format(kind: str) -> None:
    lossless = kind not in ("JPEG", "WEBP", "AVIF", "GIF")
    got = to_rgb(encoded(SHOWN, kind), where="x")
    assert np.abs(got.astype(int) - image()).mean() < (0.01 if lossless else 12)


@pytest.mark.parametrize("kind", ["DDS", "PCX", "SGI", "QOI", "EPS", "DIB", "ICNS", "ICO", "JPEG2000", "TGA"])
def test_formats_that_pillow_would_open_are_refused(kind: str) -> None:
    with pytest.raises(InputError, match="bytes are no image that can be read"):
        to_rgb(encoded(SHOWN, kind), where="x")


class Raises:
    """A decoder that raises an error when it is used."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        struct.error("unpack requires\n4 bytes"), TypeError("Missing dimensions"), RuntimeError("no item"),
        IndexError("out of range"), NotImplementedError("DXT9"), AttributeError("none"), KeyError(7), EOFError(),
        SyntaxError("unknown pixel mode"), zlib.error("Error -3"), OSError(-2), ValueError("a"), AssertionError(),
        OverflowError("big"), RecursionError("deep"), UnicodeDecodeError("ascii", b"\xff", 0, 1, "no"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("where", ["open", "load"])
def test_any_failure_of_a_decoder_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    owner: Any = Image if where == "open" else Image.Image
    monkeypatch.setattr(owner, where, Raises(error))
    with pytest.raises(InputError) as caught:
        to_rgb(encoded(Image.new("RGB", (9, 9))) if where == "open" else b"P6 1 1 255\n123", where="a.png")
    message = str(caught.value)
    assert (
        message.startswith("a.png: the image is damaged or of a kind that is not read (")
        and "\n" not in message
    )
    assert message.endswith("); expected a complete file, or save it as an ordinary PNG")


def test_memory_and_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(SHOWN)
    monkeypatch.setattr(Image, "open", Raises(MemoryError()))
    with pytest.raises(InputError, match="^x: does not fit into memory; expected a smaller image$"):
        to_rgb(data, where="x")
    for error in (KeyboardInterrupt(), SystemExit()):
        monkeypatch.setattr(Image, "open", Raises(error))
        with pytest.raises(type(error)):
            to_rgb(data, where="x")


def test_formats_whose_decoders_take_much_memory_may_have_fewer_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 20 * 40 * 48 - 1)
    with pytest.raises(InputError, match="^x: more than 1919 pixels as AVIF; make the image smaller"):
        to_rgb(encoded(SHOWN, "AVIF"), where="x")
    assert to_rgb(encoded(SHOWN, "PNG"), where="x").shape == to_rgb(encoded(SHOWN, "WEBP"), where="x").shape


def test_large_images_are_converted_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    clear = SHOWN.copy()
    clear.putalpha(Image.fromarray(image(seed=1)[..., 0]))
    files = [
        encoded(clear),
        encoded(SHOWN.quantize(9), transparency=3),
        encoded(SHOWN.convert("CMYK"), "TIFF"),
    ]
    files.append(encoded(Image.fromarray(image()[..., 0].astype(np.uint16) * 257), transparency=514))
    whole = [to_rgb(data, where="x") for data in files]
    monkeypatch.setattr("attrib_core.data.image_modes.STRIP_PIXELS", 48 * 7)
    for data, expected in zip(files, whole, strict=True):
        assert np.array_equal(to_rgb(data, where="x"), expected)


def test_warnings_of_pillow_are_not_shown_not_even_in_threads() -> None:
    damaged = encoded(SHOWN, "TIFF", compression="raw", exif=exif((0x11A, 5, [72, 1])))
    place = damaged.index(struct.pack("<HHI", 0x11A, 5, 1))
    damaged = damaged[: place + 8] + b"\xff\xff\xff\x7f" + damaged[place + 12 :]
    with warnings.catch_warnings(record=True) as shown:
        Image.open(io.BytesIO(damaged))
    assert len(shown) == 1  # Pillow alone says that the tag is cut off
    with warnings.catch_warnings(record=True) as shown, ThreadPoolExecutor(4) as pool:
        before = len(warnings.filters)
        found = list(pool.map(lambda _: to_rgb(damaged, where="x"), range(40)))
        assert all(np.array_equal(one, image()) for one in found)
        assert len(warnings.filters) <= before + 1
    assert shown == []


def test_pillow_writes_nothing_on_the_terminal(tmp_path: Path) -> None:
    many = tiff_image(np.zeros((4, 4, 1), dtype=int), 8, 1, more={277: (3, [999])})
    (tmp_path / "a.tif").write_bytes(many)
    code = "import sys; from attrib_core.data.images import to_rgb; to_rgb(open(sys.argv[1], 'rb').read(), where='x')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.tif")], capture_output=True, text=True, cwd=ROOT
    )
    *_, last = done.stderr.splitlines()
    assert "InputError: x: " in last and "a TIFF that is damaged or of a kind that is not read" in last
    assert "More samples per pixel" not in done.stderr


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "GIF"])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 192, 203), (12, 200, 99)])
def test_one_colour_is_blank_in_all_formats(colour: tuple[int, int, int], kind: str) -> None:
    assert is_flat(to_rgb(encoded(Image.new("RGB", (70, 50), colour), kind), where="x"))


def test_faint_images_are_not_blank() -> None:
    some = np.full((40, 50, 3), 100, dtype=np.uint8)
    some[20, 20, 1] += FLAT_LEVELS
    assert is_flat(some)
    some[20, 20, 1] += 1
    assert not is_flat(some)
    ramp = np.repeat(np.linspace(240, 255, 50).astype(np.uint8)[None, :, None], 3, axis=2)
    assert not is_flat(ramp) and not is_flat(np.swapaxes(ramp, 0, 1))


def test_blank_images_are_told_with_their_colour() -> None:
    def said(colour: tuple[int, ...]) -> str:
        found = decode(encoded(Image.new("RGB" if len(colour) == 3 else "RGBA", (9, 9), colour)), where="x")
        with pytest.raises(InputError) as caught:
            check_content(found.image, where="a.png: blank", transparent=found.transparent)
        return str(caught.value)

    assert said((0, 0, 0)).startswith(
        "a.png: blank: every pixel is black (0, 0, 0), as a safety checker leaves it"
    )
    assert said((255, 192, 203)).startswith(
        "a.png: blank: every pixel is (255, 192, 203), so it shows nothing"
    )
    assert said((255, 255, 255, 128)).startswith(
        "a.png: blank: every pixel is white (255, 255, 255), transparency is laid over white"
    )
    noise = np.random.default_rng(0).integers(250, 254, (9, 9, 3)).astype(np.uint8)
    with pytest.raises(InputError, match=r"^x: every pixel is nearly \(25\d, 25\d, 25\d\)"):
        check_content(noise, where="x")
    check_content(image(), where="x")


def test_min_is_white_alone_is_not_blank() -> None:
    some = np.arange(64).reshape(8, 8, 1) % 2
    assert not is_flat(to_rgb(tiff_image(some, 1, 0), where="x"))
