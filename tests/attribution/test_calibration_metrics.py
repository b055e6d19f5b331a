"""Metrics of displayed influence written out over whole pools; "none of these" by counts of pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from attrib_core.attribution.calibration.calibration_errors import area_under_curve
from attrib_core.attribution.calibration.calibration_metrics import LEVELS, CalibrationMetrics
from attrib_core.attribution.calibration.pool_aware import Parameters, PoolAware
from attrib_core.attribution.calibration.published_form import PublishedCalibrator
from attrib_core.attribution.calibration.scoring_rules import EDGES
from attrib_core.attribution.calibration.soft_scores import soft_scores
from attrib_core.common import intervals
from attrib_core.common.crossing import Crossing, Spread
from tests.attribution.calibration_fixtures import (
    Case,
    all_cosines,
    batches,
    pool_aware_shares,
    single_query_batch,
)

ABSENT = 0.3


PARAMETERS = Parameters(0.4, 0.1, 2.0, 1.0)


def rows_of(metrics: CalibrationMetrics, kind: str = "all") -> dict[str, dict]:
    return {row["metric"]: row for row in metrics.rows() if row["kind"] == kind}


def test_metrics_of_displayed_influence_equal_sums_over_the_whole_pool() -> None:
    rng = np.random.default_rng(4)
    metrics = CalibrationMetrics(PoolAware({"object": PARAMETERS}, ABSENT), shown=5, absent_share=ABSENT)
    brier, counts = [], np.zeros((4, 14))  # predicted and true influence, then those of none
    candidates = np.zeros(14)
    for number in range(12):
        own, others = rng.normal(0.4, 0.1, 1 + number % 3), rng.normal(0.1, 0.1, 600)
        metrics.add(single_query_batch(own, others, top=50, bins=200_000))
        for weight, exemplars in ((1 - ABSENT, own), (ABSENT, own[:0])):
            share, none = pool_aware_shares(exemplars, others, PARAMETERS, ABSENT)
            displayed = share * (1 - none)
            truth = np.zeros(len(share))
            truth[: len(exemplars)] = 1 / max(1, len(exemplars))
            absent = float(len(exemplars) == 0)
            brier.append(weight * (((displayed - truth) ** 2).sum() + (none - absent) ** 2))
            place = np.digitize(displayed, EDGES[1:-1])
            candidates += weight * np.bincount(place, minlength=14)
            counts[0] += weight * np.bincount(place, displayed, 14)
            counts[1] += weight * np.bincount(place, truth, 14)
            bin_of_none = int(np.digitize(none, EDGES[1:-1]))
            counts[2:, bin_of_none] += weight * np.array([none, absent])
    found = rows_of(metrics)
    assert found["mixture_brier"]["value"] == pytest.approx(sum(brier) / 12, abs=1e-6)
    error = np.abs(counts[0] - counts[1]).sum() + np.abs(counts[2] - counts[3]).sum()
    assert found["mixture_expected_calibration_error"]["value"] == pytest.approx(error / 2 / 12, abs=1e-4)
    rows = [row for row in metrics.reliability_rows() if row["judged"] == "displayed"]
    filled = candidates > 0
    assert [row["mean_influence"] is not None for row in rows] == filled.tolist()
    np.testing.assert_allclose([row["n_candidates"] for row in rows], candidates, atol=1)
    for name, values in (("mean_influence", counts[0]), ("exemplar_share", counts[1])):
        np.testing.assert_allclose(
            [row[name] for row in rows if row[name] is not None], (values / np.maximum(candidates, 1e-9))[filled],
            rtol=2e-3, atol=1e-9,
        )  # fmt: skip


def test_the_excess_is_a_mean_over_candidates_with_an_interval_over_models() -> None:
    rng = np.random.default_rng(6)
    metrics = CalibrationMetrics(PoolAware({"object": PARAMETERS}, ABSENT), shown=5, absent_share=ABSENT)
    given: dict[str, list[np.ndarray]] = {}
    for number in range(18):
        name = f"model-{number % 6}"
        own = rng.normal(0.1 if number % 6 == 5 else 0.5, 0.05, 2)  # those of one model are like distractors
        others = rng.normal(0.1, 0.1, 300)
        metrics.add(replace(single_query_batch(own, others, top=80, bins=200_000), sets=[name]))
        for weight, exemplars in ((1 - ABSENT, own), (ABSENT, own[:0])):
            share, none = pool_aware_shares(exemplars, others, PARAMETERS, ABSENT)
            truth = np.r_[np.full(len(exemplars), 0.5), np.zeros(300)]
            given.setdefault(name, []).append(
                np.stack([np.full(len(share), weight), share * (1 - none), truth])
            )
    sets = {name: np.hstack(parts) for name, parts in given.items()}
    found, names = rows_of(metrics), sorted(sets)
    assert LEVELS == (0.1, 0.01, 0.001)
    for level in LEVELS:
        row, high = found[f"displayed_excess_at_{level:g}"], []
        for name in names:
            weight, displayed, true = sets[name][:, sets[name][1] >= level]
            if len(weight):
                high.append([weight.sum(), weight @ displayed, weight @ true])
        sums = np.array(high)
        n, means = len(sums), sums.sum(axis=0)[1:] / sums[:, 0].sum()
        assert (row["n_models"], row["n_queries"]) == (n, 3 * n)
        assert row["value"] == pytest.approx(means[0] - means[1], abs=1e-4)
        errors = (sums[:, 1:] - sums[:, :1] * means) / sums[:, 0].sum()  # of a ratio of two sums
        errors = np.column_stack([errors, errors[:, 0] - errors[:, 1]])
        spreads = [Spread(float(v), n - 1) for v in (errors**2).sum(axis=0) * n / (n - 1)]
        sides = [
            intervals.share_side(value, spread, n)
            for value, spread in zip(means.tolist(), spreads, strict=False)
        ]
        expected = intervals.of_difference(*sides, spreads[2])
        assert (row["ci_low"], row["ci_high"], row["df"]) == pytest.approx(expected, abs=1e-3)
        assert row["ci_low"] < row["value"] < row["ci_high"]


def test_queries_of_a_prompt_are_not_independent() -> None:
    """Names as synthesis gives them tell prompts; other names do not, and each query is by itself."""
    rng = np.random.default_rng(8)
    with_prompts, without = (
        CalibrationMetrics(PoolAware({"object": PARAMETERS}, ABSENT), shown=5, absent_share=ABSENT)
        for _ in range(2)
    )
    cells, values = [], []
    for model in range(6):
        for prompt in range(5):
            own, others = rng.normal(0.25 + 0.05 * prompt, 0.05, 1), rng.normal(0.1, 0.1, 300)
            batch = single_query_batch(own, others, top=80, bins=200_000)
            name = f"m{model}"
            with_prompts.add(replace(batch, sets=[name], queries=[f"{name}.customized.scene-{prompt}.0"]))
            without.add(replace(batch, sets=[name]))
            cells.append((model, prompt))
            values.append(pool_aware_shares(own, others, PARAMETERS, ABSENT)[0][0])
    models, prompts = np.array(cells).T
    exact = np.array(values)
    for metrics, crossing in ((with_prompts, Crossing(models, prompts)), (without, Crossing(models))):
        row = rows_of(metrics)["exemplar_mass"]
        spread = crossing.spread((exact - exact.mean()) / len(exact))
        expected = intervals.of_share(float(exact.mean()), spread, 6)
        assert (row["ci_low"], row["ci_high"], row["df"]) == pytest.approx(expected, abs=1e-4)
    for name, row in rows_of(with_prompts).items():
        assert row["value"] == pytest.approx(rows_of(without)[name]["value"])


def test_infinite_likelihoods_have_no_interval() -> None:
    metrics = CalibrationMetrics(PublishedCalibrator(0.05, -0.5), shown=2, absent_share=0.5)
    for name, own in (("a", 0.9), ("b", 0.1)):
        metrics.add(replace(single_query_batch(np.array([own]), np.array([0.8, 0.85])), sets=[name]))
    row = rows_of(metrics)["negative_log_likelihood"]
    assert np.isinf(row["value"]) and np.isnan([row["ci_low"], row["ci_high"]]).all()
    assert rows_of(metrics)["impossible"]["value"] == 0.5


def test_an_excess_of_one_model_has_no_interval_and_of_no_model_no_row() -> None:
    calibrator = PoolAware({"object": PARAMETERS}, ABSENT)
    metrics = CalibrationMetrics(calibrator, shown=5, absent_share=ABSENT)
    rng = np.random.default_rng(0)
    others = rng.uniform(-0.1, 0.1, 5000)
    metrics.add(replace(single_query_batch(np.array([0.9]), others), sets=["clear"]))
    metrics.add(replace(single_query_batch(np.array([0.0]), others), sets=["lost"]))
    found = rows_of(metrics)
    assert found["displayed_excess_at_0.1"]["n_models"] == 1
    assert np.isnan(found["displayed_excess_at_0.1"]["ci_low"])
    metrics = CalibrationMetrics(calibrator, shown=5, absent_share=ABSENT)
    metrics.add(replace(single_query_batch(np.array([0.0]), others), sets=["lost"]))
    assert "displayed_excess_at_0.1" not in rows_of(metrics)


def test_reliability_of_displayed_influence_is_that_of_soft_scores(case: Case) -> None:
    calibrator = PoolAware(dict.fromkeys(("object", "style"), PARAMETERS), 0.5)
    metrics = CalibrationMetrics(calibrator, shown=1500, absent_share=1e-12)
    rows = []
    for one in batches(case, "test"):
        metrics.add(one)
        rows += soft_scores(one, calibrator, shown=1500, encoder="e", mapper="m").to_pylist()
    shown = np.array([row["influence"] for row in rows])
    exemplars = {query: len(all_cosines(case, query)[0]) for query in {row["query_id"] for row in rows}}
    truth = np.array([row["is_exemplar"] / exemplars[row["query_id"]] for row in rows])
    assert min(row["none"] for row in rows) > 0.01  # displayed influence differs from shares
    bins = [row for row in metrics.reliability_rows() if row["judged"] == "displayed"]
    place = np.digitize(shown, EDGES[1:-1])
    assert (place >= 4).sum() > 20
    for number in range(4, 14):  # no candidate outside of soft_scores has 1 %
        own = place == number
        assert bins[number]["n_candidates"] == np.count_nonzero(own)
        if own.any():
            assert bins[number]["mean_influence"] == pytest.approx(shown[own].mean(), rel=1e-6)
            assert bins[number]["exemplar_share"] == pytest.approx(truth[own].mean(), rel=1e-6)


def test_a_calibrator_without_none_is_penalized_for_queries_without_sources() -> None:
    metrics = CalibrationMetrics(PublishedCalibrator(0.05, 0.0), shown=2, absent_share=0.5)
    # right with the exemplar in the pool
    metrics.add(single_query_batch(np.array([0.99]), np.array([0.2, 0.1])))
    found = rows_of(metrics)
    assert found["expected_calibration_error"]["value"] < 1e-3
    assert found["mixture_expected_calibration_error"]["value"] == pytest.approx(0.5, abs=1e-3)
    assert found["none_auc"]["value"] == 0.5


def test_auc_equals_scikit_learn_and_its_variance_delong() -> None:
    rng = np.random.default_rng(2)
    lower, upper = np.round(rng.normal(0, 1, 90), 1), np.round(rng.normal(0.6, 1, 90), 1)  # with ties
    truth, value = np.repeat([0, 1], 90), np.concatenate([lower, upper])
    error = area_under_curve(lower, upper, Crossing(np.arange(90)))
    assert error.value == pytest.approx(roc_auc_score(truth, value), abs=1e-12)
    wins = np.sign(upper[:, None] - lower) / 2 + 0.5
    both = wins.mean(axis=0) + wins.mean(axis=1)  # a query is one negative and one positive
    spread = Spread(both.var(ddof=1) / 90, 89)
    assert error.interval == pytest.approx(intervals.of_share(error.value, spread, 90))


def test_none_auc_counts_pairs_of_masses() -> None:
    rng = np.random.default_rng(3)
    metrics = CalibrationMetrics(PoolAware({"object": PARAMETERS}, 0.5), shown=5, absent_share=0.5)
    present, absent = [], []
    for _ in range(25):
        own, others = rng.normal(0.25, 0.1, 2), rng.normal(0.1, 0.1, 300)
        metrics.add(single_query_batch(own, others, bins=100_000))
        present.append(pool_aware_shares(own, others, PARAMETERS, 0.5)[1])
        absent.append(pool_aware_shares(own[:0], others, PARAMETERS, 0.5)[1])
    wins = np.mean([float(a < b) + 0.5 * (a == b) for a in present for b in absent])
    assert rows_of(metrics)["none_auc"]["value"] == pytest.approx(wins, abs=1e-9)
    assert 0.5 < wins < 1
