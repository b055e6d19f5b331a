"""The pool-aware calibrator and its fit against sums over whole pools, SciPy, and known parameters."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logsumexp, softmax

from attrib_core.attribution.calibration import pool_aware, pool_aware_fit
from attrib_core.attribution.calibration.pool_aware import Parameters, PoolAware, log_mean_exp
from attrib_core.attribution.calibration.published_form import PublishedCalibrator
from attrib_core.attribution.calibration.scoring_rules import negative_log_likelihood
from attrib_core.attribution.calibration.similarities import SimilarityBatch
from attrib_core.attribution.calibration.subsampling import hold_out_exemplars, select_queries
from tests.attribution.calibration_fixtures import (
    HISTOGRAM_ERROR,
    Case,
    all_cosines,
    batches,
    pool_aware_shares,
    single_query_batch,
)

SETTINGS = [Parameters(0.3, 0.05, 1.0, 0.8), Parameters(0.8, 0.3, 3.0, 1.2)]


@pytest.mark.parametrize("size", [1000, 100_000, 1_000_000])
@pytest.mark.parametrize("parameters", SETTINGS)
def test_likelihood_equals_a_float64_sum_over_pools_of_any_size(size: int, parameters: Parameters) -> None:
    rng = np.random.default_rng(size)
    own, others = rng.normal(0.35, 0.1, 4), rng.normal(0.1, 0.08, size)
    one, form = single_query_batch(own, others), PoolAware({"object": parameters}, 0.3)
    share, none = pool_aware_shares(own, others, parameters, 0.3)
    found = negative_log_likelihood(one, form.shares(one))[0]
    assert found == pytest.approx(-np.log(share[:4]).mean(), abs=1e-4)
    assert np.log(form.none_mass(one)[0]) == pytest.approx(np.log(none), abs=1e-3)
    assert one.total(one.count * form.shares(one))[0] == pytest.approx(1.0)
    published_form = PublishedCalibrator(0.05, 1e-4)
    s = np.concatenate([own, others])
    weight = np.maximum(np.exp((s - s.max()) / 0.05) + 1e-4, 0)
    expected = -np.log(weight[:4] / weight.sum()).mean()
    assert negative_log_likelihood(one, published_form.shares(one))[0] == pytest.approx(expected, abs=1e-4)


def all_of(second_case: Case) -> tuple[list[tuple[np.ndarray, np.ndarray]], int]:
    parts = batches(second_case)
    return [all_cosines(second_case, name) for one in parts for name in one.queries], len(
        {n for p in parts for n in p.sets}
    )


def test_tau_and_floor_are_the_optimum_that_scipy_finds_on_the_whole_pool(second_case: Case) -> None:
    pieces, models = all_of(second_case)
    standard = [((s - s.mean()) / s.std(), len(own)) for own, o in pieces for s in [np.concatenate([own, o])]]

    def loss(x: np.ndarray) -> float:
        losses = [
            -np.log((1 - expit(x[1])) * softmax(z / np.exp(x[0])) + expit(x[1]) / len(z))[:n].mean()
            for z, n in standard
        ]
        prior = ((x[0] - np.log(0.6)) / 0.5) ** 2 + ((x[1] + 2.0) / 1.5) ** 2
        return float(np.mean(losses) + prior / 2 / models)

    best = min((minimize(loss, x, method="Nelder-Mead") for x in [(-0.5, -2), (0.3, 0)]), key=lambda r: r.fun)
    tau, floor = pool_aware_fit.fit_shares(batches(second_case))
    assert loss(np.array([np.log(tau), np.log(floor / (1 - floor))])) == pytest.approx(best.fun, abs=1e-5)
    assert np.log(tau) == pytest.approx(best.x[0], abs=0.02)


def test_level_and_slope_are_the_logistic_regression_that_scipy_finds(second_case: Case) -> None:
    parts = batches(second_case)
    pieces, models = all_of(second_case)
    tau = 0.5
    level, slope = pool_aware_fit.fit_none_mass(parts, tau)

    def standing_out(s: np.ndarray) -> float:
        return float(logsumexp((s - s.mean()) / s.std() / tau) - np.log(len(s)))

    present = np.array([standing_out(np.concatenate(piece)) for piece in pieces])
    absent = np.array([standing_out(others) for _, others in pieces])
    found = np.concatenate([log_mean_exp(one, np.full(len(one.queries), tau)) for one in parts])
    np.testing.assert_allclose(found, present, atol=HISTOGRAM_ERROR)

    def loss(x: np.ndarray) -> float:
        logit = [x[0] - x[1] * present, x[1] * absent - x[0]]
        return float(
            np.logaddexp(0, np.concatenate(logit)).mean() + ((x[0] / 5) ** 2 + (x[1] - 1) ** 2) / 2 / models
        )

    best = minimize(loss, [0.0, 1.0])
    np.testing.assert_allclose([level, slope], best.x, atol=2e-3)


def test_a_larger_pool_changes_neither_deviation_nor_floor() -> None:
    rng = np.random.default_rng(5)
    others = rng.normal(0.1, 0.08, 400_000)
    small, large = (
        single_query_batch(np.array([0.5]), others[:4000]),
        single_query_batch(np.array([0.5]), others),
    )
    assert pool_aware.standard_deviations(small) == pytest.approx(
        pool_aware.standard_deviations(large), rel=0.03
    )
    form = PoolAware({"object": Parameters(0.5, 0.1, 0.0, 1.0)}, 0.5)
    for one in (small, large):  # the floor has the same share whatever the pool's size
        floor = form.shares(one) - 0.9 * pool_aware.standardized_softmax(one, np.array([0.5]))
        assert one.total(one.count * floor)[0] == pytest.approx(0.1)


def test_none_rises_without_exemplars_and_with_the_assumed_share() -> None:
    rng = np.random.default_rng(6)
    one = single_query_batch(np.array([0.6]), rng.normal(0.1, 0.08, 5000))
    without = hold_out_exemplars(one)
    assert without.exemplars == 0 and without.total(without.count)[0] == 5000 and without.gap.max() == 0
    masses = [
        PoolAware({"object": Parameters(0.5, 0.1, 2.0, 1.0)}, absent).none_mass(piece)[0]
        for absent in (0.2, 0.8)
        for piece in (one, without)
    ]
    assert masses[0] < masses[1] and masses[2] < masses[3] and masses[0] < masses[2]


def test_the_fit_does_not_depend_on_batches(second_case: Case) -> None:
    (one,) = batches(second_case)
    halves = [select_queries(one, np.arange(len(one.queries)) % 2 == side) for side in (0, 1)]
    whole, parts = (pool_aware_fit.fit(given, 0.5) for given in ([one], halves))
    for kind, parameters in whole.calibrator.kinds.items():
        np.testing.assert_allclose(parameters, parts.calibrator.kinds[kind], rtol=1e-6)
    assert whole.together == pytest.approx(parts.together)


def test_kinds_have_separate_parameters_where_left_out_models_are_predicted_better() -> None:
    rng = np.random.default_rng(8)

    def some(kind: str, name: str, shift: float) -> list[SimilarityBatch]:
        found = []
        for _ in range(3):
            others = rng.normal(0, 0.1, 100)
            one = single_query_batch(rng.normal(shift, 0.03, 1), others)
            found.append(
                SimilarityBatch(
                    **{**one.__dict__, "kinds": [kind], "sets": [name], "queries": [f"{name}{len(found)}"]}
                )
            )
        return found

    apart = [
        e
        for i in range(3)
        for k, shift in (("object", 0.45), ("style", 0.05))
        for e in some(k, f"{k}{i}", shift)
    ]
    fitted = pool_aware_fit.fit(apart, 0.5)
    assert fitted.apart is not None and fitted.together is not None and fitted.apart < fitted.together
    assert fitted.calibrator.kinds["object"].tau < fitted.calibrator.kinds["style"].tau
    alike = [e for i in range(3) for k in ("object", "style") for e in some(k, f"{k}{i}", 0.3)]
    fitted = pool_aware_fit.fit(alike, 0.5)
    assert (
        fitted.calibrator.kinds["object"] == fitted.calibrator.kinds["style"]
        or fitted.apart < fitted.together
    )


def test_shares_without_a_floor_are_a_softmax() -> None:
    rng = np.random.default_rng(9)
    own, others = rng.normal(0.3, 0.1, 2), rng.normal(0.1, 0.1, 50)
    one = single_query_batch(own, others)
    s = np.concatenate([own, others])
    share = PoolAware({"object": Parameters(0.7, 0.0, 0.0, 1.0)}, 0.5).shares(one)[:2]
    np.testing.assert_allclose(np.log(share), log_softmax((s - s.mean()) / s.std() / 0.7)[:2])
