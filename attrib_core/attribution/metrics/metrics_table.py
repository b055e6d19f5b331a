"""Read a run's table of metrics and look rows up in it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from attrib_core.common.errors import InputError
from attrib_core.storage import tables

Row = dict[str, Any]


SPLITS = ("train", "validation", "test")


KINDS = ("object", "style")


UNTUNED = "untuned"


TUNED = "tuned"
"""Stands for the mapper that sets of a kind are best served by: see `Metrics.head`."""


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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; InputError where the file is none."""
    try:
        value: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a readable JSON file: {error}") from None
    return value


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
