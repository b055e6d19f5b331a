"""P-values of the sign-flip test against a loop, SciPy and simulations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from attrib_core.attribution.metrics import sign_flip_test


def names(models: int) -> list[str]:
    return [f"m{number:03d}" for number in range(models)]


@pytest.mark.parametrize("models", [1, 2, 5, 9, sign_flip_test.EXACT])
def test_exact_p_values_equal_a_loop_and_scipy(models: int) -> None:
    differences = np.random.default_rng(models).normal(0.4, 1.0, models)
    seen = abs(differences.sum())
    sums = [
        abs(sum(map(float.__mul__, flips, differences.tolist())))
        for flips in itertools.product([1.0, -1.0], repeat=models)
    ]
    found, error = sign_flip_test.p_value(differences, names(models), times=10, seed=1)
    assert error == 0
    assert found == pytest.approx(np.mean([one >= seen - 1e-9 for one in sums]))
    if models > 1:
        known = stats.permutation_test(
            (differences, np.zeros(models)), lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples", vectorized=True, n_resamples=np.inf,
        )  # fmt: skip
        assert found == pytest.approx(known.pvalue)


def test_models_that_agree_reach_the_smallest_p_and_equal_sums_count() -> None:
    for models in (2, 5, 6):
        assert (
            sign_flip_test.p_value(np.full(models, 0.1), names(models), times=1, seed=1)[0] == 2 / 2**models
        )
    assert sign_flip_test.p_value(np.zeros(5), names(5), times=1, seed=1) == (1.0, 0.0)


@pytest.mark.parametrize("models", [5, 8, 14, 40])
def test_the_level_is_kept_for_few_models(models: int) -> None:
    """Without a difference, p is below 0.05 in at most 5 % of samples, up to chance."""
    generator = np.random.default_rng(3)
    found = [
        sign_flip_test.p_value(generator.normal(size=models), names(models), times=400, seed=1).p_value
        for _ in range(400)
    ]
    assert np.mean(np.array(found) < 0.05) <= 0.08
    if models > 5:
        assert np.mean(np.array(found) < 0.05) >= 0.02


def test_random_signs_approximate_all_signs_and_depend_on_the_seed() -> None:
    models = sign_flip_test.EXACT + 3
    differences = np.random.default_rng(5).normal(0.3, 1.0, models)
    sums = np.abs(sign_flip_test._all_signs(models) @ differences)
    exact = np.mean(sums >= abs(differences.sum()) - 1e-9)
    found = [
        sign_flip_test.p_value(differences, names(models), times=20_000, seed=seed) for seed in (1, 1, 2)
    ]
    assert found[0] == found[1] != found[2]
    assert found[0].p_value == pytest.approx(exact, abs=4 * found[0].error)
    assert found[0].error == pytest.approx((exact * (1 - exact) / 20_000) ** 0.5, rel=0.1)


def test_contributions_sum_to_the_difference_of_means() -> None:
    generator = np.random.default_rng(7)
    our_sets, their_sets = np.repeat(np.arange(4), [1, 5, 2, 3]), np.repeat(np.arange(4), 2)
    ours, theirs = generator.random(11), generator.random(8)
    added = sign_flip_test.mean_contributions(ours, our_sets, theirs, their_sets, 4)
    assert added.sum() == pytest.approx(ours.mean() - theirs.mean())
    medians = sign_flip_test.median_differences(ours, our_sets, theirs, their_sets, 4)
    assert medians[1] == pytest.approx(np.median(ours[1:6]) - np.median(theirs[2:4]))
