"""Student's t distribution, since SciPy is not among the dependencies.

For whole degrees of freedom by the finite sums of Abramowitz and Stegun (1964), 26.7.3 and 26.7.4; for others, which
come from Satterthwaite's formula, between the two neighbours, linear in 1 / df. Such quantiles are never too small:
above 2 degrees of freedom they are at most 2 % too large.
"""

from __future__ import annotations

import functools
import math

import numpy as np

MOST = 1000
"""More degrees of freedom count as this many; the 97.5 % quantile, 1.9623, is 0.1 % above that of infinitely many."""
LEAST_TAIL = 1e-15  # tails are one less sums near one, so smaller ones would be rounding errors


def tail(t: float, df: float) -> float:
    """Compute the probability of a value above t, for degrees of freedom of at least 1; never 0."""
    if math.isnan(t):
        return math.nan
    low, part = _split(df)
    found = _tail(abs(t), low)
    if part:
        found += part * (_tail(abs(t), low + 1) - found)
    return max(found if t >= 0 else 1.0 - found, LEAST_TAIL)


def quantile(probability: float, df: float) -> float:
    """Compute the value that is not exceeded with a probability of at least one half."""
    low, part = _split(df)
    found = _quantile(probability, low)
    return found + part * (_quantile(probability, low + 1) - found) if part else found


def _split(df: float) -> tuple[int, float]:
    """Return the whole degrees of freedom below, and the weight of those above: linear in 1 / df."""
    bounded = min(max(float(df), 1.0), float(MOST))
    low = int(bounded)
    return low, (1.0 / low - 1.0 / bounded) * low * (low + 1)


def _tail(t: float, df: int) -> float:
    """P(T > t) for t of at least 0 and whole degrees of freedom."""
    angle = math.atan(t / math.sqrt(df))
    if df == 1:
        return 0.5 - angle / math.pi
    cosine, sine = math.cos(angle), math.sin(angle)
    first = 3 if df % 2 else 2
    steps = np.arange(first, df - 1, 2)
    terms = np.cumprod(np.concatenate([[1.0], (steps - 1) / steps * cosine * cosine]))
    total = sine * float(terms.sum())
    within = 2.0 / math.pi * (angle + cosine * total) if df % 2 else total
    return max(0.0, (1.0 - within) / 2.0)


@functools.lru_cache(maxsize=8 * MOST)
def _quantile(probability: float, df: int) -> float:
    low, high = 0.0, 1.0
    while _tail(high, df) > 1.0 - probability:
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _tail(middle, df) > 1.0 - probability else (low, middle)
    return (low + high) / 2.0
