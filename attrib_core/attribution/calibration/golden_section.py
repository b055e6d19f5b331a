"""Minimize functions of one or two variables by grid search and golden-section search."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0
ITERATIONS = 28  # shrink an interval of two grid steps to 1e-6 of its width


def minimize(function: Callable[[float], float], grid: np.ndarray, iterations: int = ITERATIONS) -> float:
    """Return the best point of an increasing grid, refined by golden section between its neighbours.

    Deterministic, without derivatives; it only misses a minimum narrower than the grid.
    """
    values = [function(float(x)) for x in grid]
    best = int(np.argmin(values))
    low, high = float(grid[max(0, best - 1)]), float(grid[min(len(grid) - 1, best + 1)])
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(iterations):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = function(right)
    return min((values[best], float(grid[best])), (at_left, left), (at_right, right))[1]


def minimize_nested(
    function_at: Callable[[float], Callable[[float], float]],
    outer: np.ndarray,
    inner: np.ndarray,
    iterations: int = ITERATIONS,
) -> tuple[float, float]:
    """Minimize over two variables, the inner one anew for each outer one; the outer search is in its logarithm."""

    def best_inner(x: float) -> tuple[float, float]:
        function = function_at(x)
        y = minimize(function, inner, iterations)
        return function(y), y

    x = float(np.exp(minimize(lambda log: best_inner(float(np.exp(log)))[0], np.log(outer), iterations)))
    return x, best_inner(x)[1]
