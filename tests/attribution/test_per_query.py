"""Metrics of each query against scikit-learn and explicit rankings."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from attrib_core.attribution.metrics import per_query
from attrib_core.config.schema_evaluation import Metrics
from tests.attribution.metrics_fixtures import KS, random_cases, ranks_of


def explicit_ranking(scores: np.ndarray, own: np.ndarray, ties: str) -> np.ndarray:
    """Return the full ranking, True for an exemplar, with tied distractors above or below it."""
    everything = np.concatenate([scores, own])
    exemplar = np.arange(len(everything)) >= len(scores)
    return exemplar[np.lexsort((exemplar if ties == "above" else ~exemplar, -everything))]


@pytest.mark.parametrize("levels", [None, 7, 40, 1])
@pytest.mark.parametrize("ties", ["above", "below"])
def test_every_metric_equals_that_of_the_explicit_ranking(levels: int | None, ties: str) -> None:
    cases = random_cases(1, levels=levels)
    found = per_query.per_query(per_query.positions(ranks_of(cases), ties), KS)
    for number, (scores, own) in enumerate(cases):
        hits = explicit_ranking(scores, own, ties)
        places = np.flatnonzero(hits) + 1
        n = len(own)
        for k in KS:
            assert found["recall_at_k", k][number] == pytest.approx(hits[:k].sum() / n)
            assert found["capped_recall_at_k", k][number] == pytest.approx(hits[:k].sum() / min(k, n))
            assert found["success_at_k", k][number] == hits[:k].any()
        assert found["mean_average_precision", None][number] == pytest.approx(
            np.mean(np.arange(1, n + 1) / places)
        )
        assert found["median_rank", None][number] == places[0]


def test_average_precision_equals_scikit_learn_without_ties() -> None:
    cases = random_cases(2, levels=None)
    found = per_query.per_query(per_query.positions(ranks_of(cases)), KS)["mean_average_precision", None]
    for value, (scores, own) in zip(found, cases, strict=True):
        truth = np.repeat([0, 1], [len(scores), len(own)])
        assert value == pytest.approx(
            average_precision_score(truth, np.concatenate([scores, own])), abs=1e-12
        )


def test_a_tie_counts_as_half() -> None:
    ranking = per_query.positions(ranks_of([(np.array([0.9, 0.5, 0.5, 0.1]), np.array([0.5]))]))
    assert ranking.position.tolist() == [3.0]  # one above it, and half of two ties
    cases = random_cases(3, levels=9)
    best, half, worst = (
        per_query.positions(ranks_of(cases), ties).position for ties in ("below", "half", "above")
    )
    np.testing.assert_allclose(half, (best + worst) / 2)
    assert (worst > best).sum() > 50


def test_positions_do_not_depend_on_the_order_of_rows() -> None:
    table = ranks_of(random_cases(4, levels=9))
    order = np.random.default_rng(0).permutation(len(table))
    straight, mixed = per_query.positions(table), per_query.positions(table.take(order))
    assert np.array_equal(mixed.position, straight.position[order])
    assert np.array_equal(mixed.queries, straight.queries)


def test_recall_curve_is_the_mean_recall() -> None:
    table = ranks_of(random_cases(5, levels=20))
    curve = per_query.recall_curve(table, KS)
    values = per_query.per_query(per_query.positions(table), KS)
    np.testing.assert_allclose(curve, [values["recall_at_k", k].mean() for k in KS])
    assert per_query.recall_curve(table, [10**6])[0] == pytest.approx(1.0)


def test_the_config_has_these_tie_policies() -> None:
    assert get_args(Metrics.model_fields["ties"].annotation) == per_query.POLICIES
