"""Read the table of a folder of images, CSV or JSON lines; rows that are wrong are kept, with the reason.

Each row is an image. The column `file` is its path relative to the folder; caption, subject, category, style, licence
and attribution are optional, and an empty cell means unknown. `file_name` and `text`, the column names of Hugging
Face's image folders, mean `file` and `caption`. Other columns are not read, whatever they hold.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from attrib_core.common.errors import InputError, shown, shown_path
from attrib_core.data.metadata_rows import COLUMNS, Reading, Row, csv_rows, json_rows
from attrib_core.storage import relative_paths, text_files

ROWS_PER_BATCH = 1 << 13


@dataclass(frozen=True)
class MetadataTable:
    """The rows of a table, in order, with those that are wrong."""

    rows: pa.Table
    """One row for each row of the file, with COLUMNS; "" is unknown. A million rows take 100 MB."""
    problems: dict[int, str]
    """The reasons of rows that are wrong, by number, as the table `rejects` has them; such a row has no cell but file,
    or "line 7" if it names none."""
    ignored: tuple[str, ...]
    """Names of columns that are not read."""


def read(table: Path, folder: Path) -> MetadataTable:
    """Read the table of a folder's images; cached until the file changes, since both config and states need it.

    A row is wrong if it is malformed, or names no path below the folder, or a file that an earlier row has, too.
    Raises InputError, one line, for a file that is no table, and where all rows are wrong.
    """
    try:
        relative_paths.check_length(table)
        status = table.stat()
    except (FileNotFoundError, InputError):
        raise InputError(f"pool.source.metadata: {shown_path(table)} is no file") from None
    return _read_once(table, folder, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read_once(table: Path, folder: Path, _size: int, _modified: int) -> MetadataTable:
    if not table.is_file():
        raise InputError(f"{table}: a folder, pipe or device; expected a table in CSV or JSON lines")
    text_files.check(table)
    reading = Reading(table, folder)
    read_rows = json_rows if table.suffix.lower() == ".jsonl" else csv_rows
    with table.open(encoding="utf-8-sig", newline="") as stream:
        rows = _to_table(read_rows(stream, reading))
    problems = reading.problems
    for row, why in relative_paths.check_all(rows["file"], folder).items():
        problems.setdefault(row, f"path: {why}")
    for row, earlier in relative_paths.same_files(rows["file"], folder, but=problems).items():
        problems[row] = (
            f"duplicate: an earlier row has the same file, as {shown(rows['file'][earlier].as_py())}"
        )
    if problems and len(problems) == len(rows):
        what = problems[0].partition(": ")[2]
        raise InputError(f"{table}: {what}" + (f"; all {len(rows)} rows are wrong" if len(rows) > 1 else ""))
    return MetadataTable(rows, dict(sorted(problems.items())), tuple(reading.ignored))


def _to_table(rows: Iterator[Row]) -> pa.Table:
    """Convert rows to a table in batches, since Python strings take much memory."""
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    batches = []
    while batch := list(itertools.islice(rows, ROWS_PER_BATCH)):
        arrays = [pa.array(column, pa.string()) for column in zip(*batch, strict=True)]
        batches.append(pa.record_batch(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema)
