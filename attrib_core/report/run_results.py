"""The files of a run that the report reads, and counts from them that need no images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from attrib_core.attribution.metrics.metrics_table import Row
from attrib_core.common.errors import InputError
from attrib_core.report.sections.timings import ModelCost, model_costs
from attrib_core.storage import parquet_files, tables


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The files of a run that the report reads; several paths where a stage writes several."""

    pool: tuple[Path, ...]
    rejects: tuple[Path, ...]
    exemplars: Path
    excluded: Path
    base_model: Path
    models: tuple[Path, ...]
    queries: tuple[Path, ...]
    sample: tuple[Path, ...]
    curves: tuple[Path, ...]
    choices: tuple[Path, ...]
    indices: tuple[Path, ...]
    ranks: tuple[Path, ...]
    candidates: tuple[Path, ...]
    metrics: Path
    comparisons: Path
    strata: Path
    matched: Path
    calibration: tuple[Path, ...]
    reliability: tuple[Path, ...]
    soft_scores: tuple[Path, ...]

    @classmethod
    def of(cls, inputs: dict[str, Any]) -> RunFiles:
        """Return the files from the named inputs of a rule: a path or a list of paths each."""
        found: dict[str, Any] = {}
        for field in fields(cls):
            value = inputs[field.name]
            if field.type == "Path":
                found[field.name] = Path(str(value))
            else:
                found[field.name] = tuple(map(Path, [value] if isinstance(value, str) else value))
        return cls(**found)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Counts of a run, its base model and the cost of customization."""

    pool_rows: int
    rejects: dict[str, int]
    excluded: dict[str, int]
    excluded_rows: int
    distractors: int
    sets: list[Row]
    exemplars: int
    queries: dict[str, int]
    methods: list[str]
    steps: list[int]
    devices: list[str]
    losses: tuple[float, float]
    model_seconds: float
    model_costs: list[ModelCost]
    modifier_token: str
    base: dict[str, Any]


def rows_of(paths: Iterable[Path], name: str, columns: Sequence[str] | None = None) -> list[Row]:
    """Read all parts of a small table."""
    rows: list[Row] = tables.read_parts(paths, name, columns).to_pylist()
    return rows


def read_facts(files: RunFiles) -> Facts:
    """Read the counts of a run, without reading images."""
    exemplars = tables.read(
        files.exemplars, "exemplars", ["exemplar_set", "kind", "category", "style", "split", "seen"]
    ).to_pylist()
    sizes = Counter(row["exemplar_set"] for row in exemplars)
    sets = {row["exemplar_set"]: row | dict(size=sizes[row["exemplar_set"]]) for row in exemplars}
    excluded = tables.read(files.excluded, "excluded", ["image_id", "reason"])
    models = rows_of(files.models, "models")
    queries: Counter[str] = Counter()
    for batch in tables.iterate(files.queries, ["condition"], 65536):
        for entry in pc.value_counts(batch.column("condition")).to_pylist():
            queries[entry["values"]] += entry["counts"]
    return Facts(
        pool_rows=parquet_files.count_rows(files.pool),
        rejects=_counts(row["reason"] for row in rows_of(files.rejects, "rejects")),
        excluded=_counts(excluded["reason"].to_pylist()),
        excluded_rows=len(set(excluded["image_id"].to_pylist())),
        distractors=_distractors(files.ranks[0]),
        sets=list(sets.values()),
        exemplars=len(exemplars),
        queries=dict(queries),
        methods=sorted({row["method"] for row in models}),
        steps=sorted({row["steps"] for row in models}),
        devices=sorted({row["device"] for row in models}),
        losses=(min(row["loss"] for row in models), max(row["loss"] for row in models)),
        model_seconds=sum(row["seconds"] for row in models) / len(models),
        model_costs=model_costs(models),
        modifier_token=models[0]["modifier_token"],
        base=tables.read_json(files.base_model),
    )


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _distractors(path: Path) -> int:
    """Read the number of distractors, which is the same for all queries."""
    sizes = tables.read(path, "ranks", ["n_distractors"])["n_distractors"].unique().to_pylist()
    if len(sizes) != 1:
        raise InputError(f"{path}: n_distractors has the values {sizes[:3]}, expected one for all queries")
    size: int = sizes[0]
    return size
