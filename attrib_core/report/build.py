"""Build the report of a run from its files, and save page, plots and tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attrib_core.attribution.metrics import best_features, metrics_table
from attrib_core.attribution.metrics.metrics_table import Row
from attrib_core.common.constants import KINDS, SPLITS, UNTUNED
from attrib_core.common.errors import InputError
from attrib_core.report import formatting, page, run_results
from attrib_core.report.findings import table as claims_table
from attrib_core.report.plots import curves, panels
from attrib_core.report.run_results import Facts, RunFiles
from attrib_core.report.sections import (
    feature_choice,
    gallery,
    influence,
    mapper_selection,
    subgroups,
    tables,
    timings,
)
from attrib_core.storage import atomic
from attrib_core.storage import tables as stored

CSV_FILES = {
    "headline.csv": "the headline table of every split",
    "breakdown.csv": "all metrics of the test split by prompt kind and category",
    "comparisons.csv": "paired differences with intervals",
    "matched.csv": "unseen against seen sets within like categories",
    "strata.csv": "all metrics of the test split by category and number of exemplars",
    "recall_curve.csv": "recall over K",
    "calibration.csv": "calibration on the test split",
    "gallery.csv": "the candidates shown in the gallery",
    "stages.csv": "time and memory by stage",
}


@dataclass(frozen=True)
class Report:
    """A report: the page, the rows of each CSV file by name, and the plots."""

    html: str
    tables: dict[str, list[Row]]
    plots: panels.Plots


def build(
    files: RunFiles,
    *,
    run: str,
    seed: int,
    encoders: Sequence[str],
    mappers: Sequence[str],
    sections: Mapping[str, Any],
    gallery_sets: int,
    retrievals: int,
    benchmarks: Path,
    jobs: Sequence[str],
    ties: str = "half",
) -> Report:
    """Build the report of a run.

    `sections` are the config sections that the page prints; `benchmarks` is the folder of Snakemake's benchmark
    files, which may be absent, and `jobs` names the files in it that belong to the run; `gallery_sets` and
    `retrievals` are those of the config section `report`. Raises InputError for a file that is missing, unreadable
    or inconsistent with another.
    """
    metrics = metrics_table.read_metrics(files.metrics, encoders, mappers)
    comparisons = metrics_table.nan_to_none(stored.read(files.comparisons, "comparisons"))
    matched = metrics_table.nan_to_none(stored.read(files.matched, "matched"))
    strata = metrics_table.nan_to_none(stored.read(files.strata, "strata"))
    calibration = metrics_table.nan_to_none(stored.read_parts(files.calibration, "calibration"))
    reliability = metrics_table.nan_to_none(stored.read_parts(files.reliability, "reliability"))
    facts = run_results.read_facts(files)
    best = {kind: best_features.best_on_validation(metrics, kind) for kind in metrics.kinds}
    soft_scores = {
        kind: _table_of(files.soft_scores, encoder, metrics.resolve(mapper, kind))
        for kind, (encoder, mapper) in best.items()
    }
    shown = gallery.build(
        files, soft_scores=soft_scores, seed=seed, sets_each=gallery_sets, retrievals=retrievals
    )
    measured = curves.read(files.ranks, files.candidates, facts.sets, ties=ties)
    choices = mapper_selection.read(files.curves, files.choices, encoders, metrics.trained_mappers)
    plots = panels.plots_of(metrics, measured, influence.panels(reliability), choices)
    kept = feature_choice.kept(
        metrics, {(choice.encoder, choice.mapper) for choice in choices if choice.kept}
    )
    first, *_ = influence.calibrators(calibration)
    own_reliability, own_calibration = (influence.rows_of(rows, first) for rows in (reliability, calibration))
    claims = claims_table.claims(metrics, comparisons, own_reliability, own_calibration, matched, kept=kept)
    stages = timings.stage_times(benchmarks, jobs)
    context = dict(
        run=run, seed=seed, facts=facts, encoders=list(encoders), mappers=list(metrics.trained_mappers),
        series=[UNTUNED, *metrics.tuned], tuned_meaning=feature_choice.meaning(metrics),
        mapper_names=feature_choice.names(metrics.trained_mappers),
        columns=tables.columns(metrics), versions=timings.versions(), base_model=_base_model(facts, sections),
        kinds=_kinds(facts), splits=SPLITS, split_table=_split_table(facts), settings=_settings(sections),
        claims=claims, kept=[f"{kind} sets with {encoder} features" for encoder, kind in kept],
        headline={split: tables.headline(metrics, split) for split in ("test", "validation", "train")},
        breakdown=tables.breakdown(metrics),
        breakdown_metrics=[(name, formatting.metric(name, k)) for name, k in tables.breakdown_columns(metrics)],
        across=tables.across(metrics), gallery=shown,
        matches=subgroups.matches(matched, metrics),
        match_notes=subgroups.match_notes(matched, metrics),
        strata=subgroups.strata(strata, metrics), strata_by=subgroups.HEADINGS,
        shown_features=_shown_features(best),
        calibration=influence.table(calibration, metrics), calibration_summary=influence.summary(calibration, metrics),
        equal_shares_nll=formatting.plain(math.log(facts.distractors + 1)),
        calibration_none=influence.none_table(calibration, metrics),
        calibration_pools=influence.pools(calibration, metrics),
        indices=_indices(files.indices), times=stages,
        csv_files=list(CSV_FILES.items()), plots=plots.inline(), legends=plots.legends(),
        choices=choices,
    )  # fmt: skip
    rows = {
        "headline.csv": tables.headline_rows(metrics),
        "breakdown.csv": tables.breakdown_rows(metrics),
        "comparisons.csv": comparisons,
        "matched.csv": matched,
        "strata.csv": subgroups.strata_rows(strata),
        "recall_curve.csv": plots.recall_rows,
        "calibration.csv": calibration,
        "gallery.csv": tables.retrieval_rows(shown_set for sets in shown.sets.values() for shown_set in sets),
        "stages.csv": [asdict(stage) for stage in stages],
    }
    return Report(page.render(context), rows, plots)


def save(report: Report, html: Path) -> None:
    """Write the page, and tables and plots next to it, each atomically."""
    for name, rows in report.tables.items():
        tables.write_csv(html.parent / name, rows)
    for name, text in report.plots.files().items():
        atomic.write_text(html.parent / name, text)
    atomic.write_text(html, report.html)


def _shown_features(best: Mapping[str, tuple[str, str]]) -> list[str]:
    """The best features as text, by kind of sets where they differ."""
    phrases = {kind: f"{mapper} {encoder} features" for kind, (encoder, mapper) in best.items()}
    if len(set(phrases.values())) == 1:
        return list(phrases.values())[:1]
    return [f"{phrase} (for {kind} sets)" for kind, phrase in phrases.items()]


def _table_of(paths: Iterable[Path], encoder: str, mapper: str | None) -> Path:
    """Find the path of an encoder and mapper among `.../<encoder>/<mapper>/<table>.parquet`."""
    for path in paths:
        if (path.parent.parent.name, path.parent.name) == (encoder, mapper):
            return path
    raise InputError(
        f"no table of encoder {encoder!r} and mapper {mapper!r} among {[str(path) for path in paths]}"
    )


def _base_model(facts: Facts, sections: Mapping[str, Any]) -> str:
    base, family = facts.base, sections.get("base_model", {}).get("family")
    parts = [
        f"{family}" if family else "",
        f"{base['resolution']} pixels",
        base["prediction_type"].replace("_", " "),
    ]
    return f"{', '.join(part for part in parts if part)}; fingerprint {base['fingerprint'][:12]}"


def _kinds(facts: Facts) -> list[tuple[str, int]]:
    numbers = {kind: sum(row["kind"] == kind for row in facts.sets) for kind in KINDS}
    return [(kind, number) for kind, number in numbers.items() if number]


def _split_table(facts: Facts) -> list[tuple[str, list[int], int]]:
    """(kind, sets in each split, sets of categories that the train split lacks)."""
    lines = []
    for kind, _ in _kinds(facts):
        rows = [row for row in facts.sets if row["kind"] == kind]
        numbers = [sum(row["split"] == split for row in rows) for split in SPLITS]
        lines.append((kind, numbers, sum(not row["seen"] for row in rows)))
    return lines


def _settings(sections: Mapping[str, Any]) -> str:
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in sections.items()]
    return "\n".join(lines)


def _indices(paths: Iterable[Path]) -> list[Row]:
    """Read the measured recall of each index; encoder and mapper are in its path."""
    names = ("factory", "rows", "queries", "k", "recall_at_k")
    rows = []
    for path in paths:
        found = stored.read_json(path)
        rows.append({name: found[name] for name in names} | dict(encoder=path.parent.name, mapper=path.stem))
    return rows
