"""Confidence intervals of means over queries of several models; the project's only ones.

A share, or another mean of values within [0, 1], has Wilson's score interval (1927) with an effective number of
observations n_e in place of the number of values, and Student's quantile t in place of the normal one:

    (p + t^2 / 2 n_e -+ t sqrt(p (1 - p) / n_e + t^2 / 4 n_e^2)) / (1 + t^2 / n_e)
    1 / n_e = min(1, V / p (1 - p) + 1 / 2 m^2)    m = min(n, df + 1) for n models; V and df by `crossing`

The effective number is that of Korn and Graubard (1998); Dean and Pagano (2015) find Wilson's interval with it to be
the best of those for clustered data near 0 and 1. The second term of 1 / n_e makes up for the variance of V over few
models or prompts: by simulation (`benchmarks/inference.py`) it is about the smallest that is enough. At 0 and at 1
values say nothing about how much models vary, so each model counts as one observation: n_e = n.

A difference of two means has the interval of Newcombe (1998), MOVER of Zou and Donner (2008), from the intervals
l1..u1, l2..u2 of both and their correlation r, which is 0 for groups of different models:

    d - sqrt((p1 - l1)^2 + (u2 - p2)^2 - 2 r (p1 - l1) (u2 - p2)), upwards alike

Where one of two shares is at 0 or 1, it has the n_e of the other, since their models vary alike.

Other means, of values without bounds, have Student's interval p -+ t sqrt(V).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from attrib_core.common import student
from attrib_core.common.crossing import Spread

LEVEL = 0.95
FEW = 0.5
"""Added to 1 / n_e, over the squared number of models, or of degrees of freedom and one where these are fewer."""
NO_SPREAD = 1e-9  # shares nearer to 0 and 1 are 0 and 1, up to rounding


class Interval(NamedTuple):
    """Ends of an interval and its degrees of freedom; NaN where there is none."""

    low: float
    high: float
    df: float


NONE = Interval(math.nan, math.nan, math.nan)


def of_share(
    value: float, spread: Spread, models: int, *, level: float = LEVEL, at_bound: float | None = None
) -> Interval:
    """Compute the interval of a mean of values within [0, 1]; NONE for one model.

    `at_bound` is what 1 / n_e is for a value of 0 or 1, instead of 1 / n.
    """
    if models < 2 or math.isnan(spread.variance):
        return NONE
    inverse = _inverse_of(value, spread, models)
    if inverse is None:
        inverse = 1.0 / models if at_bound is None else at_bound
    return Interval(*_score(value, inverse, spread.df, level), spread.df)


def _inverse_of(value: float, spread: Spread, models: int) -> float | None:
    """Compute 1 / n_e of a share; None at 0 and 1."""
    own = value * (1.0 - value)
    if own < NO_SPREAD:
        return None
    return min(1.0, spread.variance / own + FEW / min(models, spread.df + 1.0) ** 2)


def of_mean(value: float, spread: Spread, *, level: float = LEVEL) -> Interval:
    """Compute the interval of a mean of values without bounds; NONE for one model and infinite values."""
    if math.isnan(spread.variance) or not math.isfinite(value):
        return NONE
    half = _quantile(level, spread.df) * math.sqrt(spread.variance)
    return Interval(value - half, value + half, spread.df)


class Side(NamedTuple):
    """One side of a difference.

    inverse   1 / n_e of a share, None at 0 and 1 and of other averages
    interval  of the degrees of freedom, and of the 1 / n_e of a share at 0 or 1
    """

    value: float
    variance: float
    inverse: float | None
    interval: Callable[[float, float | None], Interval]


def share_side(value: float, spread: Spread, models: int) -> Side:
    """Return the side of a difference that is a mean of values within [0, 1]."""

    def interval(df: float, at_bound: float | None) -> Interval:
        return of_share(value, Spread(spread.variance, df), models, at_bound=at_bound)

    return Side(value, spread.variance, _inverse_of(value, spread, models), interval)


def of_difference(ours: Side, theirs: Side, spread: Spread) -> Interval:
    """Compute the interval of ours - theirs; `spread` is that of the difference.

    The intervals of both sides have its degrees of freedom.
    """
    if math.isnan(spread.variance):
        return NONE
    one = ours.interval(spread.df, theirs.inverse)
    other = theirs.interval(spread.df, ours.inverse)
    product = math.sqrt(ours.variance * theirs.variance)
    both = ours.variance + theirs.variance - spread.variance
    r = min(1.0, max(-1.0, both / 2.0 / product)) if product > 0 else 0.0
    below = _hypotenuse(ours.value - one.low, other.high - theirs.value, r)
    above = _hypotenuse(one.high - ours.value, theirs.value - other.low, r)
    difference = ours.value - theirs.value
    return Interval(difference - below, difference + above, spread.df)


def share_tail(value: float, interval: Interval, bound: float, *, above: bool, shift: float = 0.0) -> float:
    """Compute the one-sided p-value for a share to lie above (or below) a bound, given its 95 % interval.

    By the same score: the distance to the bound in standard errors at the bound. `shift` moves the value towards
    the bound, to see what a small change would do to p.
    """
    if math.isnan(interval.low):
        return math.nan
    if not 0.0 < bound < 1.0:  # a share may always be at a bound
        return 1.0 if (bound <= 0.0) != above else student.LEAST_TAIL
    distance = (value - bound if above else bound - value) - shift
    inverse = _inverse(value, interval)
    return student.tail(distance / math.sqrt(bound * (1.0 - bound) * inverse), interval.df)


def difference_tail(
    value: float, interval: Interval, bound: float, *, above: bool, shift: float = 0.0
) -> float:
    """Compute the one-sided p-value for a difference to lie above (or below) a bound, given its 95 % interval.

    The distance from the value to the end of the interval on that side is t standard errors; `shift` as above.
    """
    if math.isnan(interval.low):
        return math.nan
    distance, reach = (
        (value - bound, value - interval.low) if above else (bound - value, interval.high - value)
    )
    distance -= shift
    if reach <= 0.0:
        return student.LEAST_TAIL if distance > 0 else 1.0 if distance < 0 else 0.5
    return student.tail(_quantile(LEVEL, interval.df) * distance / reach, interval.df)


def at_level(value: float, interval: Interval, level: float, *, instead: float | None = None) -> Interval:
    """Compute the interval of a share at another level, given that at 95 %; of another share with `instead`."""
    if math.isnan(interval.low):
        return NONE
    around = value if instead is None else instead
    return Interval(*_score(around, _inverse(value, interval), interval.df, level), interval.df)


def reach_at_level(value: float, interval: Interval, level: float) -> float:
    """Compute how far the interval of a difference would reach at another level, given that at 95 %."""
    wider = max(value - interval.low, interval.high - value)
    return wider * _quantile(level, interval.df) / _quantile(LEVEL, interval.df)


def _inverse(value: float, interval: Interval) -> float:
    """Compute 1 / n_e from the 95 % interval: (end - p)^2 = t^2 end (1 - end) / n_e at both ends."""
    t = _quantile(LEVEL, interval.df)
    end = interval.high if value < 0.5 else interval.low
    return (end - value) ** 2 / (t * t * end * (1.0 - end))


def _score(value: float, inverse: float, df: float, level: float) -> tuple[float, float]:
    square = _quantile(level, df) ** 2 * inverse
    middle = value + square / 2.0
    half = math.sqrt(square * value * (1.0 - value) + square * square / 4.0)
    low, high = (middle - half) / (1.0 + square), (middle + half) / (1.0 + square)
    return min(max(low, 0.0), value), max(min(high, 1.0), value)


def _hypotenuse(one: float, other: float, r: float) -> float:
    return math.sqrt(max(0.0, one * one + other * other - 2.0 * r * one * other))


def _quantile(level: float, df: float) -> float:
    return student.quantile((1.0 + level) / 2.0, df)
