"""Student's t distribution, since SciPy is not among the dependencies.

Degrees of freedom are real numbers, as Satterthwaite's formula makes them. With I the regularized incomplete beta
function, by its continued fraction (DLMF 8.17.22), and t of at least 0,

    P(T > t) = I(df / 2, 1 / 2) at df / (df + t^2), halved

and quantiles are the inverse, by Newton's method: a 95 % interval excludes a value where p is below 0.05.
"""

from __future__ import annotations

import functools
import math

MOST = 1000
"""More degrees of freedom count as this many; the 97.5 % quantile, 1.9623, is 0.1 % above that of infinitely many."""
LEAST_TAIL = 1e-15
"""Smaller tails count as this much, since they are parts of sums near one elsewhere."""
TERMS = 120  # of the continued fraction: with up to MOST degrees of freedom the rest is below 1e-12
PRECISE = (
    1e-10  # a step of Newton's method this small, of the value, is the last: the next one would be its square
)


def tail(t: float, df: float) -> float:
    """Compute the probability of a value above t, for degrees of freedom of at least 1; never 0."""
    if math.isnan(t):
        return math.nan
    found = _tail(abs(t), _bounded(df))
    return max(found if t >= 0 else 1.0 - found, LEAST_TAIL)


def quantile(probability: float, df: float) -> float:
    """Compute the value that is not exceeded with a probability of at least one half and below one."""
    return _quantile(probability, _bounded(df))


def _bounded(df: float) -> float:
    return min(max(float(df), 1.0), float(MOST))


def _tail(t: float, df: float) -> float:
    """P(T > t) for t of at least 0."""
    if math.isinf(t):
        return 0.0
    x, rest = df / (df + t * t), t * t / (df + t * t)
    if x < (df / 2.0 + 1.0) / (df / 2.0 + 2.5):  # where the fraction converges fast
        return _beta(x, rest, df / 2.0, 0.5) / 2.0
    return (1.0 - _beta(rest, x, 0.5, df / 2.0)) / 2.0


def _beta(x: float, rest: float, a: float, b: float) -> float:
    """I_x(a, b), for `rest` = 1 - x, which may be too small for a difference."""
    if x == 0.0:
        return 0.0
    below = 0.0
    for m in range(TERMS, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        below = even / (1.0 - (a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)) / (1.0 + below))
    fraction = 1.0 - (a + b) * x / (a + 1.0) / (1.0 + below)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    return math.exp(scale) / (a * fraction)


@functools.lru_cache(maxsize=8 * MOST)
def _quantile(probability: float, df: float) -> float:
    """From 0 up, without overshooting, as the tail is convex."""
    peak = math.exp(math.lgamma((df + 1.0) / 2.0) - math.lgamma(df / 2.0)) / math.sqrt(df * math.pi)
    t, step = 0.0, math.inf
    while step > PRECISE * t:
        density = peak * (1.0 + t * t / df) ** (-(df + 1.0) / 2.0)
        step = (_tail(t, df) - (1.0 - probability)) / density
        t += step
    return t
