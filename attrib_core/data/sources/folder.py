"""Source `folder`: the images below a local folder, with or without a table of what they show.

Without a table, every image file below the folder is a row, in the order of its relative path.
With a table (CSV, or JSON lines where its name ends in ".jsonl"; UTF-8), its lines are the rows, in
their order. Its column `file` is the path relative to the folder; caption, subject, category,
style, licence and attribution may stand beside it, and an empty cell means that it is not known.
`file_name` and `text`, the names of Hugging Face's image folders, mean `file` and `caption`.

An image without a caption in a table has that of the text file beside it ("owl.txt" beside
"owl.png"), else its name ("red-apple_2.png": "red apple 2"). A file that is missing or broken
becomes a reject of the pool.
"""

from __future__ import annotations

import csv
import functools
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from attrib_core.common import hashing
from attrib_core.common.errors import InputError, close_matches

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
COLUMNS = ("file", "caption", "subject", "category", "style", "licence", "attribution")
ROWS_AT_ONCE = 1 << 13
OTHER_NAMES = {"file_name": "file", "text": "caption"}


@dataclass(frozen=True)
class Folder:
    """The rows of a folder: names and words are held, images are read as they are asked for."""

    path: Path
    table: pa.Table
    """A row an image: `file`, and those of COLUMNS that are given; "" is not known. A million take 100 MB so."""
    defaults: dict[str, str]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def _lines(self, start: int, stop: int) -> Iterator[dict[str, str]]:
        """What the table says of rows, of which Python's own strings are made for a few at a time."""
        for first in range(start, stop, ROWS_AT_ONCE):
            yield from self.table.slice(first, min(ROWS_AT_ONCE, stop - first)).to_pylist()

    def rows(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """Pool rows number `start` to `stop - 1`; bytes are None where a file cannot be read."""
        for row in self.described(start, stop):
            try:
                content = (self.path / row["image_id"]).read_bytes()
            except OSError:
                content = None
            yield row | {"image": {"bytes": content, "path": row["image_id"]}}

    def described(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """The same rows without their images, which are not read."""
        for line in self._lines(start, stop):
            file = self.path / line["file"]
            yield {
                "image_id": line["file"],
                "caption": line.get("caption") or _beside(file) or _words(file),
                "subject": line.get("subject") or None,
                "category": line.get("category") or None,
                "style": line.get("style") or None,
                "licence": line.get("licence") or self.defaults["licence"],
                "attribution": line.get("attribution") or self.defaults["attribution"],
            }

    def words(self, start: int, stop: int) -> Iterator[dict[str, str | None]]:
        """What the rows show, as far as the table says so."""
        for line in self._lines(start, stop):
            shown = {name: line.get(name) or None for name in ("subject", "category", "style")}
            yield {"image_id": line["file"], **shown}

    def mean_bytes(self, stop: int) -> float | None:
        """Bytes of an image file, the mean of some, evenly spaced among the rows before `stop`; None for no file."""
        sizes = []
        names = self.table["file"].slice(0, stop)
        for number in range(0, len(names), max(1, len(names) // 1000)):
            try:
                sizes.append((self.path / names[number].as_py()).stat().st_size)
            except OSError:
                continue
        return sum(sizes) / len(sizes) if sizes else None

    def state(self, start: int, stop: int) -> str:
        """Digest of what rows depend on besides options and code: the table's words, and of each
        file, and of the text file beside it, its size and time of change."""
        said = self.table.slice(start, max(0, stop - start)).to_pydict()
        stamps = []
        for name, caption in zip(said["file"], said.get("caption", [""] * len(said["file"])), strict=True):
            file = os.path.join(self.path, name)  # a Path would cost more than the look at the disk
            text = [] if caption else _stamp(f"{os.path.splitext(file)[0]}.txt")
            stamps.append([_stamp(file), text])
        return hashing.digest(said, stamps)


def load(
    *,
    path: Annotated[str, Field(min_length=1, description="folder of images, with folders below it")],
    metadata: Annotated[
        str | None, Field(description="table that says what the images show: CSV or JSON lines")
    ] = None,
    licence: Annotated[
        str | None, Field(description="licence of images for which the table names none")
    ] = None,
    attribution: Annotated[
        str | None, Field(description="whom to name for images for which the table names nobody")
    ] = None,
) -> Folder:
    """The source, its table read and checked.

    Raises InputError for a folder or table that is not there, a table of another form, an image
    without licence or attribution, and where there is no image at all.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"pool.source.path: {path!r} is no folder")
    table = _listed(folder) if metadata is None else _read(Path(metadata))
    if not table.num_rows:
        where = f"folder {path!r}" if metadata is None else f"table {metadata!r}"
        raise InputError(f"pool.source: 0 images in {where}; expected files {', '.join(sorted(SUFFIXES))}")
    defaults = {"licence": licence or "", "attribution": attribution or ""}
    for column, default in defaults.items():
        if default:
            continue
        lacks = pc.equal(table[column], "") if column in table.column_names else pa.array([True] * len(table))
        if (first := pc.index(lacks, True).as_py()) >= 0:
            raise InputError(
                f"pool.source.{column}: None, and nothing is known for {pc.sum(lacks).as_py()} images"
                f" ({table['file'][first].as_py()!r}); set it here, or in the column {column!r} of the table"
            )
    return Folder(folder, table, defaults)


def _listed(folder: Path) -> pa.Table:
    found: list[str] = []
    for parent, _, files in os.walk(folder):
        base = Path(parent).relative_to(folder)
        found += [
            (base / name).as_posix()
            for name in files
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
    return pa.table({"file": pa.array(sorted(found), pa.string())})


def _read(table: Path) -> pa.Table:
    """The table of a file, from memory where the file did not change: it is read for the config, and for states."""
    try:
        status = table.stat()
    except FileNotFoundError:
        raise InputError(f"pool.source.metadata: {str(table)!r} is no file") from None
    return _read_once(table, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read_once(table: Path, _size: int, _modified: int) -> pa.Table:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            return _packed(_json_lines(stream, table) if table.suffix == ".jsonl" else _cells(stream, table))
    except UnicodeDecodeError:
        pass
    try:
        table.read_text("utf-8-sig")
    except UnicodeDecodeError as error:  # which counts from the beginning of the file
        raise InputError(f"{table}: not UTF-8 at byte {error.start}; save the table as UTF-8") from None
    raise InputError(f"{table}: not UTF-8; save the table as UTF-8")


def _packed(lines: Iterable[dict[str, str]]) -> pa.Table:
    """Lines as a table, of which Python's own strings are held for a few rows at a time."""
    schema, rows = pa.schema([(name, pa.string()) for name in COLUMNS]), iter(lines)
    batches = []
    while waiting := list(itertools.islice(rows, ROWS_AT_ONCE)):
        cells = [[line.get(name, "") for line in waiting] for name in COLUMNS]
        batches.append(pa.record_batch([pa.array(one, pa.string()) for one in cells], schema=schema))
    return pa.Table.from_batches(batches, schema)


def _column(name: str, table: Path) -> str:
    """The name of a column as it is meant."""
    known = OTHER_NAMES.get(name, name)
    if known not in COLUMNS:
        raise InputError(f"{table}: unknown column {name!r}, {close_matches(name, COLUMNS)}")
    return known


def _json_lines(stream: Iterable[str], table: Path) -> Iterator[dict[str, str]]:
    for number, written in enumerate(stream, start=1):
        if not written.strip():
            continue
        try:
            cells = json.loads(written)
        except json.JSONDecodeError as error:
            raise InputError(f"{table}: line {number} is no JSON: {error}") from None
        if not isinstance(cells, dict):
            raise InputError(f"{table}: line {number} holds {type(cells).__name__}, expected names and texts")
        line = {}
        for name, cell in cells.items():
            if not isinstance(cell, str | None):
                raise InputError(f"{table}: line {number}: {name!r} is {cell!r}, expected a text or null")
            line[_column(name, table)] = (cell or "").strip()
        if len(line) != len(cells):
            raise InputError(f"{table}: line {number} says one thing by two names: {list(cells)}")
        if not line.get("file"):
            raise InputError(f"{table}: line {number} names no file")
        yield line


def _cells(stream: Iterable[str], table: Path) -> Iterator[dict[str, str]]:
    reader = csv.reader(stream)
    header = [_column(name, table) for name in next(reader, [])]
    if "file" not in header or len(set(header)) != len(header):
        raise InputError(f"{table}: columns {header}; 'file' must be one of them, and each stand once")
    for cells in reader:
        if not cells:
            continue
        if len(cells) != len(header):
            raise InputError(
                f"{table}: line {reader.line_num} has {len(cells)} cells, the header has {len(header)}"
            )
        line = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        if not line["file"]:
            raise InputError(f"{table}: line {reader.line_num} names no file")
        yield line


def _stamp(file: str) -> list[int]:
    """Size and time of change of a file; nothing where it cannot be read."""
    try:
        status = os.stat(file)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _beside(file: Path) -> str:
    """The text of the file of an image's name that ends in ".txt", in one line; nothing where there is none."""
    text = file.with_suffix(".txt")
    try:
        return " ".join(text.read_text("utf-8-sig").split())
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise InputError(f"{text}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{text}: not UTF-8 at byte {error.start}; save the text as UTF-8") from None


def _words(file: Path) -> str:
    return re.sub(r"[\s_-]+", " ", file.stem).strip() or file.name
