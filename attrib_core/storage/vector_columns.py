"""Read the vectors of Parquet files of embeddings: columns image_id and embedding, row by row as they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attrib_core.common.errors import InputError
from attrib_core.storage import parquet_files

COLUMNS = ("image_id", "embedding")
ROWS = 1024
TEXTS = (pa.string(), pa.large_string(), pa.string_view())
FLOATS = (pa.float16(), pa.float32(), pa.float64())


class VectorBatch(NamedTuple):
    """Rows start, start + 1, ... of a file: their names (text, without nulls), and vectors (rows, dim) float32."""

    path: Path
    start: int
    names: pa.Array
    vectors: np.ndarray


def dimension(path: Path, before: int | None = None, *, exact: bool = True) -> int:
    """Return the dimension of the vectors of a file.

    before  the dimension of the files before, if any
    exact   whether they must be float32 lists of one size, as a run writes them; otherwise lists of any kind of
            floats do, if all have the same length, and whole numbers as names of rows

    Raises InputError for another file or dimension, and for names of rows of another type.
    """
    with parquet_files.opened(path, COLUMNS) as file:
        kind = _kind(file.schema_arrow, path, exact=exact)
        _check_names(file.schema_arrow, path, exact=exact)
        if pa.types.is_fixed_size_list(kind):
            size: int | None = kind.list_size
        else:
            lengths = (
                length
                for batch in parquet_files.batches(file, path, ROWS, ["embedding"])
                for length in pc.list_value_length(_stored(batch.column(0))).drop_null().to_pylist()
            )
            size = next(lengths, before)
            if size is None:
                raise InputError(f"{path}: no embeddings, expected at least one row")
    if before is not None and size != before:
        raise InputError(f"{path}: embeddings of {size} dimensions, the files before have {before}")
    if not size:
        raise InputError(f"{path}: embeddings of {size} dimensions, expected at least one")
    return size


def stream(paths: Iterable[Path], rows: int, *, exact: bool = True) -> Iterator[VectorBatch]:
    """Yield the rows of files of embeddings, at most `rows` at a time, all of one dimension.

    Raises InputError as `dimension` does, and for a null, with the row and its name, if it has one: leaving it
    out would move all vectors behind it to other names.
    """
    dim: int | None = None
    for path in map(Path, paths):
        dim = dimension(path, dim, exact=exact)
        start = 0
        with parquet_files.opened(path, COLUMNS) as file:
            for batch in parquet_files.batches(file, path, rows, COLUMNS):
                names = _names(batch.column("image_id"), path, start)
                where = _Where(path, start, names)
                yield VectorBatch(path, start, names, _array(batch.column("embedding"), dim, where))
                start += len(batch)


def vectors(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return a column of fixed-size float32 lists as an array, (rows, dim); without a copy if it is one chunk.

    Raises InputError for a null.
    """
    if isinstance(column, pa.ChunkedArray):
        if column.num_chunks == 1:
            return vectors(column.chunk(0))
        if column.num_chunks == 0:
            return np.empty((0, column.type.list_size), dtype=np.float32)
        return np.concatenate([vectors(chunk) for chunk in column.chunks])
    return _array(column, column.type.list_size, _Where(None, 0, ()))


class _Where(NamedTuple):
    path: Path | None
    start: int
    names: Sequence[object]

    def row(self, number: int) -> str:
        """Name a row in a message."""
        name = f" ({str(self.names[number])!r})" if len(self.names) else ""
        file = "" if self.path is None else f"{self.path}: "
        return f"{file}row {self.start + number}{name}"


def _array(column: pa.Array, dim: int, where: _Where) -> np.ndarray:
    column = _stored(column)
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise InputError(f"{where.row(row)}: the embedding is null, expected {dim} numbers")
    if not pa.types.is_fixed_size_list(column.type):
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        if (lengths != dim).any():
            row = int(np.argmax(lengths != dim))
            raise InputError(f"{where.row(row)}: an embedding of {lengths[row]} numbers, expected {dim}")
    flat = column.flatten()
    if flat.null_count:
        row = int(np.argmax(flat.is_null().to_numpy(zero_copy_only=False))) // dim
        raise InputError(f"{where.row(row)}: a number of the embedding is null, expected {dim} numbers")
    found: np.ndarray = flat.to_numpy(zero_copy_only=True)
    with np.errstate(over="ignore"):  # becomes infinite, which is refused where a direction is needed
        return found.astype(np.float32, copy=False).reshape(-1, dim)


def _stored(column: pa.Array) -> pa.Array:
    """Return a column of lists without the name that an extension gives to it, such as a tensor of one shape."""
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _check_names(schema: pa.Schema, path: Path, *, exact: bool) -> None:
    """Raise InputError where the names of rows are no texts, nor, unless `exact`, whole numbers."""
    kind = schema.field("image_id").type
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if plain in (*TEXTS, pa.null()) or (not exact and pa.types.is_integer(plain)):
        return
    expected = "text" if exact else "text or whole numbers"
    raise InputError(f"{path}: column 'image_id' is {kind}, expected {expected}")


def _names(column: pa.Array, path: Path, start: int) -> pa.Array:
    """Return the names of rows as text. Raises InputError for a null."""
    names = column.cast(pa.string())
    if names.null_count:
        row = start + int(np.argmax(names.is_null().to_numpy(zero_copy_only=False)))
        raise InputError(f"{path}: row {row}: the image_id is null, expected the name of an image")
    return names


def _kind(schema: pa.Schema, path: Path, *, exact: bool) -> pa.DataType:
    """Return the type of the vectors. Raises InputError for any that is not known."""
    kind = schema.field("embedding").type
    if not exact and isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    lists = [pa.types.is_fixed_size_list(kind), pa.types.is_list(kind), pa.types.is_large_list(kind)]
    if exact and lists[0] and kind.value_type == pa.float32():
        return kind
    if not exact and any(lists) and kind.value_type in FLOATS:
        return kind
    expected = "float32 lists of one size" if exact else "lists of floats, all of one length"
    raise InputError(f"{path}: column 'embedding' is {kind}, expected {expected}")
