"""Stream embedding files in blocks: checked, mapped and normalised to unit length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attrib_core.attribution.ranking import fixed_point
from attrib_core.common.errors import InputError
from attrib_core.storage import tables, vector_columns

NEAR_ONE, EXACT_ENOUGH = 2.0**-11, 1 << 14
"""Squared lengths that float32 has this near to 1 are within the limits of `fixed_point`, up to so many dimensions."""
READ_ROWS = 4096
"""Rows that are read and mapped at once: few enough that their memory is used again."""


class Projection(Protocol):
    """One side of `attrib_core.features.heads.heads.Heads`: (rows, dim) to (rows, dim') float32, unit length."""

    def __call__(self, x: np.ndarray, /, *, ids: Sequence[str]) -> np.ndarray: ...


class EmbeddingBlock(NamedTuple):
    """Rows of embeddings: their ids and their unit vectors (rows, dim) float32."""

    ids: list[str]
    unit: np.ndarray


def read_blocks(
    paths: Sequence[Path], project: Projection, *, rows: int, without: pa.Array | None = None
) -> Iterator[EmbeddingBlock]:
    """Yield the projected vectors of embedding files, at most `rows` at a time.

    Rows whose image_id is in `without` are left out. Raises InputError, with file and row, for an unreadable
    file, a file of another dimension than the first, and a vector that is not finite or has length 0.
    """
    for path, _, names, vectors in vector_columns.stream(paths, rows):
        if without is not None:
            kept = pc.invert(pc.is_in(names, value_set=without)).to_numpy(zero_copy_only=False)
            names, vectors = names.filter(pa.array(kept)), vectors[kept]
        if len(names):
            ids = names.to_pylist()
            yield EmbeddingBlock(ids, _projected(vectors, ids, project, path))


def read_all(paths: Sequence[Path], project: Projection) -> EmbeddingBlock:
    """Read all projected vectors of embedding files; for data that fits in memory."""
    blocks = list(read_blocks(paths, project, rows=tables.ROW_GROUP))
    if not blocks:
        raise InputError(f"{', '.join(map(str, paths)) or 'embeddings'}: no rows, expected at least one")
    return EmbeddingBlock(
        [name for block in blocks for name in block.ids], np.concatenate([b.unit for b in blocks])
    )


def regroup(blocks: Iterator[EmbeddingBlock], rows: int, *, reuse: bool = False) -> Iterator[EmbeddingBlock]:
    """Yield the same rows in blocks of exactly `rows`; the last may be shorter.

    reuse  put all blocks in the same memory, so that each is valid until the next: fresh pages cost more than the copy
    """
    ids: list[str] = []
    parts: list[np.ndarray] = []
    memory = np.empty((0, 0), np.float32)
    for block in blocks:
        ids += block.ids
        parts.append(block.unit)
        while len(ids) >= rows:
            if reuse and len(memory) < len(ids):
                memory = np.empty((len(ids), block.unit.shape[1]), np.float32)
            unit = np.concatenate(parts, out=memory[: len(ids)] if reuse else None)
            yield EmbeddingBlock(ids[:rows], unit[:rows])
            ids, parts = ids[rows:], [unit[rows:].copy()]
    if ids:
        yield EmbeddingBlock(ids, np.concatenate(parts))


def list_files(paths: Sequence[Path]) -> str:
    """Name files in a message: the first, and how many more."""
    first = str(paths[0]) if paths else "no files"
    return first if len(paths) < 2 else f"{first} and {len(paths) - 1} more"


def _projected(vectors: np.ndarray, ids: list[str], project: Projection, path: Path) -> np.ndarray:
    squares = np.einsum("ij,ij->i", vectors, vectors)
    if not (np.isfinite(squares) & (squares > 0)).all():  # or they are too large or small for float32
        finite = np.isfinite(vectors).all(axis=1)
        _refuse(finite, ids, path, "a component that is not finite, expected numbers")
        _refuse((vectors != 0).any(axis=1), ids, path, "only zeros, expected a vector with a direction")
    try:
        unit = project(vectors, ids=ids)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if unit.shape[1] > EXACT_ENOUGH or not (np.abs(np.einsum("ij,ij->i", unit, unit) - 1) < NEAR_ONE).all():
        length = np.sqrt(np.einsum("ij,ij->i", unit, unit, dtype=np.float64))
        normalised = (length > fixed_point.MIN_LENGTH) & (length < fixed_point.MAX_LENGTH)  # false for NaN
        what = "no unit length after the mapper, expected a finite vector with a direction"
        _refuse(normalised, ids, path, what)
    return unit


def _refuse(good: np.ndarray, ids: list[str], path: Path, what: str) -> None:
    """Raise InputError for the first row that is not good."""
    if not good.all():
        row = int(np.argmin(good))
        raise InputError(f"{path}: embedding of {ids[row]!r} has {what}")
