"""Strata, and comparisons of different models within strata."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from attrib_core.attribution.metrics import measure, permutation_test
from attrib_core.attribution.metrics.matched_comparison import Models, matched_difference
from attrib_core.attribution.metrics.query_groups import System
from attrib_core.attribution.metrics.strata import size_groups
from attrib_core.common import intervals
from attrib_core.common.crossing import Spread
from attrib_core.storage import tables
from tests.attribution.metrics_fixtures import world_of_systems


def systems(gain: float = 0.1) -> list[System]:
    named, exemplars = world_of_systems(gain)
    categories = [
        ("bird", "tool", "fruit", "bird")[int(name[1:]) % 4]
        for name in exemplars.column("exemplar_set").to_pylist()
    ]
    return measure.systems(named, exemplars.append_column("category", pa.array(categories)), recall_ks=[5])


def test_strata_average_their_own_queries() -> None:
    measured = systems()
    rows = list(measure.strata(measured))
    tables.from_rows(rows, tables.schema("strata"))
    assert {(row["group_by"], row["group"]) for row in rows} == {
        ("category", "bird"), ("category", "tool"), ("category", "fruit"),
    }  # fmt: skip
    for row in rows:
        one = next(system for system in measured if system.mapper == row["mapper"])
        chosen = one.labels["category"] == row["group"]
        for name in ("condition", "split", "kind"):
            chosen = chosen & (one.labels[name] == row[name])
        if row["prompt_kind"] != "all":
            chosen = chosen & (one.labels["prompt_kind"] == row["prompt_kind"])
        values = one.values[row["metric"], row["k"]][chosen]
        assert row["n_queries"] == len(values)
        assert row["value"] == pytest.approx(
            np.median(values) if row["metric"] == "median_rank" else values.mean()
        )


def test_each_number_of_exemplars_is_in_one_group() -> None:
    found = size_groups(np.array([1, 2, 4, 5, 8, 9, 16, 17, 32, 33, 67, 1000]))
    assert found.tolist() == [
        "1",
        "2-4",
        "2-4",
        "5-8",
        "5-8",
        "9-16",
        "9-16",
        "17-32",
        "17-32",
        "33+",
        "33+",
        "33+",
    ]


def models(values: list[float], strata: list[str], name: str) -> Models:
    return Models(
        np.array([f"{name}{i:03d}" for i in range(len(values))]), np.array(values), np.array(strata)
    )


def test_a_matched_difference_is_the_weighted_mean_over_strata() -> None:
    ours = models([0.1, 0.3, 0.5, 1.0], ["a", "a", "b", "only ours"], "o")
    theirs = models([0.0, 0.4, 0.4, 0.7, 0.9], ["a", "b", "b", "b", "only theirs"], "t")
    found = matched_difference(ours, theirs, resamples=50, seed=1)
    assert found is not None
    weights = {"a": 2 * 1 / 3, "b": 1 * 3 / 4}
    total = sum(weights.values())
    assert found.ours == pytest.approx((weights["a"] * 0.2 + weights["b"] * 0.5) / total)
    assert found.theirs == pytest.approx((weights["a"] * 0 + weights["b"] * 0.5) / total)
    assert (found.n_ours, found.n_theirs, found.n_strata) == (3, 4, 2)
    rest = np.array(
        [-0.1, 0.1, 0.0, 0.0, -0.1, -0.1, 0.2]
    )  # from the means of strata, (2 + 2) of them for 7 models
    sigma, share = (rest @ rest) / 3, np.array([weights["a"], weights["b"]]) / total
    spreads = [Spread(float(sigma * (share**2 / counts).sum()), 3) for counts in ([2, 1], [1, 3])]
    both = Spread(spreads[0].variance + spreads[1].variance, 3)
    sides = [
        intervals.share_side(value, spread, n)
        for value, spread, n in zip((found.ours, found.theirs), spreads, (3, 4), strict=True)
    ]
    assert found.interval == pytest.approx(intervals.of_difference(*sides, both))
    exact = permutation_test.p_value(
        np.array([0.1, 0.3, 0.5, 0.0, 0.4, 0.4, 0.7]), np.arange(7) < 3, np.array(list("aababbb")),
        np.arange(7), times=1, seed=1,
    )  # fmt: skip
    assert (found.p_value, found.p_error) == exact
    assert found.interval.low <= found.ours - found.theirs <= found.interval.high
    assert matched_difference(ours, models([1.0], ["c"], "t"), resamples=5, seed=1) is None
    pair = matched_difference(models([0.1], ["a"], "o"), models([0.4], ["a"], "t"), resamples=5, seed=1)
    assert pair is not None and np.isnan([*pair.interval, pair.p_value]).all()
    one = matched_difference(models([1.0], ["a"], "o"), theirs, resamples=5, seed=1)
    assert one is not None and np.isnan(one.p_value)


def test_matching_removes_a_difference_of_composition() -> None:
    """Unseen models are mostly of an easy category: alike within it, they look better over all."""
    covered, apparent = 0, 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        sides = []
        for name, easy in (("o", 45), ("t", 15)):
            strata = ["easy"] * easy + ["hard"] * (60 - easy)
            values = [rng.normal(0.8 if stratum == "easy" else 0.3, 0.1) for stratum in strata]
            sides.append(models(values, strata, name))
        found = matched_difference(*sides, resamples=300, seed=trial)
        assert found is not None
        covered += found.interval.low <= 0 <= found.interval.high
        apparent += sides[0].values.mean() - sides[1].values.mean() > 0.15
    assert apparent == 60 and covered >= 52


def test_seen_and_unseen_are_matched_within_groups_of_categories() -> None:
    measured = systems()
    rows = list(measure.matched(measured, resamples=30, seed=1))
    tables.from_rows(rows, tables.schema("matched"))
    assert rows and all(row["metric"] != "median_rank" for row in rows)
    names, wanted = ("split", "kind", "prompt_kind", "metric"), ["test", "object", "all", "recall_at_k"]
    row = next(row for row in rows if [row[name] for name in names] == wanted)
    one = measured[0]
    chosen = (
        (one.labels["condition"] == row["condition"])
        & (one.labels["split"] == "test")
        & (one.labels["kind"] == "object")
    )
    frame = pd.DataFrame({
        "set": one.labels["exemplar_set"][chosen], "seen": one.labels["seen"][chosen],
        "category": one.labels["category"][chosen], "value": one.values["recall_at_k", 5][chosen],
    })  # fmt: skip
    by_model = (
        frame.groupby(["category", "seen", "set"])["value"]
        .mean()
        .groupby(["category", "seen"])
        .agg(["mean", "size"])
    )
    total, weights = 0.0, 0.0
    for category in by_model.index.levels[0]:
        if {True, False} <= set(by_model.loc[category].index):
            seen, unseen = by_model.loc[category, True], by_model.loc[category, False]
            weight = seen["size"] * unseen["size"] / (seen["size"] + unseen["size"])
            total, weights = total + weight * (unseen["mean"] - seen["mean"]), weights + weight
    assert row["difference"] == pytest.approx(total / weights)
    wide = list(measure.matched(measured, resamples=30, seed=1, alike=[["bird", "tool", "fruit"]]))
    assert {row["n_strata"] for row in wide} == {1}
    named, exemplars = world_of_systems(0.1)
    assert not list(measure.matched(measure.systems(named, exemplars, recall_ks=[5]), resamples=5, seed=1))
