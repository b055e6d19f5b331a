"""Open Parquet files: the only place that does, besides the store, whose files are checked by their checksums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from attrib_core.common.errors import InputError, reason
from attrib_core.storage import rerun_hints
from attrib_core.storage.file_kinds import Kind, recognise

ParquetFile = pq.ParquetFile
ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, MemoryError)
"""What pyarrow raises for damaged files."""


def opened(path: Path, columns: Sequence[str] = ()) -> pq.ParquetFile:
    """Open a Parquet file and check that it has some columns, each once. Raises InputError for any other file."""
    file = None
    try:
        # With pre_buffer, the default of pyarrow, all row groups stay in memory until the last is read.
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        names = file.schema_arrow.names
    except FileNotFoundError:
        raise InputError(f"{path}: no such table; expected a Parquet file") from None
    except ERRORS as error:
        if file is not None:
            file.close()
        raise damaged(path, error) from None
    try:
        _check_columns(path, names, columns)
    except InputError:
        file.close()
        raise
    return file


def _check_columns(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    missing = set(columns) - set(names)
    if missing:
        raise InputError(f"{path}: missing columns {sorted(missing)}, it has {names}")
    twice = [name for name in columns if names.count(name) > 1]
    if twice:
        raise InputError(
            f"{path}: has the column {twice[0]!r} {names.count(twice[0])} times, expected it once"
        )


def batches(
    file: pq.ParquetFile,
    path: Path,
    size: int,
    columns: Sequence[str] | None = None,
    groups: Sequence[int] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield rows of an open file in batches of at most `size`. Raises InputError where its pages are damaged."""
    chosen = None if columns is None else list(columns)
    found = file.iter_batches(size, row_groups=None if groups is None else list(groups), columns=chosen)
    while True:
        try:
            batch = next(found, None)
            if batch is not None:
                batch.validate(full=True)  # such as text that is not UTF-8
        except ERRORS as error:
            raise damaged(path, error) from None
        if batch is None:
            return
        yield batch


def read(path: Path, columns: Sequence[str] = ()) -> pa.Table:
    """Read a file into memory; `columns` selects some of its columns. Raises InputError as `opened` does."""
    with opened(path, columns) as file:
        try:
            table = file.read(columns=list(columns) or None)
            table.validate(full=True)
            return table
        except ERRORS as error:
            raise damaged(path, error) from None


def where(path: Path, condition: ds.Expression, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of a file that meet a condition. Raises InputError as `opened` does."""
    opened(path, columns or ()).close()
    try:
        return ds.dataset(path, format="parquet").to_table(columns and list(columns), filter=condition)
    except ERRORS as error:
        raise damaged(path, error) from None


def schema(path: Path) -> pa.Schema:
    """Read the columns of a file. Raises InputError as `opened` does."""
    with opened(path) as file:
        return file.schema_arrow


def count_rows(paths: Iterable[Path]) -> int:
    """Count the rows of files from their footers. Raises InputError as `opened` does."""
    total = 0
    for path in paths:
        with opened(path) as file:
            total += file.metadata.num_rows
    return total


def damaged(path: Path, error: Exception) -> InputError:
    """Return the error for a file that pyarrow cannot read: what it is, and for one of a run how to get it back."""
    kind = recognise(path, "a Parquet file")
    if kind not in (Kind.PARQUET, Kind.UNKNOWN):
        return InputError(f"{path}: not a readable Parquet file: is {kind}{rerun_hints.again(path)}")
    return InputError(f"{path}: not a readable Parquet file: {reason(error)}{rerun_hints.again(path)}")
