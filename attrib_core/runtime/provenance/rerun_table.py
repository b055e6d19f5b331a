"""The rerun table: for each kind of change, the rules that it touches and all that then run.

`reruns.csv` is checked by the tests change for change, and is the source of docs/reruns.md.
"""

from __future__ import annotations

import csv
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "reruns.csv"
COLUMNS = ("kind", "change", "touches", "runs")


@dataclass(frozen=True)
class Row:
    """One change."""

    kind: str
    """`key` of the config, `module`, or `event`."""
    change: str
    """The key or file; `*` stands for any name. Of two rows that fit, the one without counts."""
    touches: frozenset[str]
    """Rules of which a job's own params, code or set of inputs change."""
    runs: frozenset[str]
    """These, and all that is made of their outputs."""


def rows(file: Path = FILE) -> list[Row]:
    """The table, in its order."""
    with file.open(encoding="utf-8", newline="") as stream:
        return [
            Row(
                one["kind"],
                one["change"],
                frozenset(one["touches"].split()),
                frozenset(one["runs"].split()),
            )
            for one in csv.DictReader(stream)
        ]


def find(kind: str, change: str, among: list[Row]) -> Row | None:
    """The row of a change: the one that names it, else the first whose pattern fits."""
    fitting = [row for row in among if row.kind == kind and fnmatch.fnmatchcase(change, row.change)]
    exact = [row for row in fitting if row.change == change]
    return next(iter([*exact, *fitting]), None)


def leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The keys of a config with their values: {"metrics.recall_ks": [1, 5]}. A list is one value."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def keys_of(rule: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config that a rule uses, with their values."""
    known = rows()
    return {
        key: value
        for key, value in leaves(config).items()
        if (row := find("key", key, known)) is not None and rule in row.touches
    }
