"""The rerun table: which rules a change of the config touches, and which rules run as a result.

The tests check `reruns.csv` against the workflow, change by change; docs/reruns.md is generated from it.
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
    """`key` of the config, or `event`."""
    change: str
    """The key or the event; in a key `*` matches any name. A row without `*` takes precedence."""
    touches: frozenset[str]
    """Rules with a job whose own params, code or set of inputs change."""
    runs: frozenset[str]
    """These rules and all that use their outputs."""


def rows(file: Path = FILE) -> list[Row]:
    """Read the table, in the order of the file."""
    with file.open(encoding="utf-8", newline="") as stream:
        return [
            Row(
                row["kind"],
                row["change"],
                frozenset(row["touches"].split()),
                frozenset(row["runs"].split()),
            )
            for row in csv.DictReader(stream)
        ]


def find(kind: str, change: str, table: list[Row]) -> Row | None:
    """Return the row of a change: the one that names it, else the first whose pattern matches."""
    matching = [row for row in table if row.kind == kind and fnmatch.fnmatchcase(change, row.change)]
    exact = [row for row in matching if row.change == change]
    return next(iter([*exact, *matching]), None)


def leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a config to dotted keys: {"metrics.recall_ks": [1, 5]}. A list is one value."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def keys_of(rule: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a config that a rule uses, with their values."""
    table = rows()
    return {
        key: value
        for key, value in leaves(config).items()
        if (row := find("key", key, table)) is not None and rule in row.touches
    }
