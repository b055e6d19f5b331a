"""Read feature matrices in blocks from `.pth`, `.npy` and Parquet files, and write the pool's `.pth`.

Memory holds one block at a time, however large the file is: each block of a `.pth` or `.npy` file is a
memory map of its own, released before the next one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attrib_core.common.errors import InputError, shown_path
from attrib_core.storage import (
    atomic,
    numpy_files,
    parquet_files,
    text_files,
    torch_archive,
    torch_files,
    vector_columns,
)
from attrib_core.storage.torch_files import describe

LOGGER = logging.getLogger(__name__)


class Block(NamedTuple):
    """Rows start, start + 1, ... of a matrix: vectors (rows, dim) float32, and their names if known."""

    start: int
    vectors: np.ndarray
    names: Sequence[str] | None


@dataclass(frozen=True, eq=False)
class Matrix:
    """A feature matrix (rows, dim) in a file.

    where   names the file and key in messages
    blocks  called with a number of rows, streams the matrix in blocks of that many
    """

    where: str
    rows: int
    dim: int
    blocks: Callable[[int], Iterator[Block]]


def open_pool(path: Path) -> Matrix:
    """Open the features of a pool.

    A pool is a `.pth` file with `feats` and `paths`, a `.npy` file, a Parquet file of embeddings, or a
    folder of such Parquet files. Raises InputError for what cannot be read, and for an empty pool.
    """
    path = Path(path)
    text_files.check_path(path)
    if path.is_dir() or path.suffix == ".parquet":
        pool = _open_parquet(path)
    elif path.suffix == ".npy":
        pool = _open_npy(path)
    elif path.suffix in (".pth", ".pt"):
        pool = _open_pth(path)
    else:
        raise InputError(f"{path}: unknown kind of file {path.suffix!r}, expected .pth, .npy or .parquet")
    if not pool.rows:
        raise InputError(f"{pool.where}: no rows, expected at least one distractor")
    return pool


def tensor_matrix(path: Path, key: str, tensor: Any, names: Sequence[str] | None = None) -> Matrix:
    """Return a tensor (rows, dim) of floats that `torch_files.read` mapped as a matrix."""
    rows, dim = matrix_shape(path, key, tensor)

    def blocks(step: int) -> Iterator[Block]:
        for start in range(0, rows, step):
            some = torch_files.values(tensor[start : start + step].float())
            yield Block(start, some.numpy(), _slice(names, start, step))

    return Matrix(f"{path}: {key}", rows, dim, blocks)


def matrix_shape(path: Path, key: str, tensor: Any) -> tuple[int, int]:
    """Return (rows, dim) of a tensor of floats. Raises InputError for anything else."""
    if not _is_matrix(tensor):
        raise InputError(f"{path}: {key} is {describe(tensor)}, expected a tensor (rows, dim) of floats")
    rows, dim = tensor.shape
    if not dim:
        raise InputError(f"{path}: {key} is {describe(tensor)}, expected at least one dimension")
    return rows, dim


def _is_matrix(value: Any) -> bool:
    """Return whether a value is a dense tensor of two axes, with values that can become float32."""
    import torch

    if not isinstance(value, torch.Tensor) or not torch_archive.is_dense(value) or value.is_meta:
        return False
    if value.ndim != 2 or not value.is_floating_point():
        return False
    try:
        value[:0].float()
    except (RuntimeError, NotImplementedError):  # such as two numbers of 4 bits in each byte
        return False
    return True


def row_names(path: Path, key: str, names: Any, rows: int) -> Sequence[str] | None:
    """Return a list with one string for each row, or None for None.

    Raises InputError for anything else, and for a string that no table can store.
    """
    if names is None:
        return None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: {key} is {describe(names)}, expected a list of strings")
    if len(names) != rows:
        raise InputError(f"{path}: {key} has {len(names)} entries, expected one for each of {rows} rows")
    for number, name in enumerate(names):
        try:
            text_files.check_characters(name)
        except InputError as error:
            raise InputError(f"{path}: {key}[{number}] is {shown_path(name)}: {error}") from None
    return names


def write_pool(parts: Iterable[tuple[Sequence[str], np.ndarray]], dim: int, path: Path) -> Path:
    """Write `feats` and `paths` of a pool to a `.pth` file and return its path.

    `parts` gives paths and (n, dim) features; they need not fit in memory together. The features are first
    collected in a file in the same folder, so that the disk holds them twice for a while.
    """
    import torch

    names: list[str] = []
    with (
        atomic.writing(path) as temporary,
        TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=f".{os.getpid()}.tmp") as scratch,
    ):
        file = Path(scratch) / "feats"
        with file.open("wb") as stream:
            for part_names, vectors in parts:
                names += part_names
                stream.write(np.ascontiguousarray(vectors, np.float32).tobytes())
        feats = torch.from_file(str(file), shared=False, size=len(names) * dim, dtype=torch.float32)
        with temporary.open("wb") as stream:
            torch.save({"feats": feats.reshape(len(names), dim), "paths": names}, stream)
    return path


def _open_pth(path: Path) -> Matrix:
    content, places = torch_files.read_with_places(path)
    if not isinstance(content, dict) or "feats" not in content:
        raise InputError(f"{path}: is {describe(content)}, expected a dict with 'feats' and 'paths'")
    tensor = content["feats"]
    shape = matrix_shape(path, "feats", tensor)
    names = row_names(path, "paths", content.get("paths"), shape[0])
    if names is not None:
        _tell_twice(str(path), "paths", len(names), len(set(names)))
    stored = None if places is None else places.matrix(places.content["feats"])
    if stored is None:
        return tensor_matrix(path, "feats", tensor, names)
    offset, dtype = stored
    return _mapped_matrix(path, f"{path}: feats", dtype, offset, shape, names)


def _open_npy(path: Path) -> Matrix:
    array = numpy_files.read(path, mapped=True)
    if array.ndim != 2 or array.dtype.kind != "f" or not array.shape[1]:
        raise InputError(
            f"{path}: is an array {array.shape} of {array.dtype}, expected (rows, dim) of floats"
        )
    if isinstance(array, np.memmap) and array.flags.c_contiguous:
        return _mapped_matrix(path, str(path), array.dtype, array.offset, array.shape, None)

    def blocks(step: int) -> Iterator[Block]:
        for start in range(0, len(array), step):
            with np.errstate(over="ignore"):
                vectors = np.ascontiguousarray(array[start : start + step], np.float32)
            yield Block(start, vectors, None)

    return Matrix(str(path), len(array), array.shape[1], blocks)


def _mapped_matrix(
    path: Path, where: str, dtype: np.dtype, offset: int, shape: tuple[int, int], names: Sequence[str] | None
) -> Matrix:
    """Return a matrix that is stored row by row in a file, each block a memory map of its part alone."""
    rows, dim = shape

    def blocks(step: int) -> Iterator[Block]:
        for start in range(0, rows, step):
            part = np.memmap(
                path,
                dtype,
                "r",
                offset=offset + start * dim * dtype.itemsize,
                shape=(min(step, rows - start), dim),
            )
            with np.errstate(over="ignore"):  # becomes infinite, which is told by row
                vectors = np.asarray(part, dtype=np.float32)
            yield Block(start, vectors, _slice(names, start, step))

    return Matrix(where, rows, dim, blocks)


def _open_parquet(path: Path) -> Matrix:
    parts = [path]
    if path.is_dir():  # macOS puts a hidden "._part-0.parquet" next to a file
        parts = sorted(part for part in path.glob("*.parquet") if not part.name.startswith("."))
    if not parts:
        raise InputError(f"{path}: no Parquet files in this folder, expected parts of embeddings")
    dim = None
    for part in parts:
        dim = vector_columns.dimension(part, dim, exact=False)
    rows = parquet_files.count_rows(parts)
    # as one type, which the parts need not have: pandas writes categories
    ids = [parquet_files.read(part, ["image_id"])["image_id"].cast(pa.large_string()) for part in parts]
    different = pc.count_distinct(pa.chunked_array(chain(*(one.chunks for one in ids)), pa.large_string()))
    _tell_twice(str(path), "image_id", rows, different.as_py())

    def blocks(step: int) -> Iterator[Block]:
        before = 0
        for _, _, names, vectors in vector_columns.stream(parts, step, exact=False):
            yield Block(before, vectors, names.to_pylist())
            before += len(names)

    return Matrix(str(path), rows, int(dim or 0), blocks)


def _tell_twice(where: str, key: str, rows: int, different: int) -> None:
    """Log a line on rows of a pool with the name of another row: an image that is in it twice counts twice."""
    if different < rows:
        LOGGER.warning(
            "%s: %s: %d of %d rows have the name of another row; each counts as an image",
            where,
            key,
            rows - different,
            rows,
        )


def _slice(names: Sequence[str] | None, start: int, step: int) -> Sequence[str] | None:
    return None if names is None else names[start : start + step]
