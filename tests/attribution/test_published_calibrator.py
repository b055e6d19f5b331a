"""The published calibrator and its two fits against sums over whole pools, SciPy, and known parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from attrib_core.attribution.calibration import published_fit, whole_pool_fit
from attrib_core.attribution.calibration.calibration_metrics import CalibrationMetrics
from attrib_core.attribution.calibration.published_form import PublishedCalibrator
from attrib_core.attribution.calibration.scoring_rules import negative_log_likelihood
from attrib_core.attribution.calibration.similarities import SimilarityBatch
from tests.attribution.calibration_fixtures import (
    HISTOGRAM_ERROR,
    Case,
    all_cosines,
    batches,
    case_of,
    published_shares,
    single_query_batch,
)

FORMULAS = [
    PublishedCalibrator(0.02, 0.0),
    PublishedCalibrator(0.05, 1e-6),
    PublishedCalibrator(0.1, 1e-3),
    PublishedCalibrator(0.3, 0.02),
]


@pytest.mark.parametrize("calibrator", FORMULAS)
def test_likelihood_equals_a_float64_sum_over_the_whole_pool(
    case: Case, calibrator: PublishedCalibrator
) -> None:
    errors = []
    for one in batches(case):
        found = negative_log_likelihood(one, calibrator.shares(one))
        for query, value in zip(one.queries, found, strict=True):
            own, others = all_cosines(case, query)
            errors.append(value + np.log(published_shares(own, others, *calibrator)[: len(own)]).mean())
    assert np.abs(errors).max() < HISTOGRAM_ERROR and abs(np.mean(errors)) < HISTOGRAM_ERROR / 5


@pytest.mark.parametrize("calibrator", [*FORMULAS, PublishedCalibrator(0.1, -0.05)])
def test_shares_sum_to_one(case: Case, calibrator: PublishedCalibrator) -> None:
    for one in batches(case):
        np.testing.assert_allclose(one.total(one.count * calibrator.shares(one)), 1.0)


def test_a_negative_bias_gives_some_exemplars_no_influence_and_infinite_loss(case: Case) -> None:
    calibrator = PublishedCalibrator(0.05, -0.3)
    (one,) = batches(case)
    share = calibrator.shares(one)
    kept = np.exp(one.gap / 0.05) > 0.3
    assert np.array_equal(share > 0, kept) and 0 < kept.sum() < len(kept)
    lost = one.total(~kept[: one.exemplars], slice(0, one.exemplars)) > 0
    assert lost.any() and np.array_equal(np.isinf(negative_log_likelihood(one, calibrator.shares(one))), lost)


def test_the_fit_is_the_minimum_that_scipy_finds_on_the_whole_pool(case: Case) -> None:
    pieces = [
        (own, others)
        for one in batches(case)
        for own, others in [all_cosines(case, query) for query in one.queries]
    ]

    def loss(x: np.ndarray) -> float:
        shares = [(published_shares(own, others, *np.exp(x)), len(own)) for own, others in pieces]
        return float(np.mean([-np.log(share[:n]).mean() for share, n in shares]))

    best = min(
        (minimize(loss, start, method="Nelder-Mead") for start in np.log([(0.03, 1e-6), (0.2, 1e-2)])),
        key=lambda result: result.fun,
    )
    fitted = whole_pool_fit.fit(batches(case))
    assert fitted.negative_log_likelihood == pytest.approx(best.fun, abs=1e-4)
    assert fitted.negative_log_likelihood == pytest.approx(loss(np.log(fitted.calibrator)), abs=1e-4)
    assert fitted.calibrator.tau == pytest.approx(np.exp(best.x[0]), rel=0.02)
    uniform = np.mean([np.log(len(own) + len(others)) for own, others in pieces])
    assert fitted.negative_log_likelihood < uniform


@pytest.mark.parametrize(("tau", "bias"), [(0.05, 1e-3), (0.15, 0.02), (0.03, 1e-4)])
def test_the_fit_recovers_the_parameters_that_generated_the_data(tau: float, bias: float) -> None:
    rng = np.random.default_rng(9)
    queries, candidates = 600, 500
    similarity = np.sort(rng.normal(0.2, 0.15, (queries, candidates)))[:, ::-1]
    drawn = np.array(
        [rng.choice(candidates, p=published_shares(row, row[:0], tau, bias)) for row in similarity]
    )
    own = np.arange(queries), drawn
    others = np.ones(similarity.shape, bool)
    others[own] = False
    everything = np.concatenate([similarity[own], similarity[others]])
    query = np.concatenate([np.arange(queries), np.repeat(np.arange(queries), candidates - 1)])
    drawn_batch = SimilarityBatch(
        queries=[f"q{i}" for i in range(queries)],
        kinds=["object"] * queries,
        sets=[f"s{i}" for i in range(queries)],
        query=query,
        similarity=everything,
        gap=everything - similarity[:, 0][query],
        count=np.ones(len(everything)),
        exemplars=queries,
        top=len(everything) - queries,
        ids=[""] * len(everything),
        distractors_above=drawn,
        siblings_above=np.zeros(queries, int),
    )
    fitted = whole_pool_fit.fit([drawn_batch])
    true = negative_log_likelihood(drawn_batch, PublishedCalibrator(tau, bias).shares(drawn_batch)).mean()
    # Twice the gain over the true values is chi-squared with two degrees of freedom: 99 % below 9.21.
    assert 0 <= 2 * queries * (true - fitted.negative_log_likelihood) <= 9.21
    assert fitted.calibrator.tau == pytest.approx(tau, rel=0.2)
    assert np.log10(fitted.calibrator.bias) == pytest.approx(np.log10(bias), abs=0.3)


def test_a_small_top_k_changes_the_likelihood_little(case: Case, tmp_path: Path) -> None:
    few = case_of(tmp_path, case.world, top_k=1)
    for calibrator in FORMULAS:
        for fine, coarse in zip(batches(case), batches(few), strict=True):
            np.testing.assert_allclose(
                negative_log_likelihood(fine, calibrator.shares(fine)),
                negative_log_likelihood(coarse, calibrator.shares(coarse)),
                atol=1e-4 / calibrator.tau,  # the error of a similarity in the histogram, in units of tau
            )


def test_the_published_fit_minimizes_the_published_loss(second_case: Case) -> None:
    parts = batches(second_case)
    trained = published_fit.fit(parts)

    def loss(x: np.ndarray) -> float:
        total = []
        for one in parts:
            for number in range(len(one.queries)):  # a query at a time, written as the loss reads
                singles = slice(0, one.exemplars + one.top)
                mine = one.query[singles] == number
                s = one.similarity[singles][mine]
                u = np.exp((s - s.max()) / np.exp(np.clip(x[0], -7, 0)))
                w = np.logaddexp(0, 100 * (u + np.clip(x[1], -1, 10))) / 100
                n = int(one.n_exemplars()[number])
                total.append(np.log(w.sum()) - np.log(w[:n]).mean())
        return float(np.mean(total))

    found = loss(np.array([np.log(trained.tau), trained.bias]))
    starts = [(-4.0, -0.05), (-3.0, 0.0), (-2.0, 0.1), (-3.0, -0.3)]
    best = min((minimize(loss, x, method="Nelder-Mead") for x in starts), key=lambda r: r.fun)
    assert found <= best.fun + 1e-3


def test_the_published_calibrator_has_no_none_and_its_relu_makes_exemplars_impossible() -> None:
    form = PublishedCalibrator(0.02, -0.2)
    one = single_query_batch(np.array([0.3]), np.array([0.9, 0.1]))
    metrics = CalibrationMetrics(form, shown=2, absent_share=0.5)
    metrics.add(one)
    found = {row["metric"]: row["value"] for row in metrics.rows() if row["kind"] == "all"}
    assert found["negative_log_likelihood"] == found["mixture_negative_log_likelihood"] == np.inf
    assert found["impossible"] == 1 and found["none_said_held_out"] == found["none_mass"] == 0
