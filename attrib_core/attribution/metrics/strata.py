"""Measure finer groups of models: by category, and by the number of exemplars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from attrib_core.attribution.metrics.query_groups import System
from attrib_core.attribution.metrics.summary import summarize

SIZES = ((1, 1), (2, 4), (5, 8), (9, 16), (17, 32), (33, None))
"""First and last number of exemplars of each group; the published style sets have 1 to 67."""


def strata(measured: Sequence[System]) -> Iterator[dict[str, Any]]:
    """Compute the rows of the table `strata`: the groups of `measure`, split by category and exemplars.

    By category only where the exemplars were given with it. A group with a single stratum is left out.
    """
    for one in measured:
        for group, members in one.groups():
            if group.seen != "all":
                continue
            labels = group._asdict()
            del labels["seen"]
            for by, name, some in split_into_strata(one, members):
                for row in summarize(one, some):
                    yield {
                        "encoder": one.encoder, "mapper": one.mapper, **labels,
                        "group_by": by, "group": name, **row,
                    }  # fmt: skip


def split_into_strata(one: System, members: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Split queries by category and by number of exemplars; yields ('category', 'bird', indices)."""
    if "category" in one.labels:
        yield from _groups("category", one.labels["category"], members)
    yield from _groups("n_exemplars", size_groups(one.exemplars), members)


def size_groups(n: np.ndarray) -> np.ndarray:
    """Name the group of each number of exemplars (queries,): '1', '2-4', ..., '33+'."""
    names = [
        f"{low}+" if high is None else f"{low}-{high}" if high > low else f"{low}" for low, high in SIZES
    ]
    found: np.ndarray = np.array(names)[np.searchsorted([low for low, _ in SIZES], n, side="right") - 1]
    return found


def _groups(by: str, labels: np.ndarray, members: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    names = np.unique(labels[members]).tolist()
    if by == "n_exemplars":
        names.sort(key=lambda name: int(name.split("-")[0].rstrip("+")))
    for name in names if len(names) > 1 else []:
        yield by, str(name), members[labels[members] == name]
