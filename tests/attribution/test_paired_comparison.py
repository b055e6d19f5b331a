"""The paired comparison: intervals from both sides, and p-values that neither test contradicts."""

from __future__ import annotations

import numpy as np
import pytest

from attrib_core.attribution.metrics import sign_flip_test
from attrib_core.attribution.metrics.paired_comparison import Paired, paired
from attrib_core.attribution.metrics.summary import side, terms
from attrib_core.common import intervals
from attrib_core.common.crossing import Crossing, Spread


def compared(
    ours: np.ndarray, theirs: np.ndarray, prompts: np.ndarray | None, metric: str = "recall_at_k"
) -> Paired:
    """Compare values (models, prompts) of two systems."""
    models = np.tile(np.repeat(np.arange(len(ours)), ours.shape[1]), 2)
    crossing = Crossing(models, None if prompts is None else np.tile(np.tile(prompts, len(ours)), 2))
    names = [f"m{i:03d}" for i in range(len(ours))]
    return paired(metric, ours.ravel(), theirs.ravel(), crossing, names, resamples=200, seed=1)


def test_the_difference_has_the_variance_of_differences() -> None:
    rng = np.random.default_rng(3)
    base = rng.random((9, 6))
    ours, theirs = np.round(0.5 * base + 0.5 * rng.random((9, 6)), 1), np.round(base, 1)
    found = compared(ours, theirs, None)
    by_model = ours.mean(axis=1) - theirs.mean(axis=1)
    spread = Spread(by_model.var(ddof=1) / 9, 8)
    sides = [
        side("recall_at_k", one.ravel(), Spread(one.mean(axis=1).var(ddof=1) / 9, 8), 9)
        for one in (ours, theirs)
    ]
    assert (found.ours, found.theirs) == (pytest.approx(ours.mean()), pytest.approx(theirs.mean()))
    assert found.interval == pytest.approx(intervals.of_difference(*sides, spread))
    flips = sign_flip_test.p_value(by_model, ["m"] * 9, times=1, seed=1).p_value
    tail = intervals.difference_tail(
        found.ours - found.theirs, found.interval, 0.0, above=bool(by_model.mean() > 0)
    )
    assert found.p_value == pytest.approx(max(flips, 2 * tail)) and found.p_error == 0


def test_a_difference_of_few_prompts_is_not_shown_by_many_models() -> None:
    """Ours is better for one prompt of four and alike for the others, in each of 30 models."""
    theirs = np.full((30, 4), 0.5)
    ours = theirs + np.array([0.4, 0.0, 0.0, 0.0]) + 0.01 * np.random.default_rng(1).random((30, 4))
    blind, aware = compared(ours, theirs, None), compared(ours, theirs, np.arange(4))
    assert blind.p_value == pytest.approx(1 / 201) and blind.interval.low > 0
    assert aware.p_value > 0.2 and aware.interval.low < 0
    assert aware.interval.df < 4


@pytest.mark.parametrize(("models", "prompts", "edge"), [(8, 5, 0.1), (30, 2, 0.3), (30, 3, 0.1)])
def test_p_is_below_the_level_only_where_the_interval_excludes_zero(
    models: int, prompts: int, edge: float
) -> None:
    """Also where degrees of freedom are few and not whole, as of few prompts that systems differ by."""
    rng = np.random.default_rng([models, prompts])
    shown = []
    for _ in range(60):
        apart = rng.uniform(0, 3 * edge) + edge * rng.standard_normal(prompts)
        theirs = rng.uniform(0.3, 0.7, (models, prompts))
        ours = np.clip(theirs + apart + 0.1 * rng.standard_normal((models, prompts)), 0, 1)
        found = compared(ours, theirs, np.arange(prompts))
        excludes = found.interval.low > 0 or found.interval.high < 0
        assert excludes or found.p_value >= 0.05 - 1e-9
        shown.append(found.p_value < 0.05)
    assert 0.1 < np.mean(shown) < 0.9  # both kinds are among the samples


@pytest.mark.parametrize("df", [1.0, 1.2, 1.5, 2.7, 6.3])
def test_p_is_the_level_where_the_interval_ends_at_zero(df: float) -> None:
    end = intervals.Interval(0.0, 0.7, df)
    assert 2 * intervals.difference_tail(0.3, end, 0.0, above=True) == pytest.approx(0.05, rel=1e-9)


def test_equal_systems_and_single_models() -> None:
    same = np.random.default_rng(2).random((6, 4))
    found = compared(same, same, np.arange(4))
    assert found.p_value == 1.0 and found.interval.low <= 0 <= found.interval.high
    alone = compared(same[:1], same[:1] / 2, np.arange(4))
    assert alone.ours == pytest.approx(same[0].mean()) and np.isnan([*alone.interval, alone.p_value]).all()


def test_the_median_has_the_interval_of_woodruff() -> None:
    rng = np.random.default_rng(5)
    values, models = rng.integers(1, 500, 120).astype(float), np.repeat(np.arange(10), 12)
    spread = Crossing(models).spread(terms("median_rank", values))
    median = np.median(values)
    shares = np.array([np.mean(values[models == one] <= median) for one in range(10)])
    assert spread.variance == pytest.approx(shares.var(ddof=1) / 10)
    one = side("median_rank", values, spread, 10)
    low, high, _ = intervals.of_share(0.5, spread, 10)
    ordered = np.sort(values)
    expected = [ordered[int(np.ceil(share * 120)) - 1] for share in (low, high)]
    assert list(one.interval(spread.df, None)[:2]) == expected and one.value == median
