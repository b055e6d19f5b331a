"""Unit vectors in the precisions in which ranking uses them: float32 to multiply, float64 to decide.

No result may depend on the last bits of a float32 matrix product, which differ from library to library and from
block to block. There are two ways out, and both are used:

A float32 product has a known largest error (`error_bound`). What is further than that from a threshold is decided
by it, and the few pairs that are nearer are computed again from the float64 vectors.

Where every similarity counts, as in a histogram, vectors are rounded to a grid on which float32 makes no error at all
(`Grid`). Components are rounded to multiples of 2**-12 and vectors are scaled to a length of at most 1. In units of
2**-12 the components are integers, |q| and |c| at most 2**12. A library may add the products of components in any
order, in parts, and with fused operations; each number that it ever holds is the sum of q_i c_i over some set of
components, an integer, and by Cauchy and Schwarz at most |q| |c| <= 2**24. Float32 holds all integers up to 2**24, so
nothing is rounded. These similarities are off by what the rounding of the vectors changes: by 1e-4 (standard
deviation), and at most by what `Grid.error` bounds, some 3e-3 of 512 dimensions. So they serve as a first look too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

UNIT_ERROR = 2.0**-22  # length of the difference of a float32 vector from its float64 vector
ROUNDOFF = 2.0**-24  # largest relative error of one float32 operation
GRID = 2.0**12  # steps of a component on the grid
CACHED = (
    1 << 15
)  # components computed with in one step, so that they stay in the cache; never changes a result


class Grid(NamedTuple):
    """Vectors on the grid, whose float32 products are exact.

    steps  (rows, dim) float32 integers: each vector times `scale`, rounded
    scale  steps of a component of 1, the same for all vectors of a dimension
    error  (rows,) float64, largest length of the difference of steps / scale from the float64 vector
    """

    steps: np.ndarray
    scale: float
    error: np.ndarray


class MixedPrecision(NamedTuple):
    """Unit vectors in float32 for matrix products, and in float64 for what is computed again.

    unit    (rows, dim) float32
    points  function from row numbers to vectors (len(numbers), dim) float64
    error   largest length of the difference of a float32 vector from its float64 vector
    grid    the same vectors on the grid, for passes that need each similarity
    """

    unit: np.ndarray
    points: Callable[[np.ndarray], np.ndarray]
    error: float = UNIT_ERROR
    grid: Grid | None = None

    def on_grid(self) -> Grid:
        """Return the vectors on the grid; RuntimeError where there are none."""
        if self.grid is None:
            raise RuntimeError("vectors without a grid in a pass that needs each similarity")
        return self.grid


def error_bound(dim: int, error: float = UNIT_ERROR) -> float:
    """Bound the difference of a float32 product of two vectors from the float64 similarity.

    Adding n products in float32 in any order, with or without fused operations, errs by at most
    n u / (1 - n u) times the sum of their magnitudes (Higham, Accuracy and Stability, 3.1), with
    u = 2**-24; by Cauchy and Schwarz that sum is at most the product of the lengths. Two more
    operations are allowed for a library that scales the result. The differences of both vectors from
    their float64 vectors, each at most `error`, and underflow are added.
    """
    terms = (dim + 2) * ROUNDOFF
    summing = terms / (1.0 - terms) * (1.0 + error) ** 2
    return summing + 2.0 * error * (1.0 + error) + dim * 2.0**-125


def round_to_grid(unit: np.ndarray, longest: float, error: float, memory: np.ndarray | None = None) -> Grid:
    """Round vectors (rows, dim) float32, of length at most `longest`, to the grid.

    error   length of the difference of these vectors from their float64 vectors, at most
    memory  array (rows or more, dim) float32 for the result, see `fixed_point.vectors`

    Rounding lengthens a vector by at most sqrt(dim) / 2 steps, so it is scaled down by as much before.
    """
    rows, dim = unit.shape
    room = GRID * (1.0 - 2.0**-20) - math.sqrt(dim) / 2.0  # 2**-20: float32 rounds the scaled components
    scale = np.float32(room / longest)
    steps = np.empty((rows, dim), np.float32) if memory is None else memory[:rows]
    squares = np.empty(rows)
    step = max(1, CACHED // dim)
    for start in range(0, rows, step):
        some, rounded = unit[start : start + step], steps[start : start + step]
        np.multiply(some, scale, out=rounded)
        np.rint(rounded, out=rounded)
        difference = rounded * np.float32(1.0 / scale)
        difference -= some
        squares[start : start + step] = np.einsum("ij,ij->i", difference, difference)
    lengths = np.sqrt(squares) * (1.0 + dim * ROUNDOFF) + 2.0**-20  # both for the float32 of these lines
    return Grid(steps, float(scale), lengths + error)


def grid_bound(queries: Grid, block: Grid, longest: float) -> np.ndarray:
    """Bound the error of the similarities on the grid of each query to a block, (queries,).

    With r the differences, <q, c> - <q', c'> = <r_q, c> + <q', r_c>, at most |r_q| |c| + |q'| |r_c|.
    """
    worst = block.error.max(initial=0.0)
    bound: np.ndarray = queries.error * longest + (longest + queries.error) * worst
    return bound


class Pairs(NamedTuple):
    """Single pairs of a query and a row of a block, given by their numbers (pairs,)."""

    queries: MixedPrecision
    block: MixedPrecision

    def bound(self) -> float:
        """Bound the error of a float32 product."""
        return error_bound(self.block.unit.shape[1], max(self.queries.error, self.block.error))

    def products(self, query: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Compute float32 products, (pairs,)."""
        return _products(self.queries.unit, query, lambda rows: self.block.unit.take(rows, axis=0), row)

    def similarities(self, query: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Compute the float64 similarities, (pairs,)."""
        distinct, place = np.unique(query, return_inverse=True)
        return _products(self.queries.points(distinct), place, self.block.points, row)


def _products(
    left: np.ndarray, place: np.ndarray, right: Callable[[np.ndarray], np.ndarray], row: np.ndarray
) -> np.ndarray:
    products = np.empty(len(row), left.dtype)
    step = max(1, CACHED // left.shape[1])
    for start in range(0, len(row), step):
        some = slice(start, start + step)
        products[some] = np.vecdot(left.take(place[some], axis=0), right(row[some]))
    return products


def round_down(values: np.ndarray) -> np.ndarray:
    """Round to float32 towards minus infinity, so that a comparison in float32 leaves nothing out."""
    rounded = values.astype(np.float32)
    lower: np.ndarray = np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    return lower
