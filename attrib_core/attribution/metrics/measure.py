"""Metrics of attribution from the counts that ranking left: no similarity is looked at again.

A value is the mean over queries, as published, by condition, split, kind of set, seen or unseen
category and prompt kind; median_rank is a median. Intervals are by bootstrap over models,
p-values of paired differences by flips of models' signs. `comparisons` holds two systems against
each other on the same models: a mapper against 'untuned', the customized models against the control.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from attrib_core.attribution.metrics import bootstrap, sign_flip_test
from attrib_core.attribution.metrics.matched_comparison import matched
from attrib_core.attribution.metrics.per_query import (
    TIES,
    Ranking,
    per_query,
    placed,
    positions,
    recall_curve,
)
from attrib_core.attribution.metrics.query_groups import EXEMPLAR_COLUMNS, RANK_COLUMNS, Group, System, system
from attrib_core.attribution.metrics.strata import strata
from attrib_core.attribution.metrics.summary import average, check_resamples, resampled, summarize
from attrib_core.common.errors import InputError

__all__ = [
    "EXEMPLAR_COLUMNS", "RANK_COLUMNS", "TIES", "Ranking", "System",
    "compare", "matched", "measure", "per_query", "placed", "positions", "recall_curve", "strata",
    "summarize", "systems",
]  # fmt: skip

UNTUNED = "untuned"


def systems(
    ranks: Sequence[tuple[str, pa.Table]],
    exemplars: pa.Table,
    *,
    recall_ks: Sequence[int],
    ties: str = "half",
) -> list[System]:
    """The metrics of every query, one System for each table of ranks.

    ranks      (name for messages, table with RANK_COLUMNS), one encoder and mapper each
    exemplars  the table `exemplars`, or its EXEMPLAR_COLUMNS
    """
    if not recall_ks or min(recall_ks) < 1:
        raise InputError(f"metrics.recall_ks: {list(recall_ks)}, expected numbers of at least 1")
    cuts = sorted(set(recall_ks))
    return [system(table, exemplars, cuts, ties, where) for where, table in ranks]


def measure(measured: Sequence[System], *, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of the table `metrics`. The interval is NaN where there is only one model."""
    check_resamples(resamples)
    for one in measured:
        for group, members in one.groups():
            for row in summarize(one, members, resamples=resamples, seed=seed):
                yield {"encoder": one.encoder, "mapper": one.mapper, **group._asdict(), **row}


def compare(measured: Sequence[System], *, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of the table `comparisons`: each mapper against 'untuned', customized against control.

    Both sides are averaged over the queries of the models that both have. The interval is that of the
    difference over resamples of these models, the p-value that of `signs`; NaN where there is only one.
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
    """One side of a comparison: some queries of a system."""

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
    draws = bootstrap.resamples(common.tolist(), resamples, seed)
    my_sets = np.searchsorted(common, one.labels["exemplar_set"][mine])
    other_sets = np.searchsorted(common, other.labels["exemplar_set"][others])
    for key in one.values:
        a, b = one.values[key][mine], other.values[key][others]
        low, high, p = np.nan, np.nan, np.nan
        if len(common) > 1:
            differences = resampled(key[0], a, my_sets, draws) - resampled(key[0], b, other_sets, draws)
            low, high = bootstrap.interval(differences)
            added = sign_flip_test.of_models(key[0], a, my_sets, b, other_sets, len(common))
            p = sign_flip_test.p_value(added, common.tolist(), times=resamples, seed=seed)
        yield {
            "encoder": one.encoder,
            "comparison": comparison,
            "mapper": one.mapper,
            "condition": group.condition,
            "against_mapper": other.mapper,
            "against_condition": against.condition,
            "split": group.split,
            "kind": group.kind,
            "seen": group.seen,
            "prompt_kind": group.prompt_kind,
            "metric": key[0],
            "k": key[1],
            "value": average(key[0], a),
            "against_value": average(key[0], b),
            "difference": average(key[0], a) - average(key[0], b),
            "ci_low": low,
            "ci_high": high,
            "p_value": p,
            "n_models": len(common),
        }
