"""What the report knows of a run: counts and measured values, read without the pictures."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attrib_core import tables
from attrib_core.errors import InputError
from attrib_core.report.times import ModelCost, model_costs

Row = dict[str, Any]
SPLITS = ("train", "validation", "test")
KINDS = ("object", "style")
UNTUNED = "untuned"
TUNED = "tuned"
"""Stands for the mapper that sets of a kind are best served by: see `Metrics.head`."""


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
        """From a rule's named inputs: a path, or a list of paths, a name."""
        found: dict[str, Any] = {}
        for field in fields(cls):
            value = inputs[field.name]
            several = field.type != "Path"
            if several:
                found[field.name] = tuple(
                    Path(path) for path in ([value] if isinstance(value, str) else value)
                )
            else:
                found[field.name] = Path(str(value))
        return cls(**found)


def trained_on(mapper: str) -> str:
    """The kinds of sets that a mapper was trained on, as the end of its name says: object, style or both."""
    return mapper.rpartition("-")[2]


@dataclass
class Metrics:
    """The table of metrics, looked up by what was measured.

    `mappers` have the names that the run gave them, such as 'linear-object'. Look-ups also take
    TUNED, which is another of these for each kind of sets.
    """

    rows: tuple[Row, ...]
    encoders: tuple[str, ...]
    mappers: tuple[str, ...]

    def __post_init__(self) -> None:
        names = ("encoder", "mapper", "condition", "split", "kind", "seen", "prompt_kind", "metric", "k")
        self._index = {tuple(row[name] for name in names): row for row in self.rows}

    def get(
        self,
        metric: str,
        k: int | None,
        *,
        encoder: str,
        mapper: str,
        kind: str,
        condition: str = "customized",
        split: str = "test",
        seen: str = "all",
        prompt_kind: str = "all",
    ) -> Row | None:
        """The row of one measurement, or None where the run has no such group or no such mapper."""
        real = self.real(mapper, kind)
        wanted = (encoder, real, condition, split, kind, seen, prompt_kind, metric, k)
        return self._index.get(wanted)

    def values(self, column: str, order: Sequence[Any] = (), **where: Any) -> list[Any]:
        """The distinct values of a column among the rows that match, in `order`, then sorted."""
        found = {row[column] for row in self.rows if all(row[name] == value for name, value in where.items())}
        return [value for value in order if value in found] + sorted(found - set(order))

    @property
    def heads(self) -> tuple[str, ...]:
        """The mappers that are heads, by their names in the run."""
        return tuple(name for name in self.mappers if name != UNTUNED)

    @property
    def tuned(self) -> tuple[str, ...]:
        """TUNED where the run has a head, else nothing: the columns that tables add."""
        return (TUNED,) if self.heads else ()

    def head(self, kind: str) -> str | None:
        """What TUNED means for sets of a kind: the head trained on it, else the one trained on both, else none."""
        by_kind = {trained_on(name): name for name in self.heads}
        return by_kind.get(kind, by_kind.get("both"))

    def real(self, mapper: str, kind: str) -> str | None:
        """The name in the run of a mapper or of TUNED, for sets of a kind."""
        return self.head(kind) if mapper == TUNED else mapper

    @property
    def kinds(self) -> list[str]:
        return self.values("kind", KINDS)

    @property
    def headline(self) -> list[tuple[str, int | None]]:
        """Recall at each k, then mean average precision."""
        ks = self.values("k", metric="recall_at_k")
        return [*(("recall_at_k", k) for k in ks), ("mean_average_precision", None)]

    @property
    def main_k(self) -> int:
        """The cut-off that the prose speaks of: 10, or the middle one."""
        ks = self.values("k", metric="recall_at_k")
        return 10 if 10 in ks else ks[len(ks) // 2]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Counts of a run, and what made it."""

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


def read_metrics(path: Path, encoders: Sequence[str], mappers: Sequence[str]) -> Metrics:
    """The measured values; encoders and mappers in the order of the config.

    Raises InputError where the table lacks one of them.
    """
    rows = tuple(measured(tables.read(path, "metrics")))
    for column, wanted in (("encoder", encoders), ("mapper", mappers)):
        missing = sorted(set(wanted) - {row[column] for row in rows})
        if missing:
            raise InputError(
                f"{path}: no rows for {column} {missing[0]!r}; the table must hold all of {list(wanted)}"
            )
    return Metrics(rows, tuple(encoders), tuple(mappers))


def rows_of(paths: Iterable[Path], name: str, columns: Sequence[str] | None = None) -> list[Row]:
    """The rows of the parts of a small table, as dictionaries."""
    rows: list[Row] = tables.read_parts(paths, name, columns).to_pylist()
    return rows


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; InputError where the file is none."""
    try:
        value: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a readable JSON file: {error}") from None
    return value


def count_rows(paths: Iterable[Path]) -> int:
    """Rows of some Parquet files, from their footers."""
    return sum(pq.read_metadata(path).num_rows for path in paths)


def read_facts(files: RunFiles) -> Facts:
    """Count what there is, without reading a picture."""
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
        pool_rows=count_rows(files.pool),
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
        base=read_json(files.base_model),
    )


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _distractors(path: Path) -> int:
    """Size of the pool that was searched; the same for all queries."""
    sizes = tables.read(path, "ranks", ["n_distractors"])["n_distractors"].unique().to_pylist()
    if len(sizes) != 1:
        raise InputError(f"{path}: n_distractors has the values {sizes[:3]}, expected one for all queries")
    size: int = sizes[0]
    return size


def measured(table: pa.Table) -> list[Row]:
    """Rows of a table with None in place of NaN, as intervals of a single model have it."""
    rows: list[Row] = table.to_pylist()
    return [
        {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in row.items()
        }
        for row in rows
    ]
