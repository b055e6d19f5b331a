"""Intervals against the equations that define them, and their p-values against the t distribution."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from attrib_core.common import intervals
from attrib_core.common.crossing import UNKNOWN, Spread
from attrib_core.common.intervals import Interval, Side


@pytest.mark.parametrize("value", [0.003, 0.2, 0.5, 0.97])
@pytest.mark.parametrize(("models", "df"), [(3, 2), (5, 4), (14, 17), (40, 39)])
def test_the_ends_for_a_share_solve_the_score_equation(value: float, models: int, df: int) -> None:
    variance = value * (1 - value) / models / 3
    found = intervals.of_share(value, Spread(variance, df), models)
    inverse = variance / (value * (1 - value)) + 0.5 / min(models, df + 1) ** 2
    t = stats.t.ppf(0.975, df)
    for end in found[:2]:
        assert (end - value) ** 2 == pytest.approx(t**2 * end * (1 - end) * inverse)
    assert 0 < found.low < value < found.high < 1 and found.df == df
    wide = intervals.of_share(value, Spread(variance, df), models, level=0.99)
    assert intervals.at_level(value, found, 0.99) == pytest.approx(wide)
    assert wide.low < found.low and found.high < wide.high


@pytest.mark.parametrize("models", [2, 5, 14])
def test_models_that_are_all_at_a_bound_count_as_one_observation_each(models: int) -> None:
    square = stats.t.ppf(0.975, models - 1) ** 2
    nothing = intervals.of_share(0.0, Spread(0.0, models - 1), models)
    assert nothing == pytest.approx((0.0, square / (models + square), models - 1))
    assert nothing.low == 0.0
    everything = intervals.of_share(1.0 - 1e-16, Spread(1e-34, models - 1), models)
    assert everything == pytest.approx((models / (models + square), 1.0, models - 1))


def test_no_interval_of_one_model_and_of_infinite_values() -> None:
    assert all(map(math.isnan, intervals.of_share(0.5, UNKNOWN, 1)))
    assert all(map(math.isnan, intervals.of_mean(0.5, UNKNOWN)))
    assert all(map(math.isnan, intervals.of_mean(math.inf, Spread(1.0, 3))))
    assert all(map(math.isnan, intervals.of_difference(side(0.2, 0.1), side(0.1, 0.1), UNKNOWN)))
    assert intervals.of_mean(2.0, Spread(0.04, 4)) == pytest.approx((*stats.t.interval(0.95, 4, 2.0, 0.2), 4))


def side(value: float, variance: float, models: int = 8) -> Side:
    return intervals.share_side(value, Spread(variance, 7), models)


@pytest.mark.parametrize("r", [-0.4, 0.0, 0.9, 1.0])
def test_the_interval_of_a_difference_is_that_of_newcombe(r: float) -> None:
    ours, theirs, df = (0.6, 0.02), (0.25, 0.01), 7
    variance = ours[1] + theirs[1] - 2 * r * math.sqrt(ours[1] * theirs[1])
    found = intervals.of_difference(side(*ours), side(*theirs), Spread(variance, df))
    (l1, u1, _), (l2, u2, _) = (intervals.of_share(p, Spread(v, df), 8) for p, v in (ours, theirs))
    low = 0.35 - math.sqrt((0.6 - l1) ** 2 + (u2 - 0.25) ** 2 - 2 * r * (0.6 - l1) * (u2 - 0.25))
    high = 0.35 + math.sqrt((u1 - 0.6) ** 2 + (0.25 - l2) ** 2 - 2 * r * (u1 - 0.6) * (0.25 - l2))
    assert found == pytest.approx((low, high, df))
    turned = intervals.of_difference(side(*theirs), side(*ours), Spread(variance, df))
    assert turned == pytest.approx((-high, -low, df))


def test_a_share_at_a_bound_has_the_effective_number_of_the_other_side() -> None:
    """Found by ours in some of 8 models, by theirs in none."""
    spread = Spread(0.01, 7)
    found = intervals.of_difference(side(0.3, 0.01), side(0.0, 0.0), spread)
    low, _, _ = intervals.of_share(0.3, spread, 8)
    inverse, square = 0.01 / 0.21 + 0.5 / 64, stats.t.ppf(0.975, 7) ** 2
    high = square * inverse / (1 + square * inverse)
    assert found.low == pytest.approx(0.3 - math.hypot(0.3 - low, high))
    nothing = intervals.of_difference(side(0.0, 0.0), side(0.0, 0.0), spread)
    assert nothing[:2] == pytest.approx((-square / (8 + square), square / (8 + square)))


def test_p_values_agree_with_the_ends_and_with_the_t_distribution() -> None:
    found = intervals.of_share(0.2, Spread(0.004, 6), 9)
    assert intervals.share_tail(0.2, found, found.low, above=True) == pytest.approx(0.025)
    assert intervals.share_tail(0.2, found, found.high, above=False) == pytest.approx(0.025)
    inverse = 0.004 / 0.16 + 0.5 / 49  # seven, by the degrees of freedom, are fewer than nine models
    expected = stats.t.sf((0.3 - 0.2) / math.sqrt(0.21 * inverse), 6)
    assert intervals.share_tail(0.2, found, 0.3, above=False) == pytest.approx(expected)
    assert intervals.share_tail(0.2, found, 0.3, above=True) == pytest.approx(1 - expected)
    one_sided = intervals.at_level(0.2, found, 0.90)  # two one-sided tests at 5 % are an interval of 90 %
    assert intervals.share_tail(0.2, found, one_sided.high, above=False) == pytest.approx(0.05)
    assert intervals.share_tail(0.2, found, 1.2, above=False) < 1e-12
    assert intervals.share_tail(0.2, found, 0.0, above=False) == 1.0
    shifted = stats.t.sf((0.3 - 0.21) / math.sqrt(0.21 * inverse), 6)
    assert intervals.share_tail(0.2, found, 0.3, above=False, shift=0.01) == pytest.approx(shifted)
    difference = Interval(-0.05, 0.25, 6)
    assert intervals.difference_tail(0.1, difference, -0.05, above=True) == pytest.approx(0.025)
    assert intervals.difference_tail(0.1, difference, 0.25, above=False) == pytest.approx(0.025)
    expected = stats.t.sf(stats.t.ppf(0.975, 6) * 0.1 / 0.15, 6)
    assert intervals.difference_tail(0.1, difference, 0.0, above=True) == pytest.approx(expected)
    assert math.isnan(intervals.share_tail(0.2, intervals.NONE, 0.1, above=True))
    assert math.isnan(intervals.difference_tail(0.2, intervals.NONE, 0.1, above=True))
    assert [
        intervals.difference_tail(0.1, Interval(0.1, 0.1, 6), bound, above=True) for bound in (0.1, 0.2)
    ] == [0.5, 1]


def test_p_values_of_a_share_at_zero() -> None:
    found = intervals.of_share(0.0, Spread(0.0, 4), 5)
    assert intervals.share_tail(0.0, found, 0.1, above=False) == pytest.approx(
        stats.t.sf(0.1 / math.sqrt(0.09 / 5), 4)
    )
