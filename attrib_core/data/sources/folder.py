"""Source `folder`: the images below a local folder, with an optional table of captions and labels.

Without a table, every image file below the folder is a row, ordered by relative path. With a
table (CSV, or JSON lines if its name ends in ".jsonl"; UTF-8), its lines are the rows, in their
order. Its column `file` is the path relative to the folder; the columns caption, subject,
category, style, licence and attribution are optional, and an empty cell means unknown.
`file_name` and `text`, the column names of Hugging Face's image folders, mean `file` and `caption`.

An image without a caption in the table gets that of the text file next to it ("owl.txt" next to
"owl.png"), else its file name ("red-apple_2.png": "red apple 2"). A missing or broken file becomes
a reject of the pool.
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
ROWS_PER_BATCH = 1 << 13
ALIASES = {"file_name": "file", "text": "caption"}


@dataclass(frozen=True)
class Folder:
    """The rows of a folder; the table is in memory, images are read on demand."""

    path: Path
    table: pa.Table
    """One row per image, with `file` and further COLUMNS; "" is unknown. A million rows take 100 MB."""
    defaults: dict[str, str]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def _lines(self, start: int, stop: int) -> Iterator[dict[str, str]]:
        """Yield rows of the table, converted to Python strings a few at a time."""
        for first in range(start, stop, ROWS_PER_BATCH):
            yield from self.table.slice(first, min(ROWS_PER_BATCH, stop - first)).to_pylist()

    def rows(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """Yield pool rows `start` to `stop - 1`; bytes are None where a file cannot be read."""
        for row in self.rows_without_images(start, stop):
            try:
                content = (self.path / row["image_id"]).read_bytes()
            except OSError:
                content = None
            yield row | {"image": {"bytes": content, "path": row["image_id"]}}

    def rows_without_images(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """Yield the same rows without their images, which are not read."""
        for line in self._lines(start, stop):
            file = self.path / line["file"]
            yield {
                "image_id": line["file"],
                "caption": line.get("caption") or _caption_file(file) or _caption_from_name(file),
                "subject": line.get("subject") or None,
                "category": line.get("category") or None,
                "style": line.get("style") or None,
                "licence": line.get("licence") or self.defaults["licence"],
                "attribution": line.get("attribution") or self.defaults["attribution"],
            }

    def labels(self, start: int, stop: int) -> Iterator[dict[str, str | None]]:
        """Yield image_id, subject, category and style of the rows; None where the table has none."""
        for line in self._lines(start, stop):
            known = {name: line.get(name) or None for name in ("subject", "category", "style")}
            yield {"image_id": line["file"], **known}

    def mean_bytes(self, stop: int) -> float | None:
        """Return the mean size of image files, of a sample spaced evenly below `stop`; None without a file."""
        sizes = []
        names = self.table["file"].slice(0, stop)
        for number in range(0, len(names), max(1, len(names) // 1000)):
            try:
                sizes.append((self.path / names[number].as_py()).stat().st_size)
            except OSError:
                continue
        return sum(sizes) / len(sizes) if sizes else None

    def state(self, start: int, stop: int) -> str:
        """Return a digest of what the rows read: the table, and size and modification time of the
        image files and of the text files next to them."""
        columns = self.table.slice(start, max(0, stop - start)).to_pydict()
        files, stamps = columns["file"], []
        for name, caption in zip(files, columns.get("caption", [""] * len(files)), strict=True):
            file = os.path.join(self.path, name)  # a Path would cost more than reading the status
            text = [] if caption else _stamp(f"{os.path.splitext(file)[0]}.txt")
            stamps.append([_stamp(file), text])
        return hashing.digest(columns, stamps)


def load(
    *,
    path: Annotated[str, Field(min_length=1, description="folder of images, with folders below it")],
    metadata: Annotated[
        str | None, Field(description="table of captions and labels: CSV or JSON lines")
    ] = None,
    licence: Annotated[str | None, Field(description="licence of images without one in the table")] = None,
    attribution: Annotated[
        str | None, Field(description="attribution of images without one in the table")
    ] = None,
) -> Folder:
    """Read and check the table, and return the source.

    Raises InputError for a missing folder or table, a malformed table, an image without licence or
    attribution, and for no image at all.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"pool.source.path: {path!r} is no folder")
    table = _list_images(folder) if metadata is None else _read(Path(metadata))
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
                f"pool.source.{column}: None, but the table has none for {pc.sum(lacks).as_py()} images"
                f" ({table['file'][first].as_py()!r}); set it here, or in the column {column!r} of the table"
            )
    return Folder(folder, table, defaults)


