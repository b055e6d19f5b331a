"""Pool: rejects with reasons, conversion to RGB, parts."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from attrib_core.data import image_headers, pool
from attrib_core.data.images import to_png, to_rgb
from attrib_core.data.perceptual_hash import difference_hash
from attrib_core.storage import tables
from tests.data.image_file_fixtures import png
from tests.data.image_fixtures import encoded, image

LABELS = {
    "caption": "c", "subject": None, "category": None, "style": None, "licence": "CC0-1.0", "attribution": "a"
}  # fmt: skip


def row(image_id: str, data: bytes | None) -> dict[str, Any]:
    return {"image_id": image_id, "image": {"bytes": data, "path": f"{image_id}.png"}, **LABELS}


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
    assert kept[0]["perceptual_hash"] == difference_hash(image())
    assert rejects["b"].startswith("undecodable: 8 bytes")
    assert rejects["c"] == "too small: 100 x 31 pixels, at least 32 are needed"
    assert rejects["a"] == "duplicate id"
    assert rejects["d"] == "unreadable: no file d.png"
    assert rejects["e"].startswith("undecodable")
    tables.from_rows(kept, tables.schema("pool"))


def test_a_name_printed_like_another() -> None:
    good = to_png(image())
    made = list(pool.build([row("a\nb", good), row(r"a\nb", good), row("a\nb", good), row(r"a\\nb", good)]))
    assert [value["image_id"] for name, value in made if name == "pool"] == ["a\nb", r"a\\nb"]
    assert [value for name, value in made if name == "rejects"] == [
        {"image_id": r"a\nb", "reason": f"duplicate id{more}"}
        for more in (r": its printed name is that of another file, 'a\nb'", "")
    ]


def test_build_streams() -> None:
    def endless() -> Any:
        number = 0
        while True:
            yield row(str(number), to_png(image()))
            number += 1

    made = pool.build(endless())
    assert [next(made)[1]["image_id"] for _ in range(3)] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (
            PilImage.new("RGB", (40, 40)),
            "blank: every pixel is black (0, 0, 0), as a safety checker leaves it",
        ),
        (PilImage.new("RGB", (40, 40), "pink"), "blank: every pixel is (255, 192, 203), so it shows nothing"),
        (
            PilImage.new("RGBA", (40, 40), (0, 0, 0, 0)),
            "blank: every pixel is white (255, 255, 255), transparency",
        ),
    ],
)
def test_blank_images_are_rejected(shown: PilImage.Image, words: str) -> None:
    white_drawing = PilImage.new("RGBA", (40, 40), (255, 255, 255, 0))
    white_drawing.paste((255, 255, 255, 255), (10, 10, 30, 30))
    black_drawing = PilImage.new("RGBA", (40, 40), (0, 0, 0, 0))
    black_drawing.paste((0, 0, 0, 255), (10, 10, 30, 30))
    files = {"white": white_drawing, "black": black_drawing, "one": shown}
    made = list(pool.build(row(name, encoded(one)) for name, one in files.items()))
    assert [(table, value["image_id"]) for table, value in made] == [
        ("rejects", "white"), ("pool", "black"), ("rejects", "one"),
    ]  # fmt: skip
    assert "so what is drawn in white is lost" in made[0][1]["reason"]
    assert made[2][1]["reason"].startswith(words)


def rotated(image: PilImage.Image) -> bytes:
    exif = PilImage.Exif()
    exif[image_headers.ORIENTATION] = 6
    return encoded(image, "JPEG", quality=95, exif=exif)


CONVERTED: dict[str, Callable[[PilImage.Image], bytes]] = {
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


@pytest.mark.parametrize("name", CONVERTED)
def test_other_modes_and_formats_become_rgb(name: str) -> None:
    data = CONVERTED[name](PilImage.fromarray(image()))
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


def test_sixteen_bit_colour_is_stored_in_eight() -> None:
    some = np.random.default_rng(0).integers(0, 65536, (40, 48, 3))
    data = png(some, 16, colour=2)
    [(_, made)] = pool.build([row("a", data)])
    assert made["image"]["bytes"] == to_png((some >> 8).astype(np.uint8)) != data
    eight = png(some >> 8, 8, colour=2)
    [(_, made)] = pool.build([row("a", eight)])
    assert made["image"]["bytes"] == eight


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
