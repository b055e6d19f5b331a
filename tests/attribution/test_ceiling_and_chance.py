"""Ceilings and chance against perfect and simulated random rankings."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from attrib_core.attribution.metrics import ceiling_and_chance, per_query
from attrib_core.common import hashing
from tests.attribution.metrics_fixtures import KS, ranks_of


@pytest.mark.parametrize(("n", "distractors"), [(1, 1), (1, 40), (3, 6), (12, 200), (67, 33)])
def test_chance_equals_simulated_random_rankings(n: int, distractors: int) -> None:
    generator = hashing.generator("chance", n, distractors)
    cases = [(generator.random(distractors), generator.random(n)) for _ in range(400)]
    values = per_query.per_query(per_query.positions(ranks_of(cases)), KS)
    ns, candidates = np.array([n]), np.array([n + distractors])
    for key, expected in ceiling_and_chance.chances(list(values), ns, candidates).items():
        error = values[key].std() / np.sqrt(len(cases))
        assert abs(values[key].mean() - expected[0]) <= 4 * error + 2e-3, key
    found = np.mean(values["median_rank", None] <= ceiling_and_chance.median_rank(ns, candidates))
    assert found >= 0.5 - 0.08
    assert np.mean(values["median_rank", None] < ceiling_and_chance.median_rank(ns, candidates)) <= 0.5 + 0.08


def test_chance_equals_the_mean_over_all_rankings() -> None:

    n, candidates = 3, 7
    places = [np.array(chosen) + 1 for chosen in combinations(range(candidates), n)]
    expected = np.mean([np.mean(np.arange(1, n + 1) / place) for place in places])
    assert ceiling_and_chance.average_precision(np.array([n]), np.array([candidates]))[0] == pytest.approx(
        expected
    )
    none = np.mean([place[0] > 2 for place in places])
    assert ceiling_and_chance.none_within(2, np.array([n]), np.array([candidates]))[0] == pytest.approx(none)


def test_ceilings_are_reached_by_the_perfect_ranking() -> None:
    cases = [(np.zeros(50), np.full(n, 1.0) + np.arange(n)) for n in (1, 4, 12, 67)]
    values = per_query.per_query(per_query.positions(ranks_of(cases)), KS)
    ceilings = ceiling_and_chance.ceilings(list(values), np.array([1, 4, 12, 67]))
    for key, value in values.items():
        np.testing.assert_allclose(value, ceilings[key])
    assert ceilings["recall_at_k", 5][2] == pytest.approx(5 / 12)
