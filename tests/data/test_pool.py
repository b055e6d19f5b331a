"""Pool: the hash against a slow one, rejects with reasons, strange modes, parts."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from attrib_core.data import perceptual_hash, pool
from attrib_core.data.images import to_png, to_rgb
from attrib_core.storage import tables

WORDS = {
    "caption": "c", "subject": None, "category": None, "style": None, "licence": "CC0-1.0", "attribution": "a"
}  # fmt: skip


def image(height: int = 40, width: int = 48, seed: int = 0) -> np.ndarray:
    """Smooth colours, (height, width, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return np.asarray(PilImage.fromarray(coarse).resize((width, height), PilImage.Resampling.BICUBIC))


def row(image_id: str, data: bytes | None) -> dict[str, Any]:
    return {"image_id": image_id, "image": {"bytes": data, "path": f"{image_id}.png"}, **WORDS}


def encoded(image: PilImage.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def bits_of(number: int) -> list[bool]:
    return [bool((number & 0xFFFFFFFFFFFFFFFF) >> (63 - place) & 1) for place in range(64)]


def slow_levels(gray: np.ndarray) -> list[list[int]]:
    """Mean gray of 8 x 9 equal rectangles in exact fractions, border pixels by their share, rounded half up."""
    height, width = gray.shape
    levels = []
    for line in range(8):
        rounded = []
        for column in range(9):
            total = Fraction(0)
            for y in range(height):
                high = min(Fraction(y + 1), Fraction((line + 1) * height, 8)) - max(
                    y, Fraction(line * height, 8)
                )
                if high <= 0:
                    continue
                for x in range(width):
                    wide = min(Fraction(x + 1), Fraction((column + 1) * width, 9))
                    wide -= max(Fraction(x), Fraction(column * width, 9))
                    if wide > 0:
                        total += high * wide * int(gray[y, x])
            rounded.append(math.floor(total / Fraction(height * width, 72) + Fraction(1, 2)))
        levels.append(rounded)
    return levels


@pytest.mark.parametrize("shape", [(8, 9), (5, 4), (24, 32), (33, 40)])
def test_difference_hash_against_loops(shape: tuple[int, int]) -> None:
    for seed in range(2):
        shown = image(*shape, seed=seed)
        levels = slow_levels(np.asarray(PilImage.fromarray(shown).convert("L")))
        expected = [line[column + 1] > line[column] for line in levels for column in range(8)]
        assert bits_of(perceptual_hash.difference_hash(shown)) == expected


def test_difference_hash_of_known_images() -> None:
    rising = np.repeat(np.repeat(np.arange(9, dtype=np.uint8)[None, :, None] * 20, 8, axis=0), 3, axis=2)
    assert perceptual_hash.difference_hash(rising) == -1  # all 64 bits, as a signed number
    assert perceptual_hash.difference_hash(rising[:, ::-1].copy()) == 0
    assert perceptual_hash.difference_hash(np.full((50, 50, 3), 77, dtype=np.uint8)) == 0
    step = np.zeros((8, 9, 3), dtype=np.uint8)
    step[7, 8] = 255
    assert perceptual_hash.difference_hash(step) == 1  # the last bit
    step = np.zeros((8, 9, 3), dtype=np.uint8)
    step[0, 1] = 255
    assert perceptual_hash.difference_hash(step) == -(2**63)  # the first


def test_difference_hash_hardly_changes_with_size_and_compression() -> None:
    shown = image(96, 96)
    first = perceptual_hash.difference_hash(shown)
    smaller = np.asarray(PilImage.fromarray(shown).resize((64, 64), PilImage.Resampling.LANCZOS))
    lossy = np.asarray(PilImage.open(io.BytesIO(encoded(PilImage.fromarray(shown), "JPEG", quality=70))))
    for other in (smaller, lossy):
        assert bin((first ^ perceptual_hash.difference_hash(other)) & 0xFFFFFFFFFFFFFFFF).count("1") <= 4
    far = perceptual_hash.difference_hash(image(96, 96, seed=9))
    assert bin((first ^ far) & 0xFFFFFFFFFFFFFFFF).count("1") > 12


def test_build_checks_and_measures() -> None:
    good, small = to_png(image()), to_png(image(31, 100))
    made = list(
        pool.build(
            [row("a", good), row("b", b"no image"), row("c", small), row("a", good), row("d", None)]
            + [row("e", good[:-200])]
        )
    )
    kept = [value for name, value in made if name == "pool"]
    rejects = {value["image_id"]: value["reason"] for name, value in made if name == "rejects"}
    assert [value["image_id"] for value in kept] == ["a"]
    assert (kept[0]["width"], kept[0]["height"]) == (48, 40)
    assert kept[0]["image"]["bytes"] == good
    assert kept[0]["perceptual_hash"] == perceptual_hash.difference_hash(image())
    assert rejects["b"].startswith("undecodable: 8 bytes")
    assert rejects["c"] == "too small: 100 x 31 pixels, at least 32 are needed"
    assert rejects["a"] == "duplicate id"
    assert rejects["d"] == "unreadable: no file d.png"
    assert rejects["e"].startswith("undecodable")
    tables.from_rows(kept, tables.schema("pool"))


def test_build_streams() -> None:
    def endless() -> Any:
        number = 0
        while True:
            yield row(str(number), to_png(image()))
            number += 1

    made = pool.build(endless())
    assert [next(made)[1]["image_id"] for _ in range(3)] == ["0", "1", "2"]


def rotated(image: PilImage.Image) -> bytes:
    exif = PilImage.Exif()
    exif[pool.EXIF_ORIENTATION] = 6
    return encoded(image, "JPEG", quality=95, exif=exif)


STRANGE: dict[str, Callable[[PilImage.Image], bytes]] = {
    "palette": lambda image: encoded(image.quantize(16)),
    "transparent palette": lambda image: encoded(image.quantize(16), transparency=0),
    "alpha": lambda image: encoded(image.convert("RGBA")),
    "gray": lambda image: encoded(image.convert("L")),
    "gray with alpha": lambda image: encoded(image.convert("LA")),
    "one bit": lambda image: encoded(image.convert("1")),
    "sixteen bits": lambda image: encoded(
        PilImage.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    ),
    "CMYK": lambda image: encoded(image.convert("CMYK"), "JPEG", quality=95),
    "GIF": lambda image: encoded(image, "GIF"),
    "BMP": lambda image: encoded(image, "BMP"),
    "EXIF": rotated,
    "colour key": lambda image: encoded(image, transparency=(0, 0, 0)),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_images_become_rgb(name: str) -> None:
    data = STRANGE[name](PilImage.fromarray(image()))
    [(table, made)] = pool.build([row("a", data)])
    assert table == "pool"
    with PilImage.open(io.BytesIO(made["image"]["bytes"])) as opened:
        assert (opened.format, opened.mode) == ("PNG", "RGB")
        assert opened.size == (made["width"], made["height"])
        assert opened.size == ((40, 48) if name == "EXIF" else (48, 40))
        assert np.array_equal(np.asarray(opened), to_rgb(data, where=name))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_plain_images_keep_their_bytes(kind: str) -> None:
    data = encoded(PilImage.fromarray(image()), kind)
    [(_, made)] = pool.build([row("a", data)])
    assert made["image"]["bytes"] == data


def test_parts_make_the_same_rows(tmp_path: Path) -> None:
    settings = {"family": "openmoji", "size": 32, "media_each": 0, "style_objects": 1}

    def made(size: int) -> list[dict[str, Any]]:
        paths = []
        for number, start in enumerate(range(0, 8, size)):
            path = tmp_path / f"{size}-{number}.parquet"
            rows = pool.part(settings, start=start, stop=min(8, start + size), seed=3)
            counts = pool.save(rows, pool_path=path, rejects_path=tmp_path / "rejects.parquet")
            assert counts["rejects"] == 0
            paths.append(path)
        return tables.read_parts(paths, "pool").to_pylist()

    whole = made(8)
    assert len(whole) == 8
    assert made(3) == whole


def test_save_writes_rejects_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    good = to_png(image())
    rows = pool.build([row(str(number), good if number % 3 else b"") for number in range(600)])
    counts = pool.save(rows, pool_path=tmp_path / "p.parquet", rejects_path=tmp_path / "r.parquet")
    assert counts == {"pool": 400, "rejects": 200}
    assert tables.read(tmp_path / "p.parquet", "pool").num_rows == 400
    assert set(tables.read(tmp_path / "r.parquet", "rejects").column("image_id").to_pylist()[:2]) == {
        "0",
        "3",
    }

    def failing() -> Any:
        yield from pool.build([row("a", good)])
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        pool.save(
            failing(), pool_path=tmp_path / "q" / "p.parquet", rejects_path=tmp_path / "q" / "r.parquet"
        )
    assert list((tmp_path / "q").iterdir()) == []


def test_script(run_script: Callable[..., None], tmp_path: Path) -> None:
    run_script(
        "pool_part",
        output={"pool": tmp_path / "p.parquet", "rejects": tmp_path / "r.parquet"},
        params={
            "source": {"family": "openmoji", "size": 32, "media_each": 0, "style_objects": 0},
            "rows": [3, 6],
            "seed": 3,
        },
        wildcards={"part": "0001"},
    )
    assert tables.read(tmp_path / "p.parquet", "pool").num_rows == 3
    assert tables.read(tmp_path / "r.parquet", "rejects").num_rows == 0
