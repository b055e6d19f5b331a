"""Prepare features for ranking: mapped, of unit length, with bad rows refused or marked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from attrib_core.abc_benchmark.feature_files import Block, Matrix
from attrib_core.abc_benchmark.mapper_files import Head
from attrib_core.attribution.ranking.mixed_precision import MixedPrecision
from attrib_core.common.errors import InputError

BAD_ROWS = ("refuse", "last")
FLOAT64_ROWS = 2048
"""Rows computed in float64 at once; bounds the memory of the copies."""
SHORTEST, LONGEST = 2.0**-60, 2.0**60
"""Lengths between which scaling in float32 neither overflows nor loses digits."""
BLOCK_BYTES = 24 << 20
"""Bytes of a block in float32; from 32 MB on, malloc takes fresh pages each time, which cost more than the copy."""


class UnitVectors(NamedTuple):
    """Mapped unit vectors of some rows of a matrix.

    good     (rows,) bool, whether a row has a direction: finite and not zero, also after the mapper
    vectors  those of the good rows only, in order
    """

    good: np.ndarray
    vectors: MixedPrecision


def rows_at_once(dim: int) -> int:
    """Return the rows of a block of BLOCK_BYTES in float32, so that memory does not depend on the dimension."""
    return max(256, min(1 << 15, BLOCK_BYTES // (4 * dim)))


REMEDY = "; with --bad-rows last such rows are ranked last"


def prepare(block: Block, head: Head, where: str, bad_rows: str, remedy: str = REMEDY) -> UnitVectors:
    """Map the rows of a block and normalise them to unit length.

    bad_rows  'refuse': InputError, naming the first row that is not finite or has no length;
              'last': such rows are marked in `good`
    remedy    end of that error's message
    """
    raw = block.vectors
    lengths = np.empty(len(raw))
    mapped = np.empty((len(raw), head.layers[-1].weight.shape[0]), np.float32) if head.layers else None
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for start in range(0, len(raw), FLOAT64_ROWS):
            some = head(raw[start : start + FLOAT64_ROWS])
            length = np.sqrt(np.einsum("ij,ij->i", some, some))
            lengths[start : start + FLOAT64_ROWS] = length
            if mapped is not None:
                mapped[start : start + FLOAT64_ROWS] = some / length[:, None]
    good = np.isfinite(lengths) & (lengths > 0)
    if not good.all():
        if bad_rows == "refuse":
            raise InputError(_describe_bad_row(block, int(np.argmin(good)), lengths, where) + remedy)
        raw, lengths = raw[good], lengths[good]
        mapped = None if mapped is None else mapped[good]
    unit = _scaled(raw, lengths) if mapped is None else mapped
    return UnitVectors(good, MixedPrecision(unit, _points(raw, head)))


def _scaled(raw: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return raw / length in float32, computed in float64 where the factor is outside float32's range."""
    if len(lengths) and lengths.min() > SHORTEST and lengths.max() < LONGEST:
        scaled: np.ndarray = raw * (1.0 / lengths).astype(np.float32)[:, None]
        return scaled
    return (raw / lengths[:, None]).astype(np.float32)


def _points(raw: np.ndarray, head: Head) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that computes the unit vectors of given rows in float64."""

    def points(rows: np.ndarray) -> np.ndarray:
        mapped = head(raw[rows])
        mapped /= np.sqrt(np.einsum("ij,ij->i", mapped, mapped))[:, None]
        return mapped

    return points


def read_rows(
    matrix: Matrix,
    head: Head,
    bad_rows: str,
    start: int = 0,
    stop: int | None = None,
    *,
    remedy: str = REMEDY,
) -> UnitVectors:
    """Read rows start to stop - 1 of a matrix, by default all, into memory and prepare them."""
    stop = matrix.rows if stop is None else stop
    kept, names = [], []
    for block in matrix.blocks(rows_at_once(matrix.dim)):
        first, last = max(start - block.start, 0), min(stop - block.start, len(block.vectors))
        if first < last:
            kept.append(block.vectors[first:last])
            names += list(block.names[first:last]) if block.names is not None else []
    vectors = np.concatenate(kept) if len(kept) > 1 else kept[0]
    return prepare(Block(start, vectors, names or None), head, matrix.where, bad_rows, remedy)


def _describe_bad_row(block: Block, row: int, lengths: np.ndarray, where: str) -> str:
    name = f" ({block.names[row]!r})" if block.names is not None else ""
    raw = block.vectors[row]
    if not np.isfinite(raw).all():
        value = raw[~np.isfinite(raw)][0]
        found = f"has {'NaN' if math.isnan(value) else 'an infinite number'}"
    elif not raw.any():
        found = "has only zeros"
    else:
        found = "has no length after the mapper" if lengths[row] == 0 else "is too large"
    return f"{where}: row {block.start + row}{name} {found}, expected a finite vector with a direction"
