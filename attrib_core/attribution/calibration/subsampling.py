"""Reduce a batch: to some queries, to the pool without exemplars, or to a smaller pool."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from attrib_core.attribution.calibration.similarities import SimilarityBatch
from attrib_core.common import hashing


def select_queries(batch: SimilarityBatch, chosen: np.ndarray) -> SimilarityBatch:
    """Return the chosen queries; `chosen` is (queries,) bool."""
    part = _select_entries(batch, chosen[batch.query])
    queries, kinds, sets = (
        [value for value, keep in zip(values, chosen, strict=True) if keep]
        for values in (batch.queries, batch.kinds, batch.sets)
    )
    query = (np.cumsum(chosen) - 1)[part.query]
    return replace(part, queries=queries, kinds=kinds, sets=sets, query=query)


def hold_out_exemplars(batch: SimilarityBatch) -> SimilarityBatch:
    """Return the same queries without their exemplars: none of the candidates is a source."""
    return _select_entries(batch, np.arange(len(batch.query)) >= batch.exemplars).with_gaps()


def subsample_pool(batch: SimilarityBatch, share: float, seed: int) -> SimilarityBatch:
    """Return the batch for a smaller pool: about this share of the distractors, all exemplars.

    A top distractor is kept or dropped by a number drawn from the seed and its id, for all queries alike. The
    candidates of a bin have no ids, so their count is multiplied by the share, its expected value. Counts are
    then fractional, and do not depend on the order of the queries or on the other queries.
    """
    if share >= 1.0:
        return batch
    singles = batch.exemplars + batch.top
    kept = np.ones(len(batch.query), bool)
    names = batch.ids[batch.exemplars : singles]
    kept[batch.exemplars : singles] = [_uniform(seed, name) < share for name in names]
    count = batch.count.copy()
    count[singles:] *= share
    return _select_entries(replace(batch, count=count), kept).with_gaps()


@lru_cache(maxsize=1 << 20)
def _uniform(seed: int, name: str) -> float:
    """Draw a number in [0, 1), the same for every share: smaller pools are subsets of larger ones."""
    return hashing.seed(seed, "pool share", name) / 2.0**63


def _select_entries(batch: SimilarityBatch, kept: np.ndarray) -> SimilarityBatch:
    """Return some entries of all queries."""
    singles = batch.exemplars + batch.top
    own = kept[: batch.exemplars]
    return replace(
        batch,
        query=batch.query[kept],
        similarity=batch.similarity[kept],
        gap=batch.gap[kept],
        count=batch.count[kept],
        exemplars=int(np.count_nonzero(own)),
        top=int(np.count_nonzero(kept[batch.exemplars : singles])),
        ids=[name for name, keep in zip(batch.ids, kept[:singles], strict=True) if keep],
        distractors_above=batch.distractors_above[own],
        siblings_above=batch.siblings_above[own],
    )
