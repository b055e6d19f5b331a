"""What finer groups of models say: unseen against seen within like categories, and each group by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from attrib_core.attribution.metrics.metrics_table import Metrics, Row
from attrib_core.common.constants import UNTUNED
from attrib_core.report import formatting
from attrib_core.report.sections.tables import Cell, breakdown_columns, cell

FEW = 10
"""Models of a group below which the page says that its interval is too narrow.

Resamples of n models vary by (n - 1) / n of the variance that an unbiased estimate has, and the tails of
Student's t are left out; for n = 10 the two make an interval of a mean about a sixth too short (t / z is
2.26 / 1.96, the other factor 0.95), for 5 more than a third.
"""
HEADINGS = {"category": "category", "n_exemplars": "number of exemplars"}


class Match(NamedTuple):
    """A cell group of the matched comparison: one metric, unseen and seen, and the difference in points."""

    unseen: str
    seen: str
    difference: str
    interval: str
    p: str


@dataclass(frozen=True)
class Stratum:
    """A line of a table of strata; cells by "encoder look", Recall at the main cut-off."""

    group: str
    n_models: int
    n_queries: int
    chance: str
    ceiling: str
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Strata:
    """The sets of one kind by one property."""

    kind: str
    by: str
    lines: list[Stratum]
    note: str


def matches(rows: Sequence[Row], metrics: Metrics, split: str = "test") -> list[Row]:
    """Images of customized models, the metrics of the breakdown; none where nothing could be matched.

    Each line has kind, prompt_kind, encoder, look (untuned or tuned) and a Match a metric.
    """
    known = _index(rows, ("encoder", "mapper", "kind", "prompt_kind", "metric", "k"), split)
    lines = []
    for kind in metrics.kinds:
        for prompt_kind in metrics.values("prompt_kind", ["all"], kind=kind, split=split):
            for encoder in metrics.encoders:
                for look in (UNTUNED, *metrics.tuned):
                    where = (encoder, metrics.resolve(look, kind), kind, prompt_kind)
                    found = [known.get((*where, metric, k)) for metric, k in breakdown_columns(metrics)]
                    cells = [_match(row) for row in found if row is not None]
                    if cells:
                        line: Row = dict(kind=kind, prompt_kind=prompt_kind, encoder=encoder, look=look)
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
    """The matched Recall@k of customized test images for all prompts; `mapper` by its name in the run."""
    known = _index(rows, ("encoder", "mapper", "kind", "prompt_kind", "metric", "k"), "test")
    return known.get((encoder, mapper, kind, "all", "recall_at_k", k))


def match_notes(rows: Sequence[Row], metrics: Metrics, split: str = "test") -> list[str]:
    """A sentence for each kind of sets: what was matched and how much it can bear, or why nothing was."""
    notes = []
    for kind in metrics.kinds:
        own = [row for row in _own(rows, split) if (row["kind"], row["prompt_kind"]) == (kind, "all")]
        if own:
            notes.append(f"{kind.capitalize()} sets: {_bears(own)}")
            continue
        groups = metrics.values("seen", kind=kind, split=split)
        missing = [name for name in ("seen", "unseen") if name not in groups]
        why = (
            f"the {split} split has none of {missing[0]} categories"
            if missing
            else "no categories that are alike hold models of both seen and unseen ones"
        )
        notes.append(f"{kind.capitalize()} sets: nothing to match, {why}.")
    return notes


def _bears(rows: Sequence[Row]) -> str:
    first = rows[0]
    ours, theirs = (formatting.plural(first[name], "model") for name in ("n_models", "n_against"))
    groups = formatting.plural(first["n_strata"], "group")
    text = f"{ours} of unseen categories and {theirs} of seen ones, in {groups} of like categories."
    spans = sorted(row["ci_high"] - row["ci_low"] for row in rows if row["ci_low"] is not None)
    if not spans:
        return f"{text} One model on a side gives no interval."
    if min(first["n_models"], first["n_against"]) < FEW:
        text += (
            f" These are too few for more than a hint: fewer than {FEW} models on a side make a bootstrap's interval"
            " too narrow, and a difference that it covers is not shown to be none."
        )
    return text


def strata(rows: Sequence[Row], metrics: Metrics, split: str = "test") -> list[Strata]:
    """Recall at the main cut-off of customized images, all prompts, by category and number of exemplars."""
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
                    f"{encoder} {look}": known.get(
                        (kind, by, group, encoder, metrics.resolve(look, kind), "all", metric, k)
                    )
                    for encoder in metrics.encoders
                    for look in (UNTUNED, *metrics.tuned)
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
    single = f", {alone} of them a single one, which has no interval" if alone else ""
    which = "each group has" if few == len(lines) else f"{few} of {len(lines)} groups have"
    return (
        f"{text} {which} fewer than {FEW} models{single}. Intervals of so few are too narrow (of two models they span"
        " these two, and where all models agree they have no width): they describe the models of this run, and"
        " differences between the groups are not shown by them."
    )


def strata_rows(rows: Sequence[Row]) -> list[Row]:
    """Strata of the test split in long form, for their CSV."""
    return [dict(row) for row in rows if row["split"] == "test"]


def _own(rows: Sequence[Row], split: str) -> list[Row]:
    return [row for row in rows if (row["condition"], row["split"]) == ("customized", split)]


def _index(rows: Sequence[Row], names: Sequence[str], split: str) -> dict[tuple[Any, ...], Row]:
    return {tuple(row[name] for name in names): row for row in _own(rows, split)}
