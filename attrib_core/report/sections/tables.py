"""Tables of metrics: formatted cells for the page, and full numbers for CSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrib_core.attribution.metrics.metrics_table import Metrics, Row
from attrib_core.common.constants import SPLITS, UNTUNED
from attrib_core.report import formatting
from attrib_core.storage import atomic

MEDIAN = "median_rank"
KEYS = ("encoder", "mapper", "condition", "split", "kind", "seen", "prompt_kind", "metric", "k")
VALUES = ("value", "ci_low", "ci_high", "ceiling", "chance", "n_queries", "n_models")


@dataclass(frozen=True)
class Cell:
    """A share and its interval as text, with the numbers in [0, 1] for a bar, or None."""

    value: str
    interval: str
    share: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Line:
    """A line of the headline table: one metric of one encoder, a cell for each series."""

    metric: str
    chance: str
    cells: dict[str, Cell]
    ceiling: str


@dataclass(frozen=True)
class Block:
    """The lines of one kind of sets, encoder and split."""

    kind: str
    encoder: str
    n_models: int
    n_queries: int
    lines: list[Line]


def cell(row: Row | None) -> Cell:
    """Format a measured value, a dash where the run has none; ranks are not shares."""
    if row is None:
        return Cell(formatting.NONE, "", None, None, None)
    if row["metric"] == MEDIAN:
        known = row["ci_low"] is not None
        interval = f"[{formatting.rank(row['ci_low'])}, {formatting.rank(row['ci_high'])}]" if known else ""
        return Cell(formatting.rank(row["value"]), interval, None, None, None)
    value = formatting.share(row["value"])
    interval = formatting.interval(row["ci_low"], row["ci_high"])
    return Cell(value, interval, row["value"], row["ci_low"], row["ci_high"])


def columns(metrics: Metrics) -> list[tuple[str, str, str]]:
    """Return (condition, mapper, heading) of the columns of values, control first."""
    mappers = (UNTUNED, *metrics.tuned)
    return [
        (condition, name, formatting.mapper(name))
        for condition in ("control", "customized")
        for name in mappers
    ]


def headline(metrics: Metrics, split: str) -> list[Block]:
    """Return a block for each kind and encoder measured on a split."""
    blocks = []
    for kind in metrics.kinds:
        for encoder in metrics.encoders:
            lines, first = [], None
            for metric, k in (*metrics.headline, (MEDIAN, None)):
                where = dict(encoder=encoder, kind=kind, split=split)
                row = metrics.get(metric, k, mapper=UNTUNED, **where)
                if row is None:
                    continue
                first = first or row
                cells = {
                    f"{condition} {mapper}": cell(
                        metrics.get(metric, k, mapper=mapper, condition=condition, **where)
                    )
                    for condition, mapper, _ in columns(metrics)
                }
                write = formatting.rank if metric == MEDIAN else formatting.share
                chance, ceiling = write(row["chance"]), write(row["ceiling"])
                lines.append(Line(formatting.metric(metric, k), chance, cells, ceiling))
            if first is not None:
                blocks.append(Block(kind, encoder, first["n_models"], first["n_queries"], lines))
    return blocks


def breakdown_columns(metrics: Metrics) -> list[tuple[str, int | None]]:
    """Return the metrics of the breakdown: recall at the main cut-off, and mAP."""
    return [("recall_at_k", metrics.main_k), ("mean_average_precision", None)]


def breakdown(metrics: Metrics, split: str = "test") -> list[dict[str, Any]]:
    """Return the breakdown by kind, prompt kind and category, one line an encoder.

    Each line has kind, prompt_kind, seen, encoder, n_models and cells by "metric mapper".
    """
    lines = []
    main = breakdown_columns(metrics)
    for kind in metrics.kinds:
        prompt_kinds = metrics.values("prompt_kind", ["all"], kind=kind, split=split)
        groups = metrics.values("seen", ["all", "seen", "unseen"], kind=kind, split=split)
        seen_groups = groups if "unseen" in groups else ["all"]
        for prompt_kind in prompt_kinds:
            for seen in seen_groups:
                for encoder in metrics.encoders:
                    where = dict(encoder=encoder, kind=kind, split=split, seen=seen, prompt_kind=prompt_kind)
                    first = metrics.get(*main[0], mapper=UNTUNED, **where)
                    if first is None:
                        continue
                    cells = {
                        f"{metric} {mapper}": cell(metrics.get(metric, k, mapper=mapper, **where))
                        for metric, k in main
                        for mapper in (UNTUNED, *metrics.tuned)
                    }
                    lines.append(where | dict(n_models=first["n_models"], cells=cells))
    return lines


def across(metrics: Metrics, split: str = "test") -> list[dict[str, Any]]:
    """Return every mapper on every kind of sets, one line an encoder and mapper; none for fewer than two mappers.

    Each line has encoder, mapper and cells by "metric kind": recall at the main cut-off, and mAP.
    """
    if len(metrics.trained_mappers) < 2:
        return []
    return [
        dict(encoder=encoder, mapper=mapper)
        | dict(
            cells={
                f"{metric} {kind}": cell(
                    metrics.get(metric, k, encoder=encoder, mapper=mapper, kind=kind, split=split)
                )
                for kind in metrics.kinds
                for metric, k in breakdown_columns(metrics)
            }
        )
        for encoder in metrics.encoders
        for mapper in metrics.mappers
    ]


def headline_rows(metrics: Metrics) -> list[Row]:
    """Return the headline table of all splits, one row a split, kind, encoder and metric."""
    rows = []
    for split in metrics.values("split", SPLITS):
        for kind in metrics.kinds:
            for encoder in metrics.encoders:
                for metric, k in (*metrics.headline, (MEDIAN, None)):
                    where = dict(encoder=encoder, kind=kind, split=split)
                    base = metrics.get(metric, k, mapper=UNTUNED, **where)
                    if base is None:
                        continue
                    row: Row = dict(split=split, kind=kind, encoder=encoder, metric=metric, k=k)
                    row |= {name: base[name] for name in ("chance", "ceiling", "n_queries", "n_models")}
                    for condition, mapper, _ in columns(metrics):
                        found = metrics.get(metric, k, mapper=mapper, condition=condition, **where)
                        for name in ("value", "ci_low", "ci_high"):
                            row[f"{condition}_{mapper}_{name}"] = found[name] if found else None
                    rows.append(row)
    return rows


def breakdown_rows(metrics: Metrics) -> list[Row]:
    """Return all measured values of the test split in long form."""
    return [{name: row[name] for name in (*KEYS, *VALUES)} for row in metrics.rows if row["split"] == "test"]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows atomically with the columns of the first one; an empty file if there are none."""
    with atomic.writing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        if rows:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def retrieval_rows(sets: Iterable[Any]) -> list[Row]:
    """Return the candidates of the gallery, one row each."""
    return [
        dict(
            exemplar_set=shown.name, query_id=found.query_id, prompt_kind=found.prompt_kind, prompt=found.prompt,
            rank=candidate.rank, candidate_id=candidate.name, is_exemplar=candidate.is_exemplar,
            similarity=candidate.similarity, influence=candidate.influence,
        )
        for shown in sets
        for found in shown.retrievals
        for candidate in found.candidates
    ]  # fmt: skip
