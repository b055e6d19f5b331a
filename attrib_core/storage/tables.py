"""Read and write the tables that pass between stages; `schemas` defines their columns.

Every table is written atomically: it is complete or absent.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attrib_core.common.errors import InputError
from attrib_core.storage import atomic, parquet_files, rerun_hints, text_files
from attrib_core.storage.schemas.registry import FILES as FILES
from attrib_core.storage.schemas.registry import IMAGE, embedding_schema, schema
from attrib_core.storage.schemas.registry import SCHEMAS as SCHEMAS

ROW_GROUP = 8192


def conform(table: pa.Table, expected: pa.Schema, where: str) -> pa.Table:
    """Return a table with the expected columns in their order, and with the metadata of the schema.

    Raises InputError for a missing or extra column, another type, or a null where none is allowed; `where` names the
    file in the message.
    """
    missing = set(expected.names) - set(table.column_names)
    extra = set(table.column_names) - set(expected.names)
    if missing or extra:
        raise InputError(f"{where}: missing columns {sorted(missing)}, unexpected columns {sorted(extra)}")
    table = table.select(expected.names)
    for field in expected:
        column = table.column(field.name)
        if not column.type.equals(field.type):
            raise InputError(f"{where}: column {field.name!r} is {column.type}, expected {field.type}")
        if column.null_count and (not field.nullable or field.type.equals(IMAGE)):
            raise InputError(f"{where}: column {field.name!r} has {column.null_count} nulls, expected none")
    return pa.Table.from_arrays(table.columns, schema=expected)


def from_rows(rows: Sequence[dict[str, Any]], expected: pa.Schema, where: str = "rows") -> pa.Table:
    """Return a table of rows given as dictionaries; every row must have every column."""
    for row in rows:
        if set(row) != set(expected.names):
            odd = sorted(set(row) ^ set(expected.names))
            raise InputError(f"{where}: a row has missing or unexpected columns {odd}")
    return conform(pa.Table.from_pylist(list(rows), schema=expected), expected, where)


@contextmanager
def writer(path: Path, expected: pa.Schema) -> Iterator[_Writer]:
    """Write a Parquet file in several steps; it appears under its name only when complete."""
    with (
        atomic.writing(path) as temporary,
        pq.ParquetWriter(temporary, expected, compression="zstd") as sink,
    ):
        yield _Writer(sink, expected, str(path))


class _Writer:
    def __init__(self, sink: pq.ParquetWriter, expected: pa.Schema, where: str) -> None:
        self._sink, self._expected, self._where = sink, expected, where

    def write(self, rows: pa.Table | Sequence[dict[str, Any]]) -> None:
        """Append rows: a table, or dictionaries with a value for every column."""
        if not isinstance(rows, pa.Table):
            rows = from_rows(rows, self._expected, self._where)
        self._sink.write_table(conform(rows, self._expected, self._where), row_group_size=ROW_GROUP)


def write(path: Path, name: str, rows: pa.Table | Sequence[dict[str, Any]]) -> None:
    """Write a table of a known name."""
    with writer(path, schema(name)) as sink:
        sink.write(rows)


def read(path: Path, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table of a known name and check its schema; `columns` selects some of its columns."""
    expected = schema(name)
    if columns:
        expected = pa.schema([expected.field(column) for column in columns])
    try:
        return conform(parquet_files.read(Path(path), columns or ()), expected, str(path))
    except InputError as error:
        hint = rerun_hints.again(Path(path))
        raise InputError(f"{str(error).removesuffix(hint)}{hint}") from None


def read_parts(paths: Iterable[Path], name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the parts of a table, in the order given, as one table."""
    parts = [read(Path(path), name, columns) for path in paths]
    if not parts:
        raise InputError(f"no parts of table {name!r} were given")
    return pa.concat_tables(parts)


def iterate(paths: Iterable[Path], columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
    """Stream columns of several parts in batches of at most `batch_size` rows."""
    for path in paths:
        with parquet_files.opened(Path(path), columns) as file:
            yield from parquet_files.batches(file, Path(path), batch_size, columns)


def rows_at(
    path: Path, columns: Sequence[str], numbers: Sequence[int], batch_size: int = 64
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield rows of a part by their numbers, which are sorted: (number, row). Reads only row groups that hold some."""
    wanted, first = deque(numbers), 0
    with parquet_files.opened(Path(path), columns) as file:
        for group in range(file.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            if wanted and wanted[0] < end:
                for batch in parquet_files.batches(file, Path(path), batch_size, columns, [group]):
                    while wanted and wanted[0] < first + len(batch):
                        number = wanted.popleft()
                        yield number, batch.slice(number - first, 1).to_pylist()[0]
                    first += len(batch)
            first = end
    if wanted:
        raise InputError(f"{path}: has no row {wanted[0]}, only {first} rows")


def embedding_table(ids: Sequence[str], embeddings: np.ndarray) -> pa.Table:
    """Return a table of embeddings from ids and vectors, (rows, dim) float32."""
    rows, dim = embeddings.shape
    if rows != len(ids):
        raise ValueError(f"{len(ids)} ids for {rows} embeddings")
    expected = embedding_schema(dim)
    values = pa.array(np.ascontiguousarray(embeddings, dtype=np.float32).ravel())
    column = pa.FixedSizeListArray.from_arrays(values, type=expected.field("embedding").type)
    return pa.Table.from_arrays([pa.array(list(ids), pa.string()), column], schema=expected)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    atomic.write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; InputError where it is missing or not valid JSON, or where a text in it cannot be stored."""
    text = text_files.read(path, expected="JSON file")
    try:
        return text_files.parse_json(text)
    except InputError as error:
        raise InputError(f"{path}: not a readable JSON file: {error}") from None
