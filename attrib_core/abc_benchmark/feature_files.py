"""Matrices of features on disk, read a block at a time: `.pth`, `.npy`, and Parquet of this project.

However large a file is, a block is what is in memory: a block of a `.pth` or `.npy` file is a map of
that part of the file alone, which is let go before the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from attrib_core.attribution.ranking.embedding_stream import check_file
from attrib_core.common.errors import InputError
from attrib_core.storage import tables, torch_files
from attrib_core.storage.torch_files import describe


class Block(NamedTuple):
    """Rows start, start + 1, ... of a matrix: vectors (rows, dim) float32, and their names if known."""

    start: int
    vectors: np.ndarray
    names: Sequence[str] | None


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix of features. `where` names file and key in messages; `blocks` streams so many rows at once."""

    where: str
    rows: int
    dim: int
    blocks: Callable[[int], Iterator[Block]]


def open_pool(path: Path) -> Matrix:
    """The features of a pool: a `.pth` with `feats` and `paths`, a `.npy`, a Parquet file of embeddings
    or a folder of such files. Raises InputError for what cannot be read, and for an empty pool."""
    path = Path(path)
    if path.is_dir() or path.suffix == ".parquet":
        pool = _parquet(path)
    elif path.suffix == ".npy":
        pool = _npy(path)
    elif path.suffix in (".pth", ".pt"):
        pool = _pth(path)
    else:
        raise InputError(f"{path}: unknown kind of file {path.suffix!r}, expected .pth, .npy or .parquet")
    if not pool.rows:
        raise InputError(f"{pool.where}: no rows, expected at least one distractor")
    return pool


def tensor_matrix(path: Path, key: str, tensor: Any, names: Sequence[str] | None = None) -> Matrix:
    """A tensor (rows, dim) of floats that `torch_files.read` mapped, as a matrix."""
    rows, dim = shape(path, key, tensor)

    def blocks(step: int) -> Iterator[Block]:
        for start in range(0, rows, step):
            yield Block(start, tensor[start : start + step].float().numpy(), _some(names, start, step))

    return Matrix(f"{path}: {key}", rows, dim, blocks)


def shape(path: Path, key: str, tensor: Any) -> tuple[int, int]:
    """(rows, dim) of a tensor of floats; InputError for anything else."""
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2 or not tensor.is_floating_point():
        raise InputError(f"{path}: {key} is {describe(tensor)}, expected a tensor (rows, dim) of floats")
    rows, dim = tensor.shape
    if not dim:
        raise InputError(f"{path}: {key} is {describe(tensor)}, expected at least one dimension")
    return rows, dim


def names_of(path: Path, key: str, names: Any, rows: int) -> Sequence[str] | None:
    """A list of one string a row, or nothing at all; InputError for anything else."""
    if names is None:
        return None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: {key} is {describe(names)}, expected a list of strings")
    if len(names) != rows:
        raise InputError(f"{path}: {key} has {len(names)} entries, expected one for each of {rows} rows")
    return names


def _pth(path: Path) -> Matrix:
    import torch

    content = torch_files.read(path, tensors="shapes")
    if not isinstance(content, dict) or "feats" not in content:
        raise InputError(f"{path}: is {describe(content)}, expected a dict with 'feats' and 'paths'")
    tensor = content["feats"]
    rows, dim = shape(path, "feats", tensor)
    names = names_of(path, "paths", content.get("paths"), rows)
    kind = {torch.float32: "<f4", torch.float64: "<f8", torch.float16: "<f2"}.get(tensor.dtype)
    place = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    if tensor.device.type != "meta":  # of the old format: it is in memory already
        return tensor_matrix(path, "feats", tensor, names)
    if kind is None or place is None or not tensor.is_contiguous():
        return tensor_matrix(path, "feats", torch_files.read(path, tensors="mapped")["feats"], names)
    offset = place + tensor.storage_offset() * np.dtype(kind).itemsize
    return Matrix(
        f"{path}: feats",
        rows,
        dim,
        lambda step: _on_disk(path, np.dtype(kind), offset, (rows, dim), names, step),
    )


def _npy(path: Path) -> Matrix:
    try:
        whole = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected a .npy file") from None
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a readable .npy file of numbers ({_first_line(error)})") from None
    if whole.ndim != 2 or whole.dtype.kind != "f" or not whole.shape[1]:
        raise InputError(
            f"{path}: is an array {whole.shape} of {whole.dtype}, expected (rows, dim) of floats"
        )
    rows, dim = whole.shape
    if not whole.flags.c_contiguous:

        def blocks(step: int) -> Iterator[Block]:
            for start in range(0, rows, step):
                yield Block(start, np.ascontiguousarray(whole[start : start + step], np.float32), None)

        return Matrix(str(path), rows, dim, blocks)
    kind, offset = whole.dtype, whole.offset
    return Matrix(str(path), rows, dim, lambda step: _on_disk(path, kind, offset, (rows, dim), None, step))


def _on_disk(
    path: Path, kind: np.dtype, offset: int, whole: tuple[int, int], names: Sequence[str] | None, step: int
) -> Iterator[Block]:
    """Blocks of a matrix that stands row by row in a file; each is a map of its part alone."""
    rows, dim = whole
    for start in range(0, rows, step):
        part = np.memmap(
            path, kind, "r", offset=offset + start * dim * kind.itemsize, shape=(min(step, rows - start), dim)
        )
        yield Block(start, np.asarray(part, dtype=np.float32), _some(names, start, step))


def _parquet(path: Path) -> Matrix:
    parts = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not parts:
        raise InputError(f"{path}: no Parquet files in this folder, expected parts of embeddings")
    dim = None
    for part in parts:
        dim = check_file(part, dim)
    rows = sum(pq.read_metadata(part).num_rows for part in parts)

    def blocks(step: int) -> Iterator[Block]:
        start = 0
        for batch in tables.iterate(parts, ["image_id", "embedding"], step):
            yield Block(
                start, tables.vectors(batch.column("embedding")), batch.column("image_id").to_pylist()
            )
            start += len(batch)

    return Matrix(str(path), rows, int(dim or 0), blocks)


def _some(names: Sequence[str] | None, start: int, step: int) -> Sequence[str] | None:
    return None if names is None else names[start : start + step]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
