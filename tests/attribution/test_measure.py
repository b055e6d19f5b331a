"""The stage measure: rows of its tables against averages over the rows of `ranks`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attrib_core.attribution.metrics import measure
from attrib_core.common.errors import InputError
from attrib_core.storage import tables
from tests.attribution.metrics_fixtures import measured, ranks_of, world_of_systems


def test_rows_average_the_queries_of_their_group() -> None:
    named, exemplars = world_of_systems(0.1)
    found = list(measure.measure(measured(0.1)))
    tables.from_rows(found, tables.schema("metrics"))
    about = {row["exemplar_set"]: row for row in exemplars.to_pylist()}
    table = named[1][1]
    for row in found:
        if row["mapper"] != "linear" or row["metric"] != "recall_at_k" or row["k"] != 5:
            continue
        hits: dict[str, list[float]] = {}
        for rank in table.to_pylist():
            its = about[rank["exemplar_set"]]
            if (
                rank["condition"] == row["condition"]
                and its["split"] == row["split"]
                and its["kind"] == row["kind"]
                and row["prompt_kind"] in ("all", rank["prompt_kind"])
                and (row["seen"] == "all" or its["seen"] == (row["seen"] == "seen"))
            ):
                position = 1 + rank["n_above"] + rank["n_siblings_above"] + rank["n_tied"] / 2
                hits.setdefault(rank["query_id"], []).append(position <= 5)
        assert row["value"] == pytest.approx(np.mean([np.mean(one) for one in hits.values()]))
        assert row["n_queries"] == len(hits)
        assert row["n_models"] == len({query.split(".")[0] for query in hits})
        assert row["n_models"] == 1 or row["ci_low"] <= row["value"] <= row["ci_high"]
    groups = {
        tuple(row[name] for name in ("mapper", "condition", "split", "kind", "seen", "prompt_kind"))
        for row in found
    }
    assert len(groups) == 2 * 2 * (3 * 3 + 2) * 3  # the one style set of validation is of a seen category
    assert len(found) == len(groups) * 8


def test_measuring_is_deterministic() -> None:
    first, again = (list(measure.measure(measured(0.1))) for _ in range(2))
    assert first == again


def test_order_of_rows_does_not_matter() -> None:
    named, exemplars = world_of_systems(0.1)
    shuffled = [(name, table.take(np.random.default_rng(1).permutation(len(table)))) for name, table in named]
    straight, mixed = (
        list(measure.measure(measure.systems(which, exemplars, recall_ks=[5]))) for which in (named, shuffled)
    )
    assert straight == mixed


@pytest.mark.parametrize("gain", [0.3, 0.0])
def test_a_difference_is_found_where_there_is_one(gain: float) -> None:
    rows = list(measure.compare(measured(gain), resamples=300, seed=5))
    tables.from_rows(rows, tables.schema("comparisons"))
    whole = ("test", "object", "all", "all", "mean_average_precision")
    found = {
        row["comparison"]: row
        for row in rows
        if tuple(row[name] for name in ("split", "kind", "seen", "prompt_kind", "metric")) == whole
        and (row["mapper"], row["condition"]) == ("linear", "customized")
    }
    assert (
        found["mapper"]["against_mapper"] == "untuned"
        and found["mapper"]["against_condition"] == "customized"
    )
    assert (
        found["condition"]["against_mapper"] == "linear"
        and found["condition"]["against_condition"] == "control"
    )
    for row in found.values():
        assert row["difference"] == pytest.approx(row["value"] - row["against_value"])
        assert row["n_models"] == 6
    if gain:
        assert all(row["p_value"] < 0.05 and row["ci_low"] > 0 for row in found.values())
    else:  # the same queries rank alike under both mappers
        assert found["mapper"]["difference"] == 0 and found["mapper"]["p_value"] == 1


def test_one_model_has_no_interval() -> None:
    table = ranks_of([(np.random.default_rng(0).random(9), np.array([0.5]))])
    about = pa.Table.from_pylist([{"exemplar_set": "s000", "kind": "object", "split": "test", "seen": True}])
    rows = list(measure.measure(measure.systems([("x", table)], about, recall_ks=[5])))
    assert rows and all(np.isnan(row["ci_low"]) and np.isnan(row["ci_high"]) for row in rows)


def test_errors_name_what_does_not_fit() -> None:
    named, exemplars = world_of_systems(0.1)
    table = named[0][1]
    cases: list[tuple[Any, list[str]]] = [
        (lambda: measure.systems(named, exemplars, recall_ks=[0]), ["metrics.recall_ks", "[0]"]),
        (
            lambda: measure.systems(named, exemplars, recall_ks=[5], ties="harf"),
            ["metrics.ties", "'harf'", "'half'"],
        ),
        (lambda: measure.systems(named, exemplars.slice(3), recall_ks=[5]), ["untuned.parquet", "'s000'"]),
        (lambda: measure.systems([("x", table.slice(0, 0))], exemplars, recall_ks=[5]), ["x", "no rows"]),
        (
            lambda: measure.systems(
                [("x", pa.concat_tables([table, named[1][1]]))], exemplars, recall_ks=[5]
            ),
            ["x", "'mapper'", "linear"],
        ),
        (lambda: list(measure.compare(measured(0.1), resamples=0, seed=1)), ["metrics.bootstrap", "0"]),
    ]
    for call, words in cases:
        with pytest.raises(InputError) as error:
            call()
        assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


@pytest.mark.parametrize("value", [1.5, -0.25])
def test_a_metric_outside_its_range_is_named(value: float) -> None:
    (one, _), key = measured(0.1), ("mean_average_precision", None)
    broken = replace(one, values=one.values | {key: np.where(np.arange(len(one.exemplars)) == 3, value, 0.5)})
    for call in (
        lambda: list(measure.measure([broken])),
        lambda: list(measure.compare([broken], resamples=9, seed=1)),
    ):
        with pytest.raises(ValueError, match=rf"'mean_average_precision': {value} .* within \[0, 1\]"):
            call()
    rounded = one.values | {key: np.full(len(one.exemplars), 1.0 + 1e-15)}
    assert all(
        row["ci_high"] >= 1.0
        for row in measure.measure([replace(one, values=rounded)])
        if row["metric"] == key[0] and row["n_models"] > 1
    )
