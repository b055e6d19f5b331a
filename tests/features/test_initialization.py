"""Starts of training: whitening compared with plain computations, selection by the validation split."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from attrib_core.features.heads import heads
from attrib_core.features.mapper import average_precision, whitening
from attrib_core.features.mapper.exemplar_sets import ExemplarSets
from attrib_core.features.mapper.tuning_data import TuningData
from tests.features.mapper_fixtures import DIM, tuned, tuning_data, unit


def stretched(vectors: np.ndarray) -> np.ndarray:
    """Vectors with one direction of large variance and a mean that are independent of the set."""
    loud = np.zeros(DIM)
    loud[0] = 1
    noise = np.random.default_rng(len(vectors)).normal(size=(len(vectors), 1)) * 8
    return (vectors + noise * loud + 3 * loud[::-1]).astype(np.float32)


def dominated_data() -> TuningData:
    plain = tuning_data(bend=0.0, noise=0.2)
    groups = [
        replace(one, real=stretched(one.real), synth=stretched(one.synth))
        for one in (plain.train, plain.validation)
    ]
    return TuningData(*groups, stretched(plain.distractors), plain.negatives)


def test_whitening_makes_the_pool_isotropic_and_centres_real_and_synthesized_images() -> None:
    given = dominated_data()
    white = whitening.estimate_covariance(given.distractors, given.train, within=False).whitening(1e-9)
    pool = white.real(given.distractors).astype(np.float64)
    covariance = np.cov(pool, rowvar=False, bias=True)
    level = np.trace(np.cov(given.distractors.astype(np.float64), rowvar=False, bias=True)) / DIM
    assert np.allclose(covariance, level * np.eye(DIM), rtol=1e-3, atol=1e-3 * level)
    assert np.allclose(pool.mean(axis=0), 0, atol=1e-3)
    synth = white.synth(given.train.synth)
    means = [synth[given.train.synth_set == number].mean(axis=0) for number in range(12)]
    assert np.allclose(np.mean(means, axis=0), 0, atol=1e-3)


@pytest.mark.parametrize("within", [False, True])
def test_full_shrinkage_only_centres(within: bool) -> None:
    given = dominated_data()
    white = whitening.estimate_covariance(given.distractors, given.train, within=within).whitening(1.0)
    assert np.allclose(white.matrix, np.eye(DIM), atol=1e-9)


def test_a_head_after_whitening_is_one_linear_head() -> None:
    given = dominated_data()
    white = whitening.estimate_covariance(given.distractors, given.train, within=True).whitening(0.1)
    random = np.random.default_rng(1)
    head = heads.Linear(*(random.normal(size=shape).astype(np.float32) for shape in ((DIM, DIM), (DIM,))))
    expected = white.synth(given.train.synth).astype(np.float64) @ head.weight.T + head.bias
    joined = white.compose(head, white.synth_mean)
    mapped = heads.apply(given.train.synth, joined)
    assert np.allclose(mapped, unit(expected), atol=1e-5)


def test_the_whitened_start_is_selected_where_one_direction_dominates() -> None:
    given = dominated_data()
    result = tuned(given, starts=("identity", "whitened"))
    choice = result.choice
    assert choice["start"] == "whitened" and choice["gain"] > 0.2 and not choice["identity_is_best"]
    assert {row["start"] for row in result.curve} == {"identity", "whitened"}
    sets_, pool = given.validation, result.heads.real(given.distractors)
    again = average_precision.mean_average_precisions(
        sets_, result.heads.real(sets_.real), result.heads.synth(sets_.synth), pool
    )
    assert float(again.mean()) == pytest.approx(choice["validation_mean_average_precision"], abs=0.02)


def test_the_identity_is_a_candidate_even_where_training_starts_elsewhere() -> None:
    result = tuned(tuning_data(), starts=("whitened",))
    identity = [row for row in result.curve if row["start"] == "identity"]
    assert [row["epoch"] for row in identity] == [0]
    assert result.choice["untuned_validation_mean_average_precision"] == pytest.approx(
        identity[0]["validation_mean_average_precision"]
    )


def test_within_set_whitening_against_a_plain_computation() -> None:
    given = dominated_data()
    train, mean = given.train, given.distractors.astype(np.float64).mean(axis=0)
    synth_mean = np.mean(
        [train.synth[train.synth_set == number].astype(np.float64).mean(axis=0) for number in range(12)],
        axis=0,
    )
    inside = np.zeros((DIM, DIM))
    for number in range(12):
        pairs = [
            ((s - synth_mean) - (r - mean))
            for s in train.synth[train.synth_set == number].astype(np.float64)
            for r in train.real[train.real_set == number].astype(np.float64)
        ]
        inside += sum(np.outer(pair, pair) for pair in pairs) / len(pairs) / 12
    pool = np.cov(given.distractors.astype(np.float64), rowvar=False, bias=True)
    whole = 0.1 * pool + 0.9 * inside * np.trace(pool) / np.trace(inside)
    level = np.trace(pool) / DIM
    shrunk = 0.8 * whole + 0.2 * level * np.eye(DIM)
    white = whitening.estimate_covariance(given.distractors, train, within=True).whitening(0.2)
    assert np.allclose(white.matrix @ shrunk @ white.matrix, level * np.eye(DIM), atol=1e-6 * level)
    assert np.allclose(white.real_mean, mean) and np.allclose(white.synth_mean, synth_mean)


def mixed_data() -> TuningData:
    """Queries differ from their exemplars in some directions in which the pool varies little."""
    plain = tuning_data(bend=0.0, noise=0.05)
    along = np.zeros(DIM)
    along[:4] = 3.0

    def moved(one: ExemplarSets, seed: int) -> ExemplarSets:
        noise = np.random.default_rng(seed).normal(size=one.synth.shape) * along
        return replace(one, synth=(one.synth + noise).astype(np.float32))

    return TuningData(moved(plain.train, 1), moved(plain.validation, 2), plain.distractors, plain.negatives)


def test_the_within_start_is_selected_where_sets_vary_in_directions_of_little_variance() -> None:
    result = tuned(mixed_data(), starts=("identity", "whitened", "within"), shrinkages=(0.02, 0.5))
    first = {
        (row["start"], row["shrinkage"]): row["validation_mean_average_precision"]
        for row in result.curve
        if row["penalty"] is None
    }
    assert set(first) == {("identity", None), *itertools.product(("whitened", "within"), (0.02, 0.5))}
    assert first["within", 0.02] > max(first["identity", None], first["whitened", 0.02]) + 0.2
    assert result.choice["start"] == "within" and result.choice["shrinkage"] == 0.02
    assert {row["start"] for row in result.curve if row["penalty"]} == {"within"}


def test_the_order_of_starts_and_shrinkages_changes_nothing() -> None:
    given = mixed_data()
    first = tuned(given, starts=("whitened", "within"), shrinkages=(0.1, 0.5))
    second = tuned(given, starts=("within", "whitened", "within"), shrinkages=(0.5, 0.1))
    assert first.choice == second.choice and first.curve == second.curve
