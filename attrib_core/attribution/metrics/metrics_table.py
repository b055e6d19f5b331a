"""Read the table `metrics` of a run and look up its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from attrib_core.common.constants import KINDS, UNTUNED
from attrib_core.common.errors import InputError
from attrib_core.storage import tables

Row = dict[str, Any]
TUNED = "tuned"
"""In place of the name of a mapper: the mapper trained for a kind of sets, see `Metrics.mapper_for`."""


def trained_on(mapper: str) -> str:
    """Return what a mapper was trained on, by the end of its name: object, style or both."""
    return mapper.rpartition("-")[2]


GROUP = ("encoder", "mapper", "condition", "split", "kind", "seen", "prompt_kind", "metric", "k")
"""The columns that say what a row measures."""


@dataclass
class Metrics:
    """The table of metrics with an index by group and metric.

    `mappers` are the names of the run, such as 'linear-object'. Look-ups also take TUNED, which is a different
    mapper for each kind of sets.
    """

    rows: tuple[Row, ...]
    encoders: tuple[str, ...]
    mappers: tuple[str, ...]

    def __post_init__(self) -> None:
        self._index = {tuple(row[name] for name in GROUP): row for row in self.rows}

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
        """Return the row of one measurement, None where the run has no such group or mapper."""
        name = self.resolve(mapper, kind)
        return self._index.get((encoder, name, condition, split, kind, seen, prompt_kind, metric, k))

    def values(self, column: str, order: Sequence[Any] = (), **where: Any) -> list[Any]:
        """Return the distinct values of a column in the rows that match: first those in `order`, then sorted."""
        found = {row[column] for row in self.rows if all(row[name] == value for name, value in where.items())}
        return [value for value in order if value in found] + sorted(found - set(order))

    @property
    def trained_mappers(self) -> tuple[str, ...]:
        """All mappers but UNTUNED."""
        return tuple(name for name in self.mappers if name != UNTUNED)

    @property
    def tuned(self) -> tuple[str, ...]:
        """TUNED where the run has a trained mapper, else nothing: the columns that tables add."""
        return (TUNED,) if self.trained_mappers else ()

    def mapper_for(self, kind: str) -> str | None:
        """Return what TUNED means for a kind of sets: the mapper trained on it, else on both, else None."""
        by_kind = {trained_on(name): name for name in self.trained_mappers}
        return by_kind.get(kind, by_kind.get("both"))

    def resolve(self, mapper: str, kind: str) -> str | None:
        """Return the name in the run of a mapper or of TUNED, for a kind of sets."""
        return self.mapper_for(kind) if mapper == TUNED else mapper

    @property
    def kinds(self) -> list[str]:
        """Kinds of sets that were measured."""
        return self.values("kind", KINDS)

    @property
    def headline(self) -> list[tuple[str, int | None]]:
        """Metrics of the headline table: recall at each k, then mean average precision."""
        ks = self.values("k", metric="recall_at_k")
        return [*(("recall_at_k", k) for k in ks), ("mean_average_precision", None)]

    @property
    def main_k(self) -> int:
        """The cut-off that the text of the report uses: 10, or the middle one."""
        ks = self.values("k", metric="recall_at_k")
        return 10 if 10 in ks else ks[len(ks) // 2]


def read_metrics(
    path: Path, encoders: Sequence[str], mappers: Sequence[str], columns: Sequence[str] | None = None
) -> Metrics:
    """Read the table `metrics`, all or some of its columns; encoders and mappers are in the order of the config.

    Raises InputError where the table lacks one of them.
    """
    rows = tuple(nan_to_none(tables.read(path, "metrics", columns)))
    for column, wanted in (("encoder", encoders), ("mapper", mappers)):
        missing = sorted(set(wanted) - {row[column] for row in rows})
        if missing:
            raise InputError(
                f"{path}: no rows for {column} {missing[0]!r}; the table must hold all of {list(wanted)}"
            )
    return Metrics(rows, tuple(encoders), tuple(mappers))


def nan_to_none(table: pa.Table) -> list[Row]:
    """Return the rows of a table with None in place of NaN, such as the interval of a single model."""
    return [
        {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in row.items()
        }
        for row in table.to_pylist()
    ]
