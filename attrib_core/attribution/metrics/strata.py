"""Metrics of finer groups of models: by category, and by the number of exemplars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from attrib_core.attribution.metrics.query_groups import System
from attrib_core.attribution.metrics.summary import check_resamples, summarize

SIZES = ((1, 1), (2, 4), (5, 8), (9, 16), (17, 32), (33, None))
"""First and last number of exemplars of each group; the published style sets have 1 to 67."""


def strata(measured: Sequence[System], *, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of the table `strata`: the groups of `measure` of all categories, each cut once more.

    By category only where the exemplars were given with it. A group that is the whole is left out.
    """
    check_resamples(resamples)
    for one in measured:
        for group, members in one.groups():
            if group.seen != "all":
                continue
            labels = group._asdict()
            del labels["seen"]
            for by, name, some in cut(one, members):
                for row in summarize(one, some, resamples=resamples, seed=seed):
                    yield {
                        "encoder": one.encoder, "mapper": one.mapper, **labels,
                        "group_by": by, "group": name, **row,
                    }  # fmt: skip


def cut(one: System, members: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Some queries by category and by number of exemplars: ('category', 'bird', their indices)."""
    if "category" in one.labels:
        yield from _groups("category", one.labels["category"], members)
    yield from _groups("n_exemplars", sizes(one.exemplars), members)


def sizes(n: np.ndarray) -> np.ndarray:
    """Numbers of exemplars (queries,) as the names of their groups: '1', '2-4', ..., '33+'."""
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
