"""Where a function of one variable is lowest: a grid, then a golden section at its best point."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0
SHRINKS = 28  # of an interval of two grid steps, to 1e-6 of its width


def lowest(function: Callable[[float], float], grid: np.ndarray, shrinks: int = SHRINKS) -> float:
    """The best point of a rising grid, refined between its neighbours.

    Deterministic, without derivatives, and blind only to a dip narrower than the grid.
    """
    values = [function(float(x)) for x in grid]
    best = int(np.argmin(values))
    low, high = float(grid[max(0, best - 1)]), float(grid[min(len(grid) - 1, best + 1)])
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(shrinks):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = function(right)
    ends = [(values[best], float(grid[best])), (at_left, left), (at_right, right)]
    return min(ends)[1]
