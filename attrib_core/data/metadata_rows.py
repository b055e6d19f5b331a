"""Read the rows of a table of images from CSV or JSON lines, with those that are wrong.

A quote that is not closed would make one cell of all rows that follow it. So a row that fails, and one that holds what
looks like further rows of images in the folder, is wrong up to the end of its first line, and reading goes on with the
next.
"""

from __future__ import annotations

import csv
import difflib
import functools
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from attrib_core.common.errors import InputError, cut, printable, reason, shown
from attrib_core.storage.text_files import check_characters

COLUMNS = ("file", "caption", "subject", "category", "style", "licence", "attribution")
ALIASES = {"file_name": "file", "text": "caption"}
PLACES = {name: place for place, name in enumerate(COLUMNS)}
PLACES |= {alias: PLACES[name] for alias, name in ALIASES.items()}
SEPARATORS = {";": "semicolon", "\t": "tab", "|": "bar"}
NEARLY = 0.8
"""How similar a name is to one of COLUMNS if it is taken for a mistake (`difflib`); others are not read."""
LONGEST_CELL = 1 << 20
"""Characters of a cell; a longer one is taken for a quote that is not closed."""
MOST_IGNORED = 20
_QUOTED = r'"(?:[^"]|"")*"[ \t]*'
_CELLS = (rf'(?: *{_QUOTED}|(?! *")[^",\r\n][^,\r\n]*|)', rf'(?:{_QUOTED}|[^",\r\n][^,\r\n]*|)')
_SPACE_AROUND_QUOTES, _SPACE_BEHIND_QUOTES = (re.compile(rf"{cell}(?:,{cell})*[\r\n]*") for cell in _CELLS)
_SPACE_BEFORE_QUOTES = re.compile(r'(?:^|,) +"')
_IMAGE_NAME = re.compile(r".+\.(png|jpe?g|webp|gif|bmp|tiff?)", re.IGNORECASE)
Row = Sequence[str]
"""The cells of a row in the order of COLUMNS, "" for an unknown one."""


@dataclass
class Reading:
    """A table that is being read: rows that are wrong so far, by number, and names of columns that are not read."""

    table: Path
    folder: Path
    problems: dict[int, str] = field(default_factory=dict)
    ignored: dict[str, None] = field(default_factory=dict)

    def wrong(self, number: int, line: int, why: str, file: str = "") -> Row:
        """Note why a row is wrong and return it: its file alone, or the number of its line if it names none."""
        self.problems[number] = f"row: line {line}{why}"
        return (printable(file) or f"line {line}", *[""] * (len(COLUMNS) - 1))

    def ignore(self, column: str) -> None:
        """Note a column that is not read."""
        if len(self.ignored) < MOST_IGNORED:
            self.ignored[cut(printable(column))] = None


def csv_rows(stream: Iterable[str], reading: Reading) -> Iterator[Row]:
    """Yield the rows of a table in CSV whose first line names the columns; InputError for wrong columns."""
    limit = csv.field_size_limit(LONGEST_CELL)
    try:
        lines = _Lines(stream)
        reader = csv.reader(lines, strict=True)
        names = _header(reader, reading)
        take, file = _taker(names), [PLACES.get(name) for name in names].index(PLACES["file"])
        number = 0
        while True:
            lines.row.clear()
            cells: list[str] | None
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                cells = _with_space_around_quotes(lines.row)
            else:
                if len(lines.row) == 1 and _SPACE_BEFORE_QUOTES.search(lines.row[0]):
                    cells = _with_space_around_quotes(lines.row) or cells
            if len(lines.row) > 1 and any(
                _looks_like_row(one, len(names), file, reading) for one in lines.row[1:]
            ):
                cells = None
            line = lines.number - len(lines.row) + 1
            if cells is None:
                why = ": a quote is not closed, or has text behind it; double the quotes inside a cell"
                if len(lines.row[0]) > LONGEST_CELL:
                    why = f": a cell is longer than {LONGEST_CELL} characters"
                yield reading.wrong(number, line, why, _cell(lines.row[0], file))
                lines.repeat_all_but_first()
            elif not cells:  # an empty line
                continue
            elif len(cells) != len(names):
                why = f" has {len(cells)} cells, the header has {len(names)}"
                yield reading.wrong(number, line, why, _cell(lines.row[0], file))
            elif (row := take([*map(str.strip, cells), ""]))[0]:
                yield row
            else:
                yield reading.wrong(number, line, " has no file")
            number += 1
    finally:
        csv.field_size_limit(limit)


class _Lines:
    """The lines of a file; those of the current row are kept, so that all but the first can be read once more."""

    def __init__(self, stream: Iterable[str]) -> None:
        self._stream, self._again = iter(stream), deque[str]()
        self.row: list[str] = []
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._stream)
        self.row.append(line)
        self.number += 1
        return line

    def repeat_all_but_first(self) -> None:
        """Go back to the second line of the row."""
        self._again.extendleft(reversed(self.row[1:]))
        self.number -= len(self.row) - 1