def _list_images(folder: Path) -> pa.Table:
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
    """Read a table; cached until the file changes, since both config and states need it."""
    try:
        status = table.stat()
    except FileNotFoundError:
        raise InputError(f"pool.source.metadata: {str(table)!r} is no file") from None
    return _read_once(table, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read_once(table: Path, _size: int, _modified: int) -> pa.Table:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            return _to_table(
                _json_lines(stream, table) if table.suffix == ".jsonl" else _cells(stream, table)
            )
    except UnicodeDecodeError:
        pass
    try:
        table.read_text("utf-8-sig")
    except UnicodeDecodeError as error:  # here `start` counts from the beginning of the file
        raise InputError(f"{table}: not UTF-8 at byte {error.start}; save the table as UTF-8") from None
    raise InputError(f"{table}: not UTF-8; save the table as UTF-8")


def _to_table(lines: Iterable[dict[str, str]]) -> pa.Table:
    """Convert lines to a table in batches, since Python strings take much memory."""
    schema, rows = pa.schema([(name, pa.string()) for name in COLUMNS]), iter(lines)
    batches = []
    while batch := list(itertools.islice(rows, ROWS_PER_BATCH)):
        columns = [[line.get(name, "") for line in batch] for name in COLUMNS]
        arrays = [pa.array(column, pa.string()) for column in columns]
        batches.append(pa.record_batch(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema)


def _column(name: str, table: Path) -> str:
    """Return the column name that an accepted name means."""
    column = ALIASES.get(name, name)
    if column not in COLUMNS:
        raise InputError(f"{table}: unknown column {name!r}, {close_matches(name, COLUMNS)}")
    return column


def _json_lines(stream: Iterable[str], table: Path) -> Iterator[dict[str, str]]:
    for number, text in enumerate(stream, start=1):
        if not text.strip():
            continue
        try:
            cells = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{table}: line {number} is not JSON: {error}") from None
        if not isinstance(cells, dict):
            raise InputError(
                f"{table}: line {number} holds {type(cells).__name__}, expected an object of column names and texts"
            )
        line = {}
        for name, cell in cells.items():
            if not isinstance(cell, str | None):
                raise InputError(f"{table}: line {number}: {name!r} is {cell!r}, expected a text or null")
            line[_column(name, table)] = (cell or "").strip()
        if len(line) != len(cells):
            raise InputError(f"{table}: line {number} has two names of one column: {list(cells)}")
        if not line.get("file"):
            raise InputError(f"{table}: line {number} has no file")
        yield line


def _cells(stream: Iterable[str], table: Path) -> Iterator[dict[str, str]]:
    reader = csv.reader(stream)
    header = [_column(name, table) for name in next(reader, [])]
    if "file" not in header or len(set(header)) != len(header):
        raise InputError(f"{table}: columns {header}; expected 'file' among them, and each only once")
    for cells in reader:
        if not cells:
            continue
        if len(cells) != len(header):
            raise InputError(
                f"{table}: line {reader.line_num} has {len(cells)} cells, the header has {len(header)}"
            )
        line = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        if not line["file"]:
            raise InputError(f"{table}: line {reader.line_num} has no file")
        yield line


def _stamp(file: str) -> list[int]:
    """Return size and modification time of a file; [] if it cannot be read."""
    try:
        status = os.stat(file)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _caption_file(file: Path) -> str:
    """Return the text of the ".txt" file next to an image, in one line; "" without such a file."""
    text = file.with_suffix(".txt")
    try:
        return " ".join(text.read_text("utf-8-sig").split())
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise InputError(f"{text}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{text}: not UTF-8 at byte {error.start}; save the text as UTF-8") from None


def _caption_from_name(file: Path) -> str:
    return re.sub(r"[\s_-]+", " ", file.stem).strip() or file.name
