"""Results of subgroups of models: unseen and seen sets matched within like categories, and single strata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from attrib_core.attribution.metrics.metrics_table import Metrics, Row
from attrib_core.common.constants import UNTUNED
from attrib_core.report import formatting
from attrib_core.report.sections.tables import Cell, breakdown_columns, cell

FEW = 5
"""Fewer models decide nothing.

By simulation (`benchmarks/inference.py`) intervals over three models span most of the range, so that they hold whatever
is true, and three against three models have no p-value below 0.1.
"""
HEADINGS = {"category": "category", "n_exemplars": "number of exemplars"}


class Match(NamedTuple):
    """Cells of the matched comparison for one metric: unseen, seen, and the difference in points."""

    unseen: str
    seen: str
    difference: str
    interval: str
    p: str


@dataclass(frozen=True)
class Stratum:
    """A line of a table of strata; cells by "encoder mapper", recall at the main cut-off."""

    group: str
    n_models: int
    n_queries: int
    chance: str
    ceiling: str
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Strata:
    """The strata of one kind of sets by one property."""

    kind: str
    by: str
    lines: list[Stratum]
    note: str


def matches(rows: Sequence[Row], metrics: Metrics, split: str = "test") -> list[Row]:
    """Return lines of the matched comparison of customized models, for the metrics of the breakdown.

    Each line has kind, prompt_kind, encoder, mapper (untuned or tuned) and cells, a Match a metric.
    """
    known = _index(rows, ("encoder", "mapper", "kind", "prompt_kind", "metric", "k"), split)
    lines = []
    for kind in metrics.kinds:
        for prompt_kind in metrics.values("prompt_kind", ["all"], kind=kind, split=split):
            for encoder in metrics.encoders:
                for mapper in (UNTUNED, *metrics.tuned):
                    where = (encoder, metrics.resolve(mapper, kind), kind, prompt_kind)
                    found = [known.get((*where, metric, k)) for metric, k in breakdown_columns(metrics)]
                    cells = [_match(row) for row in found if row is not None]
                    if cells:
                        line: Row = dict(kind=kind, prompt_kind=prompt_kind, encoder=encoder, mapper=mapper)
                        lines.append(line | dict(cells=cells))
    return lines


def _match(row: Row) -> Match:
    return Match(
        formatting.share(row["value"]),
        formatting.share(row["against_value"]),
        formatting.points(row["difference"]),
        formatting.points_interval(row["ci_low"], row["ci_high"]),
        formatting.p_value(row["p_value"]),
    )


def one_match(rows: Sequence[Row], kind: str, encoder: str, mapper: str, k: int) -> Row | None:
    """Return the matched Recall@k of customized models on the test split; `mapper` has its name in the run."""
    known = _index(rows, ("encoder", "mapper", "kind", "prompt_kind", "metric", "k"), "test")
    return known.get((encoder, mapper, kind, "all", "recall_at_k", k))


def match_notes(rows: Sequence[Row], metrics: Metrics, split: str = "test") -> list[str]:
    """Return a sentence for each kind of sets: the size of the matched groups, or why there are none."""
    notes = []
    for kind in metrics.kinds:
        own = [row for row in _own(rows, split) if (row["kind"], row["prompt_kind"]) == (kind, "all")]
        if own:
            notes.append(f"{kind.capitalize()} sets: {_matched_note(own)}")
            continue
        groups = metrics.values("seen", kind=kind, split=split)
        missing = [name for name in ("seen", "unseen") if name not in groups]
        why = (
            f"the {split} split has no {missing[0]} categories"
            if missing
            else "no like categories have both seen and unseen models"
        )
        notes.append(f"{kind.capitalize()} sets: no match, since {why}.")
    return notes


def _matched_note(rows: Sequence[Row]) -> str:
    first = rows[0]
    ours, theirs = (formatting.plural(first[name], "model") for name in ("n_models", "n_against"))
    groups = formatting.plural(first["n_strata"], "group")
    text = f"{ours} of unseen categories and {theirs} of seen ones, in {groups} of like categories."
    spans = sorted(row["ci_high"] - row["ci_low"] for row in rows if row["ci_low"] is not None)
    if not spans:
        return f"{text} There is no interval with one model on each side of a group."
    if min(first["n_models"], first["n_against"]) < FEW:
        text += (
            f" With fewer than {FEW} models on a side nothing is decided: an interval that includes 0 does not show"
            " that there is no difference."
        )
    return text


def strata(rows: Sequence[Row], metrics: Metrics, split: str = "test") -> list[Strata]:
    """Return recall at the main cut-off of customized models by category and by number of exemplars."""
    (metric, k), *_ = breakdown_columns(metrics)
    names = ("kind", "group_by", "group", "encoder", "mapper", "prompt_kind", "metric", "k")
    known = _index(rows, names, split)
    found = []
    for kind in metrics.kinds:
        for by in HEADINGS:
            groups = dict.fromkeys(key[2] for key in known if key[:2] == (kind, by))
            lines = []
            for group in groups:
                cells: dict[str, Row | None] = {
                    f"{encoder} {mapper}": known.get(
                        (kind, by, group, encoder, metrics.resolve(mapper, kind), "all", metric, k)
                    )
                    for encoder in metrics.encoders
                    for mapper in (UNTUNED, *metrics.tuned)
                }
                row = next((row for row in cells.values() if row is not None), None)
                if row is not None:
                    lines.append(_stratum(group, row, cells))
            if lines:
                found.append(Strata(kind, by, lines, _strata_note(kind, HEADINGS[by], lines)))
    return found


def _stratum(group: str, row: Row, cells: dict[str, Row | None]) -> Stratum:
    shown = {name: cell(found) for name, found in cells.items()}
    chance, ceiling = formatting.share(row["chance"]), formatting.share(row["ceiling"])
    return Stratum(
        group.replace("-", "\u2013"), row["n_models"], row["n_queries"], chance, ceiling, shown
    )  # fmt: skip


def _strata_note(kind: str, by: str, lines: Sequence[Stratum]) -> str:
    alone = sum(line.n_models == 1 for line in lines)
    few = sum(line.n_models < FEW for line in lines)
    text = f"{kind.capitalize()} sets by {by}:"
    if not few:
        return f"{text} each group has at least {FEW} models."
    single = f", {alone} of them only one, without an interval" if alone else ""
    which = "each group has" if few == len(lines) else f"{few} of {len(lines)} groups have"
    return (
        f"{text} {which} fewer than {FEW} models{single}. Intervals over so few are wide, and where all their models"
        " agree they depend on the number of models alone, so they show no differences between groups."
    )


def strata_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the strata of the test split in long form."""
    return [dict(row) for row in rows if row["split"] == "test"]


def _own(rows: Sequence[Row], split: str) -> list[Row]:
    return [row for row in rows if (row["condition"], row["split"]) == ("customized", split)]


def _index(rows: Sequence[Row], names: Sequence[str], split: str) -> dict[tuple[Any, ...], Row]:
    return {tuple(row[name] for name in names): row for row in _own(rows, split)}
