"""Cosine similarities in fixed-point arithmetic, exact integers whatever the blocks, order or library.

Each component of a unit vector is rounded to a multiple of 2**-26. In units of 2**-52 every product of two components
is then an integer, and by Cauchy and Schwarz no partial sum, in whatever order, exceeds |q| |c| 2**52, about 2**52.
Integers below 2**53 are exact in float64. So sums in float64 have no rounding at all, and equal images always tie.

The rounding of the components changes a similarity by about 6e-9 (standard deviation; below 5e-8 in a million pairs of
512 dimensions), ten times less than the error of a float32 product. These similarities decide all counts and the most
similar candidates; a pass over the pool finds by float32 products which few of them it needs (`mixed_precision`).
"""

from __future__ import annotations

import math

import numpy as np

from attrib_core.attribution.ranking.mixed_precision import MixedPrecision, round_to_grid

COMPONENT = 2.0**26
ONE = 2.0**52  # similarity 1
TIE = 2.0**-23  # the spacing of float32 near 1: finer differences are encoder noise
MAX_LENGTH = 1.0 + 2.0**-10  # length up to which sums stay exact; unit vectors in float32 are within 1e-6
MIN_LENGTH = 1.0 - 2.0**-10
LONGEST = MAX_LENGTH + 2.0**-12  # bounds the length after rounding, of up to 2**28 dimensions


def fixed_point(unit: np.ndarray) -> np.ndarray:
    """Round unit vectors (rows, dim) float32 to multiples of 2**-26; returns these integers as float64."""
    points = unit * np.float32(
        COMPONENT
    )  # exact, and so is rint: no integer has more digits than the component
    return np.rint(points, out=points).astype(np.float64)


def similarities(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Compute similarities (queries, candidates) of `fixed_point` vectors, exact float64."""
    product: np.ndarray = queries @ candidates.T
    return product / ONE


def vectors(unit: np.ndarray, memory: np.ndarray | None = None) -> MixedPrecision:
    """Return unit vectors (rows, dim) float32 of which float64 has the `fixed_point` values.

    memory  array (rows or more, dim) float32 for the vectors on the grid: fresh pages cost more than rounding
    """
    error = math.sqrt(unit.shape[1]) * 2.0**-27

    def points(rows: np.ndarray) -> np.ndarray:
        return _rounded(unit.take(rows, axis=0)).astype(np.float64)

    return MixedPrecision(unit, points, error, round_to_grid(unit, MAX_LENGTH, error, memory))


def _rounded(unit: np.ndarray) -> np.ndarray:
    """Round components to multiples of 2**-26 in their type: no multiple has more digits than the component."""
    points = unit * unit.dtype.type(COMPONENT)
    np.rint(points, out=points)
    points *= unit.dtype.type(1.0 / COMPONENT)
    return points