def _header(reader: Iterator[list[str]], reading: Reading) -> list[str]:
    """Read the names of the columns, and note those that are not read."""
    where = reading.table
    try:
        names = [name.strip().strip('"').strip() for name in next(filter(None, reader), [])]
    except csv.Error:
        raise InputError(f"{where}: line 1: a quote is not closed; expected names of columns") from None
    places = [PLACES[name] for name in names if name in PLACES]
    if PLACES["file"] not in places:
        for separator, called in SEPARATORS.items():
            parts = ",".join(names).split(separator)
            if len(parts) > 1 and any(name.strip(' "') in PLACES for name in parts):
                raise InputError(f"{where}: a {called}-separated table; expected commas")
        if names and names[0].startswith(("{", "[")):
            raise InputError(f"{where}: begins like JSON; the name of a table in JSON lines ends in .jsonl")
    if not names:
        raise InputError(
            f"{where}: an empty table; expected a first line with names of columns, 'file' among them"
        )
    for name in names:
        if name not in PLACES:
            _check_name(name, [COLUMNS[place] for place in places], f"{where}: ")
            reading.ignore(name)
    if PLACES["file"] not in places or len(set(places)) != len(places):
        columns = cut(", ".join(map(printable, names)), 200)
        raise InputError(f"{where}: columns {columns}; expected 'file' among them, and each only once")
    return names


def _taker(names: Sequence[str]) -> Callable[[Sequence[str]], Row]:
    """Return the function that picks COLUMNS from the cells of a row, with "" behind them for a missing column."""
    places = [PLACES.get(name) for name in names]
    return itemgetter(
        *(places.index(place) if place in places else len(names) for place in range(len(COLUMNS)))
    )


def _check_name(name: str, others: Sequence[str], where: str) -> None:
    """Raise InputError for the name of a column that is nearly that of one which is not among `others`."""
    if (near := _near(name)) is not None and near not in others:
        raise InputError(f"{where}unknown column {shown(name)}, did you mean {near!r}?")


@functools.lru_cache(maxsize=1024)
def _near(name: str) -> str | None:
    """Return the column that a name is similar to, or None."""
    return next(iter(difflib.get_close_matches(cut(name), COLUMNS, n=1, cutoff=NEARLY)), None)


def _with_space_around_quotes(lines: Sequence[str]) -> list[str] | None:
    """Return the cells of a row in which spaces are before quotes or behind them; None for other rows.

    `csv` takes quotes behind a space for letters, and calls a space behind quotes an error.
    """
    if len(lines) > 1 or len(lines[0]) > LONGEST_CELL:
        return None
    if _SPACE_AROUND_QUOTES.fullmatch(lines[0]):
        return next(csv.reader(lines, skipinitialspace=True))
    return next(csv.reader(lines)) if _SPACE_BEHIND_QUOTES.fullmatch(lines[0]) else None


def _looks_like_row(line: str, width: int, file: int, reading: Reading) -> bool:
    """Return whether a line, by itself, is a row of the table that names an image of the folder."""
    try:
        cells = next(csv.reader([line]), [])
    except csv.Error:
        return False
    name = cells[file].strip() if len(cells) == width else ""
    return _IMAGE_NAME.fullmatch(name) is not None and os.path.isfile(reading.folder / name)


def _cell(line: str, place: int) -> str:
    """Return a cell of a line that may be broken, "" if it has none."""
    try:
        return next(csv.reader([line]), [])[place].strip()
    except (csv.Error, IndexError):
        return ""


def json_rows(stream: Iterable[str], reading: Reading) -> Iterator[Row]:
    """Yield the rows of a table in JSON lines: in each line an object of column names and texts, or null."""
    number = 0
    for line, text in enumerate(stream, start=1):
        if not text.strip():
            continue
        row = [""] * len(COLUMNS)
        try:
            _fill(row, text, reading)
        except InputError as error:
            yield reading.wrong(number, line, str(error), row[PLACES["file"]])
        else:
            yield row
        number += 1


def _fill(row: list[str], text: str, reading: Reading) -> None:
    """Fill the cells of a row from a line of JSON; InputError, to be put behind "line 1", if it is wrong."""
    try:
        cells = json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON; a number of thousands of digits; nested too deep
        raise InputError(f" is not JSON: {reason(error)}") from None
    if not isinstance(cells, dict):
        raise InputError(f" holds {type(cells).__name__}, expected an object of column names and texts")
    found, others, wrong = set(), [], None
    for name, cell in cells.items():
        place = PLACES.get(name)
        if place is None:
            reading.ignore(name)
            others += [name] if isinstance(cell, str) else []
        elif place in found or text.count(f'"{name}"') > 1 and _names(text).count(name) > 1:
            raise InputError(f" has two names of one column: {cut(str(_names(text)))}")
        else:
            found.add(place)
            if isinstance(cell, str):
                row[place] = cell.strip()
            elif cell is not None:
                wrong = wrong or f": {name!r} is {shown(cell)}, expected a text or null"
    for name in others:
        _check_name(name, [COLUMNS[place] for place in found], ": ")
    if wrong:
        raise InputError(wrong)
    if "\\u" in text:
        for name, cell in zip(COLUMNS, row, strict=True):
            try:
                check_characters(cell)
            except InputError as error:
                raise InputError(f": {name}: {error}") from None
    if not row[PLACES["file"]]:
        raise InputError(" has no file")


def _names(text: str) -> list[str]:
    """Return the names in an object of JSON, of which Python keeps the last of equal ones."""
    pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    return [name for name, _ in pairs]
