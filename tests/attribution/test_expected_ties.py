"""Metrics as expectations over orders of ties, against all orders."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest

from attrib_core.attribution.metrics import measure, per_query
from attrib_core.attribution.metrics.expected_ties import blocks
from tests.attribution.metrics_fixtures import KS, random_cases, ranks_of

SMALL_KS = [1, 2, 3, 5]
Case = tuple[np.ndarray, np.ndarray]


def over_all_orders(scores: np.ndarray, own: np.ndarray) -> dict[tuple[str, int | None], float]:
    """Rank all candidates in each order that their similarities allow, and average the metrics."""
    everything = [
        (-float(score), hit)
        for score, hit in zip([*scores, *own], [0] * len(scores) + [1] * len(own), strict=True)
    ]
    levels = [
        [hit for score, hit in everything if score == level] for level in sorted({s for s, _ in everything})
    ]
    found: dict[tuple[str, int | None], list[float]] = {}
    for order in itertools.product(*(sorted(set(itertools.permutations(hits))) for hits in levels)):
        ranking = [hit for level in order for hit in level]
        places = [place for place, hit in enumerate(ranking, 1) if hit]
        for k in SMALL_KS:
            inside = sum(ranking[:k])
            found.setdefault(("recall_at_k", k), []).append(inside / len(own))
            found.setdefault(("capped_recall_at_k", k), []).append(inside / min(k, len(own)))
            found.setdefault(("success_at_k", k), []).append(float(inside > 0))
        precision = np.mean([number / place for number, place in enumerate(places, 1)])
        found.setdefault(("mean_average_precision", None), []).append(float(precision))
        found.setdefault(("median_rank", None), []).append(places[0])
    best = sorted(found.pop(("median_rank", None)))
    values = {key: float(np.mean(some)) for key, some in found.items()}
    return values | {("median_rank", None): best[(len(best) - 1) // 2]}


def small_cases() -> list[Case]:
    """Up to seven candidates on one to three levels, with one to three exemplars."""
    rng = np.random.default_rng(5)
    return [
        (rng.integers(levels, size=int(rng.integers(1, 5))) / 4, rng.integers(levels, size=n) / 4)
        for levels in (1, 2, 3)
        for n in (1, 2, 3)
        for _ in range(6)
    ]


def test_every_metric_equals_the_mean_over_all_orders() -> None:
    cases = small_cases()
    found = per_query.per_query(per_query.positions(ranks_of(cases), "expected"), SMALL_KS)
    for number, case in enumerate(cases):
        expected = over_all_orders(*case)
        assert {key: values[number] for key, values in found.items()} == {
            key: pytest.approx(value) for key, value in expected.items()
        }


@pytest.mark.parametrize("levels", [None, 9])
def test_without_ties_nothing_changes_and_with_them_it_lies_between_the_bounds(levels: int | None) -> None:
    table = ranks_of(random_cases(3, levels=levels))
    named = {
        ties: per_query.per_query(per_query.positions(table, ties), KS)
        for ties in ("expected", "above", "below", "half")
    }
    for key, values in named["expected"].items():
        bounds = np.sort([named["above"][key], named["below"][key]], axis=0)
        assert (bounds[0] - 1e-12 <= values).all() and (values <= bounds[1] + 1e-12).all()
        if levels is None:
            np.testing.assert_allclose(values, named["half"][key], rtol=1e-12)
    curve = per_query.recall_curve(table, KS, "expected")
    np.testing.assert_allclose(curve, [named["expected"]["recall_at_k", k].mean() for k in KS])


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (5, 5, 5, 5), (67, 67, 67, 67), (1, 2, 5, 67)])
def test_a_constant_encoder_is_at_chance_in_every_metric(sizes: tuple[int, ...]) -> None:
    """All similarities are equal. Sets of several sizes have no common median, so there it may be off."""
    cases = [(np.full(300, 0.5), np.full(n, 0.5)) for n in sizes]
    names = [f"s{number:03d}" for number in range(len(cases))]
    exemplars = pa.table(
        {"exemplar_set": names, "kind": ["object"] * 4, "split": ["test"] * 4, "seen": [True] * 4}
    )
    measured = measure.systems([("x", ranks_of(cases))], exemplars, recall_ks=KS, ties="expected")
    rows = [row for row in measure.measure(measured) if row["seen"] == row["prompt_kind"] == "all"]
    assert len(rows) == 3 * len(KS) + 2
    off = [row["metric"] for row in rows if row["value"] != pytest.approx(row["chance"], rel=1e-12)]
    assert off == (["median_rank"] if len(set(sizes)) > 1 else [])


def test_blocks_do_not_depend_on_the_order_of_rows_or_on_how_exemplars_break_ties() -> None:
    """Two exemplars tie with three distractors, one ranks above these, and one below all."""
    query, above, tied = np.zeros(4, int), np.array([2, 1, 2, 9]), np.array([3, 0, 3, 0])
    for order in itertools.permutations(range(4)):
        rows = list(order)
        some = blocks(query, above[rows], tied[rows])
        assert some.before.tolist() == [1, 3, 12] and some.found.tolist() == [0, 1, 3]
        assert some.exemplars.tolist() == [1, 2, 1] and some.candidates.tolist() == [1, 5, 1]
