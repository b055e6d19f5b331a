"""Build the table `per_query` of an evaluation, and format metrics, comparisons and calibration as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa

from attrib_core.abc_benchmark.test_cases import Queries
from attrib_core.attribution.metrics.query_groups import System
from attrib_core.storage.schemas.registry import abc_per_query_schema

COLUMN_BY_METRIC = {
    "recall_at_k": "recall@{}",
    "capped_recall_at_k": "capped_recall@{}",
    "success_at_k": "success@{}",
    "mean_average_precision": "average_precision",
    "median_rank": "best_rank",
}
"""Columns of the table `per_query`."""
HEADING_BY_METRIC = {
    "recall_at_k": "Recall@{}",
    "mean_average_precision": "mAP",
    "capped_recall_at_k": "Recall@{} / best",
    "success_at_k": "Success@{}",
    "median_rank": "median rank",
}


def per_query(one: System, queries: Sequence[Queries]) -> pa.Table:
    """Return the table `per_query`, one row per query, in the order of the system."""
    ks = sorted({k for _, k in one.values if k is not None})
    models = np.concatenate([some.models for some in queries])
    columns: dict[str, Any] = {
        "test": [one.encoder] * len(models),
        "prompt_kind": one.labels["prompt_kind"].tolist(),
        "query_index": np.concatenate([np.arange(some.features.rows) for some in queries]),
        "query_path": [path for some in queries for path in some.paths or repeat(None, some.features.rows)],
        "model_index": models,
        "category": [name or None for name in one.labels["category"].tolist()]
        if "category" in one.labels
        else [None] * len(models),
        "n_exemplars": one.exemplars,
    }
    columns |= {COLUMN_BY_METRIC[name].format(k): values for (name, k), values in one.values.items()}
    schema = abc_per_query_schema(ks)
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def format_metrics(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Format rows of `abc_metrics` of one test case as lines of text, in per cent: those of all its models."""
    overall = [row for row in rows if row["group_by"] == "all"]
    for kind in dict.fromkeys(row["prompt_kind"] for row in overall):
        mine = [row for row in overall if row["prompt_kind"] == kind]
        mine.sort(key=lambda row: list(HEADING_BY_METRIC).index(row["metric"]))
        first = mine[0]
        yield f"{first['test']}, {kind}: {first['n_models']} models, {first['n_queries']} queries"
        yield f"  {'':18}{'value':>9}{'95 % interval':>19}{'ceiling':>9}{'chance':>9}"
        for row in mine:
            scale = 1.0 if row["metric"] == "median_rank" else 100.0
            value, low, high, ceiling, chance = (
                row[name] * scale for name in ("value", "ci_low", "ci_high", "ceiling", "chance")
            )
            interval = "-" if np.isnan(low) else f"{low:.1f} to {high:.1f}"
            name = HEADING_BY_METRIC[row["metric"]].format(row["k"])
            yield f"  {name:18}{value:9.1f}{interval:>19}{ceiling:9.1f}{chance:9.2f}"


def format_comparisons(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Format rows of `abc_comparisons` as lines of text, in per cent."""
    before = None
    for row in rows:
        head = (row["test"], row["against_test"], row["prompt_kind"])
        if head != before:
            before = head
            paired = row["matched_by"] == "model"
            tests = head[0] if paired else f"{head[0]} against {head[1]}"
            models = row["n_models"] if paired else f"{row['n_models']} and {row['n_against']}"
            yield f"{tests}, {head[2]}: {models} models"
            yield f"  {'':18}{'first':>9}{'second':>9}{'difference':>12}{'95 % interval':>19}{'p':>9}"
        scale = 1.0 if row["metric"] == "median_rank" else 100.0
        names = ("value", "against_value", "difference", "ci_low", "ci_high")
        value, other, difference, low, high = (row[name] * scale for name in names)
        interval = "-" if np.isnan(low) else f"{low:+.1f} to {high:+.1f}"
        p = "-" if np.isnan(row["p_value"]) else f"{row['p_value']:.3g}"
        name = HEADING_BY_METRIC[row["metric"]].format(row["k"])
        yield f"  {name:18}{value:9.1f}{other:9.1f}{difference:+12.1f}{interval:>19}{p:>9}"


CALIBRATION_COLUMNS = {
    "negative_log_likelihood": ("NLL", 1),
    "expected_calibration_error": ("ECE, %", 100),
    "brier": ("Brier", 1),
    "exemplar_mass": ("exemplars, %", 100),
    "tail_mass": ("tail, %", 100),
    "mixture_negative_log_likelihood": ("mixture NLL", 1),
    "none_said_held_out": ("none: absent, %", 100),
    "none_said": ("present, %", 100),
}
"""Heading and factor of the metrics of `abc_calibration` that are printed."""


def format_calibration(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Format rows of `abc_calibration` of all models as lines of text, one per form and share of the pool."""
    before = None
    groups: dict[tuple[str, str, str, float], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        if row["kind"] == "all":
            place = (row["test"], row["prompt_kind"], row["form"], row["pool_share"])
            groups.setdefault(place, {})[row["metric"]] = row
    for (test, kind, form, share), found in groups.items():
        first = found["negative_log_likelihood"]
        if (test, kind) != before:
            before = (test, kind)
            yield f"{test}, {kind}: {first['n_models']} models, {first['n_queries']} queries"
            heads = "".join(f"{name:>17}" for name, _ in list(CALIBRATION_COLUMNS.values())[1:])
            yield f"  {'':30}{'NLL':>9}{'95 % interval':>19}{heads}"
        name = form if share == 1 else f"{form}, {100 * share:g} % of it"
        low, high = first["ci_low"], first["ci_high"]
        interval = "-" if np.isnan(low) else f"{low:.2f} to {high:.2f}"
        cells = "".join(
            f"{factor * found[metric]['value']:17.{1 if factor == 100 else 3}f}"
            for metric, (_, factor) in list(CALIBRATION_COLUMNS.items())[1:]
        )
        yield f"  {name:30}{first['value']:9.3f}{interval:>19}{cells}"
