"""Tables that are changed at random: an error, or every row is read or a problem."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attrib_core.common.errors import InputError
from tests.data.test_metadata_table import read

TABLE = 'file,caption,style\na.png,a cat,\nsub/b.png,"a dog, asleep",oil\nc.png,"the ""x""",\nd.png,x y,ink\n'
PIECES = [
    '"',
    ",",
    "\n",
    "\r",
    ";",
    '""',
    '"\n',
    ',"',
    "\t",
    "🐱",
    "..",
    "/",
    "a.png",
    "\0",
    "\u2028",
    " ",
    "é",
    '" ',
]
CHANGES = st.lists(
    st.tuples(st.integers(0, len(TABLE)), st.integers(0, 3), st.sampled_from(PIECES)), min_size=1, max_size=4
)


def changed(text: str, changes: list[tuple[int, int, str]]) -> str:
    for place, removed, put in changes:
        text = text[:place] + put + text[place + removed :]
    return text


@settings(max_examples=600, deadline=None, derandomize=True)
@given(CHANGES)
def test_no_row_of_a_changed_table_is_lost(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, str]]
) -> None:
    """Each line that is a row by itself is a row or a problem, and no row is made of nothing."""
    text = changed(TABLE, changes)
    try:
        found = read(tmp_path_factory.getbasetemp(), text)
    except InputError as error:
        assert str(error).isprintable()
        return
    lines = [line for line in io.StringIO(text, newline="") if line.strip("\r\n")]
    header = next(csv.reader(lines[:1]))
    alone = 0
    for line in lines[1:]:
        row = next(csv.reader([line]))
        name = row[[one.strip() for one in header].index("file")].strip() if len(row) == len(header) else ""
        alone += name.endswith(".png") and name != ".png" and " " not in name
    assert alone <= len(found.rows) <= len(lines) - 1
    assert found.problems.keys() <= set(range(len(found.rows))) and len(found.problems) < len(found.rows)
    assert all(row["file"] for row in found.rows.to_pylist())


JSON_PIECES = [*PIECES, "{", "}", "[", "\\ud83d", "\\", "null", "1e9", ":", '"text": 1', "NaN"]
LINES = (
    '{"file": "a.png", "caption": "a cat"}\n{"file_name": "b.png", "w": [1, {"x": 2}]}\n{"file": "c.png"}\n'
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(0, len(LINES)), st.integers(0, 3), st.sampled_from(JSON_PIECES)), max_size=4
    )
)
def test_every_line_of_changed_json_is_a_row(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, str]]
) -> None:
    text = changed(LINES, changes)
    try:
        found = read(tmp_path_factory.getbasetemp(), text, "changed.jsonl")
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert len(found.rows) == sum(bool(line.strip()) for line in io.StringIO(text, newline=""))
        assert all(row["file"] for row in found.rows.to_pylist())
