"""Tables of images: sound ones cell by cell, a wrong row as a problem with its line, other files as an error."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PilImage

from attrib_core.common.errors import InputError
from attrib_core.data import metadata_table, pool
from attrib_core.data.metadata_table import MetadataTable
from attrib_core.data.sources import folder as source
from tests.data.image_fixtures import encoded, image


def read(folder: Path, content: str | bytes, name: str = "words.csv") -> MetadataTable:
    """Write a table next to a folder and read it."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    metadata_table._read_once.cache_clear()
    return metadata_table.read(path, folder)


def cells(found: MetadataTable, *columns: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in columns) for row in found.rows.to_pylist()]


HEADER = "file,caption\n"
SOUND = {
    "plain": ("file,caption\na.png,a cat\nb.png,\n", [("a.png", "a cat"), ("b.png", "")]),
    "byte order mark and CRLF": (
        '\ufefffile,caption\r\na.png,"a ""big"" cat, asleep"\r\n\r\nb.png,x\r\n',
        [("a.png", 'a "big" cat, asleep'), ("b.png", "x")],
    ),
    "CR alone": ("file,caption\ra.png,x\rb.png,y", [("a.png", "x"), ("b.png", "y")]),
    "lines in a cell": (
        'file,caption\na.png,"two\nlines, too"\nb.png,x\n',
        [("a.png", "two\nlines, too"), ("b.png", "x")],
    ),
    "a line like a row in a cell": (
        'file,caption\na.png,"two\nb.png,lines"\nc.png,x\n',
        [("a.png", "two\nb.png,lines"), ("c.png", "x")],
    ),
    "spaces before quotes": (
        'file, "caption"\na.png, "a big cat"\n b.png,  "a ""big"" cat, asleep" \n "c.png" , "x"\nd.png, x\n',
        [("a.png", "a big cat"), ("b.png", 'a "big" cat, asleep'), ("c.png", "x"), ("d.png", "x")],
    ),
    "quotes inside behind a space": (
        'file,caption\na.png, "big" cat\nb.png, a "big" cat\nc.png, "a\nd.png, "a" "b"\n"e.png" , "a" b\n',
        [("a.png", '"big" cat'), ("b.png", 'a "big" cat'), ("c.png", '"a'), ("d.png", '"a" "b"'), ("e.png", '"a" b')],
    ),
    "a line like a name in a cell": (
        'file,caption\na.png,"as in photo 2.png, but\nsee photo 3.png, too"\n',
        [("a.png", "as in photo 2.png, but\nsee photo 3.png, too")],
    ),
    "quotes inside of a cell": (
        'file,caption\na.png,a 5" disk\nb.png,x"y"z\n',
        [("a.png", 'a 5" disk'), ("b.png", 'x"y"z')],
    ),
    "space behind quotes": ('file,caption\n"a.png" ,"a, cat" \nb.png,x\n', [("a.png", "a, cat"), ("b.png", "x")]),
    "space around names": ("file , caption\n a.png , a cat \n", [("a.png", "a cat")]),
    "other columns": ("id,file_name,text,,url\n1,a.png,x,,http://a\n", [("a.png", "x")]),
    "other order": ("caption,file\nx,a.png\n", [("a.png", "x")]),
    "languages": (
        "file,caption\né.png,שלום \u202bאב\u202c\nb.png,🐱\u200d👤 e\u0301\nc.png,\u2028\u0085x\n",
        [("é.png", "שלום \u202bאב\u202c"), ("b.png", "🐱\u200d👤 e\u0301"), ("c.png", "x")],
    ),
    "a long caption": ("file,caption\na.png," + "x" * 200_000 + "\n", [("a.png", "x" * 200_000)]),
    "semicolons in a cell": ("file,caption\na.png,x;y\tz\n", [("a.png", "x;y\tz")]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SOUND.values(), ids=SOUND)
def test_sound_tables_in_csv(tmp_path: Path, text: str, expected: list[tuple[str, str]]) -> None:
    found = read(tmp_path, text)
    assert cells(found, "file", "caption") == expected and found.problems == {}


def test_the_field_limit_of_csv_is_as_before(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    read(tmp_path, HEADER + "a.png,x\n")
    with pytest.raises(InputError):
        read(tmp_path, "file;caption\n")
    assert csv.field_size_limit() == before


def test_sound_json_lines_with_columns_of_any_kind(tmp_path: Path) -> None:
    """As Hugging Face's image folders have them."""
    rows = [
        {
            "file_name": "a.png",
            "text": " a cat ",
            "width": 512,
            "objects": {"bbox": [[1, 2, 3, 4]], "text": [None]},
        },
        {"file_name": "b.png", "text": None, "height": 1.5, "ok": True, "license": 3, "captions": ["x", "y"]},
        {"file": "c.png", "caption": "🐱 \u2028e\u0301", "url": "https://x", "license": None, "TEXT": "y"},
    ]
    text = (
        "\ufeff" + "\r\n".join(map(json.dumps, rows)) + '\n\n{"file":"d.png","style":"oil","n":1e999,"m":NaN}'
    )
    found = read(tmp_path, text, "metadata.JSONL")
    expected = [
        ("a.png", "a cat", ""),
        ("b.png", "", ""),
        ("c.png", "🐱 \u2028e\u0301", ""),
        ("d.png", "", "oil"),
    ]
    assert cells(found, "file", "caption", "style") == expected and found.problems == {}
    assert found.ignored == (
        "width",
        "objects",
        "height",
        "ok",
        "license",
        "captions",
        "url",
        "TEXT",
        "n",
        "m",
    )


TWICE = "duplicate: an earlier row has the same file, as 'a.png'"
OUT = "path: '../a.png' leads out of the folder, expected a file below it"
LONG = "path: no such file: the name is 300 bytes long, at most 255 are possible"
QUOTE = "a quote is not closed, or has text behind it; double the quotes inside a cell"
WRONG_ROWS = {
    "a quote that is not closed": ('a.png,"a cat\nb.png,a dog\nc.png,x\n', {0: f"row: line 2: {QUOTE}"}, 3),
    "at the end": ('a.png,x\nb.png,"a dog', {1: f"row: line 3: {QUOTE}"}, 2),
    "two of them": (
        'a.png,"a cat\nb.png,"a dog\nc.png,x\n',
        {0: f"row: line 2: {QUOTE}", 1: f"row: line 3: {QUOTE}"},
        3,
    ),
    "closed by another's": ('a.png,"a cat\nb.png,x\nc.png,she said "\nd.png,x\n', {0: f"row: line 2: {QUOTE}"}, 4),
    "text behind a quote": ('a.png,"a "big" cat"\nb.png,x\n', {0: f"row: line 2: {QUOTE}"}, 2),
    "too many cells": ("a.png,a cat, asleep\nb.png,x\n", {0: "row: line 2 has 3 cells, the header has 2"}, 2),
    "too few cells": ('a.png,"x\ny"\nb.png\nc.png,x\n', {1: "row: line 4 has 1 cells, the header has 2"}, 3),
    "no file": ("a.png,x\n ,y\n,\n", {1: "row: line 3 has no file", 2: "row: line 4 has no file"}, 3),
    "named twice": ("a.png,x\n\n./a.png,y\na.png,z\n", dict.fromkeys((1, 2), TWICE), 3),
    "out of the folder": ("../a.png,x\nb.png,y\n", {0: OUT}, 2),
    "a long name": ("a.png,x\n" + "b" * 300 + ",y\n", {1: LONG}, 2),
    "a very long cell": (
        'a.png,"' + "x" * ((1 << 20) + 1) + '"\nb.png,y\n',
        {0: "row: line 2: a cell is longer than 1048576 characters"},
        2,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "problems", "rows"), WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_a_wrong_row_is_a_problem_and_all_others_are_read(
    tmp_path: Path, text: str, problems: dict[int, str], rows: int
) -> None:
    (tmp_path / "b.png").touch()  # so that it is a row of its own, and not a line of a cell
    found = read(tmp_path, HEADER + text)
    assert found.problems == problems and len(found.rows) == rows
    names = [name for (name,) in cells(found, "file")]
    assert all(name.endswith(".png") for number, name in enumerate(names) if number not in problems), names


WRONG_LINES = [
    ('{"file": "b.png"', " is not JSON: Expecting ',' delimiter"),
    ('["b.png"]', " holds list, expected an object of column names and texts"),
    ('{"file": "b.png", "caption": 3}', ": 'caption' is 3, expected a text or null"),
    ('{"file": "b.png", "text": ' + json.dumps(["x" * 500]) + "}", ": 'text' is ['xxx"),
    ('{"file": "b.png", "file": "c.png"}', " has two names of one column: ['file', 'file']"),
    ('{"file": "b.png", "file_name": "b.png"}', " has two names of one column"),
    ('{"file": "b.png", "catgory": "x"}', ": unknown column 'catgory', did you mean 'category'?"),
    ('{"file": "b.png", "caption": "a cat \\ud83d"}', ": caption: character 7 is half of an emoji (\\ud83d)"),
    ('{"file": "b\\u0000.png"}', ": file: character 2 is NUL"),
    ('{"caption": "x"}', " has no file"),
    ('{"file": "b.png", "n": ' + "9" * 5000 + "}", " is not JSON: Exceeds the limit"),
    ('{"file": "b.png", "n": ' + "[" * 99_999 + "}", " is not JSON: maximum recursion depth exceeded"),
]


@pytest.mark.parametrize(("line", "message"), WRONG_LINES, ids=[message[:40] for _, message in WRONG_LINES])
def test_a_wrong_line_of_json_is_a_problem(tmp_path: Path, line: str, message: str) -> None:
    found = read(tmp_path, f'{{"file": "a.png"}}\n\n{line}\n{{"file": "z.png"}}\n', "m.jsonl")
    assert found.problems.keys() == {1} and [name for (name,) in cells(found, "file")][::2] == [
        "a.png",
        "z.png",
    ]
    assert found.problems[1].startswith(f"row: line 3{message}") and len(found.problems[1]) < 300
    assert found.problems[1].isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file;caption\na.png;x\n", ": a semicolon-separated table; expected commas"),
        ("file_name\ttext\na.png\tx\n", ": a tab-separated table; expected commas"),
        ("file|caption\n", ": a bar-separated table; expected commas"),
        (
            "file,caption,caption\n",
            ": columns file, caption, caption; expected 'file' among them, and each only once",
        ),
        ("file,text,caption\n", "each only once"),
        ("a.png,a cat\n", ": columns a.png, a cat; expected 'file' among them"),
        ("file,stlye\n", ": unknown column 'stlye', did you mean 'style'?"),
        ("", ": an empty table; expected a first line with names of columns, 'file' among them"),
        ("\n\r\n", ": an empty table; expected a first line with names of columns"),
        ('"file,caption\na.png,x\n', ": line 1: a quote is not closed; expected names of columns"),
        ('{"file": "a.png"}\n', ": begins like JSON; the name of a table in JSON lines ends in .jsonl"),
        ("file,caption\na.png\nb.png\n", ": line 2 has 1 cells, the header has 2; all 2 rows are wrong"),
        ("file\n/a.png\n", ": '/a.png' is absolute, expected a path relative to the folder"),
        (
            "file\nä.png\n".encode("latin-1"),
            ": not UTF-8 at byte 5 (0xe4), perhaps Windows-1252; save it as UTF-8",
        ),
        ("file\na.png\n".encode("utf-16"), ": saved as UTF-16; save it as UTF-8"),
        (b"PAR1\x15\x04", ": is a Parquet file; expected text in UTF-8"),
        (b"file\na\0.png\n", ": byte 6 is NUL"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    said = str(caught.value)
    assert message in said and said.startswith(str(tmp_path / "words.csv")) and said.isprintable()


def test_tables_that_are_no_files(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", Path("x" * 300)):
        with pytest.raises(InputError, match=r"pool\.source\.metadata: '.*' is no file"):
            metadata_table.read(path, tmp_path)
    with pytest.raises(InputError, match="a folder, pipe or device; expected a table"):
        metadata_table.read(tmp_path, tmp_path)


def test_rows_and_rejects_are_all_rows_of_the_table(tmp_path: Path) -> None:
    """Through the stage: wrong rows, odd files, wrong captions; and `labels` has none of a wrong row."""
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (images / name).write_bytes(encoded(PilImage.fromarray(image())))
    (images / "link.png").symlink_to("a.png")
    (images / "odd.png").mkdir()
    (images / "c.txt").write_bytes(b"caf\xe9")
    lines = ["file,caption,subject", "b.png,x,bee", "link.png,y,cat", "a.png,z,cat", "odd.png,x,", "c.png,,",
             "../a.png,,", "none.png,x,", 'd.png,"x,', "short.png", ",,"]  # fmt: skip
    table = tmp_path / "m.csv"
    table.write_text("\n".join(lines))
    given: dict[str, Any] = {"family": "folder", "path": str(images), "metadata": str(table)}
    given |= {"licence": "CC0", "attribution": "me"}
    made = list(pool.part(given, start=0, stop=10, seed=1))
    assert len(made) == len(lines) - 1
    assert [row["image_id"] for kind, row in made if kind == "pool"] == ["b.png", "link.png"]
    reasons = {row["image_id"]: row["reason"] for kind, row in made if kind == "rejects"}
    assert reasons.pop("c.png").startswith("caption: c.txt: not UTF-8 at byte 3")
    assert reasons == {
        "a.png": "duplicate: an earlier row has the same file, as 'link.png'",
        "odd.png": "unreadable: odd.png is a folder, expected a file",
        "../a.png": "path: '../a.png' leads out of the folder, expected a file below it",
        "none.png": "unreadable: no file none.png",
        "d.png": f"row: line 9: {QUOTE}",
        "short.png": "row: line 10 has 1 cells, the header has 3",
        "line 11": "row: line 11 has no file",
    }
    opened = source.load(path=str(images), metadata=str(table), licence="x", attribution="y")
    assert [row["subject"] for row in opened.labels(0, 4)] == ["bee", "cat", None, None]
    assert opened.warnings() == [f"5 of 10 rows become rejects, the first: {reasons['a.png']}"]
    with pytest.raises(InputError, match=r"pool\.source\.licence: None, but the table has none for 5 images"):
        source.load(path=str(images), metadata=str(table), attribution="y")


def test_a_source_with_texts_that_cannot_be_stored(tmp_path: Path) -> None:
    row = {"image_id": "x\udce9", "caption": "a", "image": {"bytes": b"", "path": "x"}}
    made = list(pool.build([row, row | {"image_id": "y", "caption": "\ud83d"}]))
    assert made == [
        (
            "rejects",
            {
                "image_id": r"x\xe9",
                "reason": r"text: image_id: character 2 is a byte that is not UTF-8 (\xe9)",
            },
        ),
        ("rejects", {"image_id": "y", "reason": r"text: caption: character 1 is half of an emoji (\ud83d)"}),
    ]
    pool.save(iter(made), pool_path=tmp_path / "pool.parquet", rejects_path=tmp_path / "rejects.parquet")
