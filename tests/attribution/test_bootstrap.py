"""The bootstrap over models against plain loops, and its coverage."""

from __future__ import annotations

import numpy as np
import pytest

from attrib_core.attribution.metrics import bootstrap


def test_the_bootstrap_equals_a_loop_over_models() -> None:
    """Models of one to sixty-seven queries, equal values among them: every resample written out."""
    rng = np.random.default_rng(8)
    sizes = [1, 67, 5, 5, 12, 1]
    sets = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    values = rng.integers(4, size=len(sets)) / 3
    draws = bootstrap.resamples([f"m{i}" for i in range(len(sizes))], 300, 2)
    assert (draws.sum(axis=1) == len(sizes)).all()
    expected = []
    for counts in draws:
        chosen = [
            value
            for model, times in enumerate(counts)
            for _ in range(times)
            for value in values[sets == model]
        ]
        expected.append(sum(chosen) / len(chosen))
    means = bootstrap.means(bootstrap.Sample(values, sets), draws)
    np.testing.assert_allclose(means, expected, atol=1e-13)
    ordered = sorted(expected)
    for found, share in zip(bootstrap.interval(means), (0.025, 0.975), strict=True):
        place = share * (len(ordered) - 1)
        low, part = int(place), place - int(place)
        assert found == pytest.approx(ordered[low] + part * (ordered[low + 1] - ordered[low]), abs=1e-12)
    shifted = means - float(np.median(means)) - 0.01
    below, above = sum(value <= 0 for value in shifted), sum(value >= 0 for value in shifted)
    assert bootstrap.p_value(shifted) == pytest.approx(min(1, 2 * (min(below, above) + 1) / 301))


def test_medians_of_resamples_equal_numpy() -> None:
    rng = np.random.default_rng(8)
    sample = bootstrap.Sample(rng.integers(1, 50, size=60).astype(float), rng.integers(6, size=60))
    draws = bootstrap.resamples(list("abcdef"), 200, 1)
    for draw, median, mean in zip(
        draws, bootstrap.medians(sample, draws), bootstrap.means(sample, draws), strict=True
    ):
        repeated = np.repeat(sample.values, draw[sample.sets])
        assert median == np.median(repeated) and mean == pytest.approx(repeated.mean())


def test_the_interval_covers_the_true_value_in_95_percent_of_samples() -> None:
    """Queries of one model share its ease, so an interval over queries would be far too narrow."""
    covered = 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        values = (rng.random(40)[:, None] + 0.1 * rng.standard_normal((40, 8))).ravel()
        sample = bootstrap.Sample(values, np.repeat(np.arange(40), 8))
        low, high = bootstrap.interval(
            bootstrap.means(sample, bootstrap.resamples([f"{i}" for i in range(40)], 300, trial))
        )
        covered += low <= 0.5 <= high
    assert 0.87 <= covered / 100 <= 1.0


def test_p_values_of_no_difference_are_uniform() -> None:
    values = []
    for trial in range(200):
        differences = np.random.default_rng(trial).standard_normal(30)
        draws = bootstrap.resamples([f"{i:02d}" for i in range(30)], 300, trial)
        values.append(bootstrap.p_value(bootstrap.means(bootstrap.Sample(differences, np.arange(30)), draws)))
    assert 0.01 <= np.mean(np.array(values) < 0.05) <= 0.12
    assert 0.4 <= np.mean(np.array(values) < 0.5) <= 0.6
