"""Intervals of tables against the variance over models and prompts, read from the names of queries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attrib_core.attribution.metrics import measure
from attrib_core.attribution.metrics.paired_comparison import paired
from attrib_core.common import intervals
from attrib_core.common.crossing import Crossing
from tests.attribution.metrics_fixtures import measured, world_of_systems

MAPPERS = ("untuned", "linear")
CASES = [("test", "object", "all"), ("test", "object", "scene"), ("validation", "object", "media")]


def queries(mapper: str, split: str, kind: str, prompt_kind: str, condition: str) -> list[dict[str, Any]]:
    """The queries of a group, by name: model, prompt and list, and the mean reciprocal of ranks."""
    named, exemplars = world_of_systems(0.1)
    about = {row["exemplar_set"]: row for row in exemplars.to_pylist()}
    ranks: dict[str, list[int]] = {}
    for row in dict(named)[f"{mapper}.parquet"].to_pylist():
        assert row["n_tied"] == row["n_siblings_tied"] == 0
        ranks.setdefault(row["query_id"], []).append(1 + row["n_above"] + row["n_siblings_above"])
    found = []
    for name, positions in sorted(ranks.items()):
        model, own_condition, prompt, _ = name.split(".")
        prompts = prompt.split("-")[0]
        if (
            (about[model]["split"], about[model]["kind"], own_condition) == (split, kind, condition)
            and prompt_kind in ("all", prompts)
        ):  # fmt: skip
            precisions = [hit / position for hit, position in enumerate(sorted(positions), 1)]
            found.append({"model": model, "prompt": prompt, "list": prompts, "value": np.mean(precisions)})
    return found


def columns(rows: list[dict[str, Any]], *names: str) -> list[np.ndarray]:
    return [np.array([row[name] for row in rows]) for name in names]


def row_of(rows: list[dict[str, Any]], **labels: Any) -> dict[str, Any]:
    labels |= {"metric": "mean_average_precision"}
    (found,) = [row for row in rows if all(row[name] == value for name, value in labels.items())]
    return found


@pytest.mark.parametrize(("split", "kind", "prompt_kind"), CASES)
@pytest.mark.parametrize("mapper", MAPPERS)
def test_measure_counts_models_and_prompts(mapper: str, split: str, kind: str, prompt_kind: str) -> None:
    labels = {"split": split, "kind": kind, "prompt_kind": prompt_kind, "condition": "customized"}
    models, prompts, lists, values = columns(
        queries(mapper, **labels), "model", "prompt", "list", "value"
    )  # fmt: skip
    row = row_of(list(measure.measure(measured(0.1))), mapper=mapper, seen="all", **labels)
    terms, n = (values - values.mean()) / len(values), len(set(models.tolist()))
    expected = intervals.of_share(values.mean(), Crossing(models, prompts, lists).spread(terms), n)
    assert (row["ci_low"], row["ci_high"], row["df"]) == pytest.approx(expected)
    assert (row["value"], row["n_models"]) == (pytest.approx(values.mean()), n)


@pytest.mark.parametrize(("split", "kind", "prompt_kind"), CASES)
@pytest.mark.parametrize("comparison", ["mapper", "condition"])
def test_compare_counts_models_and_prompts(comparison: str, split: str, kind: str, prompt_kind: str) -> None:
    labels = {"split": split, "kind": kind, "prompt_kind": prompt_kind}
    against = ("untuned", "customized") if comparison == "mapper" else ("linear", "control")
    ours = queries("linear", condition="customized", **labels)
    theirs = queries(against[0], condition=against[1], **labels)
    models, prompts, lists, values = columns([*ours, *theirs], "model", "prompt", "list", "value")
    names = sorted(set(models.tolist()))
    found = paired(
        "mean_average_precision", values[: len(ours)], values[len(ours) :], Crossing(models, prompts, lists),
        names, resamples=50, seed=5,
    )  # fmt: skip
    rows = list(measure.compare(measured(0.1), resamples=50, seed=5))
    row = row_of(
        rows, mapper="linear", condition="customized", comparison=comparison, seen="all", **labels
    )  # fmt: skip
    assert (row["ci_low"], row["ci_high"], row["df"]) == pytest.approx(found.interval)
    assert (row["difference"], row["p_value"]) == pytest.approx((found.ours - found.theirs, found.p_value))


def test_prompts_add_to_the_variance_of_measured_groups() -> None:
    """Otherwise the tests above would pass with models alone."""
    degrees = [row["df"] - (row["n_models"] - 1) for row in measure.measure(measured(0.1))]
    assert np.mean(np.abs(degrees) > 0.01) > 0.2
    degrees = [
        row["df"] - (row["n_models"] - 1) for row in measure.compare(measured(0.1), resamples=9, seed=1)
    ]
    assert np.mean(np.abs(degrees) > 0.01) > 0.2
