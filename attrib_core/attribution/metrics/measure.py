"""Measure retrieval and compare systems, from the counts of the tables `ranks` alone.

A value is the mean over queries, as published, by condition, split, kind of set, seen or unseen
category and prompt kind; median_rank is a median. Intervals are those of `common.intervals`, over models and
prompts; p-values of paired differences are of `paired_comparison`. `comparisons` compares two systems on the same
models: a mapper with 'untuned', the customized models with the control.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from attrib_core.attribution.metrics.matched_comparison import matched
from attrib_core.attribution.metrics.paired_comparison import paired
from attrib_core.attribution.metrics.query_groups import (
    EXEMPLAR_COLUMNS,
    RANK_COLUMNS,
    Group,
    System,
    joint_crossing,
    system_from_ranks,
)
from attrib_core.attribution.metrics.strata import strata
from attrib_core.attribution.metrics.summary import check_resamples, summarize
from attrib_core.common.constants import UNTUNED
from attrib_core.common.errors import InputError

__all__ = ["EXEMPLAR_COLUMNS", "RANK_COLUMNS", "compare", "matched", "measure", "strata", "systems"]


def systems(
    ranks: Sequence[tuple[str, pa.Table]],
    exemplars: pa.Table,
    *,
    recall_ks: Sequence[int],
    ties: str = "half",
) -> list[System]:
    """Compute the metrics of every query, one System for each table of ranks.

    ranks      (name for messages, table with RANK_COLUMNS), one encoder and mapper each
    exemplars  the table `exemplars`, or its EXEMPLAR_COLUMNS; with `category`, groups by category are known
    recall_ks  cut-offs
    ties       one of `per_query.POLICIES`

    Raises InputError for a cut-off below 1, another policy, and tables that do not belong together.
    """
    if not recall_ks or min(recall_ks) < 1:
        raise InputError(f"metrics.recall_ks: {list(recall_ks)}, expected numbers of at least 1")
    cuts = sorted(set(recall_ks))
    return [system_from_ranks(table, exemplars, cuts, ties, where) for where, table in ranks]


def measure(measured: Sequence[System]) -> Iterator[dict[str, Any]]:
    """Compute the rows of the table `metrics`; the interval is NaN where there is only one model."""
    for one in measured:
        for group, members in one.groups():
            for row in summarize(one, members):
                yield {"encoder": one.encoder, "mapper": one.mapper, **group._asdict(), **row}


def compare(measured: Sequence[System], *, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    """Compute the rows of the table `comparisons`: each mapper with 'untuned', customized with control.

    Both sides are averaged over the queries of the models that both have. Interval and p-value are NaN where
    there is only one model. `resamples` random draws for the p-values, where there are too many models to try all.
    """
    check_resamples(resamples)
    untuned = {one.encoder: (one, dict(one.groups())) for one in measured if one.mapper == UNTUNED}
    for one in measured:
        groups = dict(one.groups())
        for group, members in groups.items():
            mine = _Side(one, group, members)
            base, base_groups = untuned.get(one.encoder, (one, {}))
            if base is not one and group in base_groups:
                yield from _pair("mapper", mine, _Side(base, group, base_groups[group]), resamples, seed)
            control = group._replace(condition="control")
            if group.condition == "customized" and control in groups:
                yield from _pair("condition", mine, _Side(one, control, groups[control]), resamples, seed)


class _Side(NamedTuple):
    """One side of a comparison: the queries of one group of a system."""

    system: System
    group: Group
    members: np.ndarray


def _pair(comparison: str, ours: _Side, theirs: _Side, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    (one, group, mine), (other, against, others) = ours, theirs
    common = np.intersect1d(one.labels["exemplar_set"][mine], other.labels["exemplar_set"][others])
    mine = mine[np.isin(one.labels["exemplar_set"][mine], common)]
    others = others[np.isin(other.labels["exemplar_set"][others], common)]
    if not len(common):
        return
    crossing = joint_crossing([(one, mine), (other, others)])
    for key in one.values:
        found = paired(
            key[0], one.values[key][mine], other.values[key][others], crossing, common.tolist(),
            resamples=resamples, seed=seed,
        )  # fmt: skip
        yield {
            "encoder": one.encoder,
            "comparison": comparison,
            "mapper": one.mapper,
            "against_mapper": other.mapper,
            "against_condition": against.condition,
            **group._asdict(),
            "metric": key[0],
            "k": key[1],
            **found.columns(),
            "n_queries": len(mine),
            "n_models": len(common),
        }
