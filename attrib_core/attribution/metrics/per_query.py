"""Retrieval metrics of each query, from the counts of the table `ranks`.

How ties count is decided here alone: ranking stores how many distractors are more similar than an exemplar
and how many are equally similar, and TIES says which share of the latter counts as ranked above it. EXPECTED
ranks them at random instead, and every metric is its expectation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from attrib_core.attribution.metrics.expected_ties import Blocks, blocks, expected_metrics, expected_recall
from attrib_core.common.errors import InputError, close_matches

TIES = {"half": 0.5, "above": 1.0, "below": 0.0}
"""Share of the tied distractors that counts as ranked above the exemplar, by name of the policy.

half   half of them: the exemplar is in the middle of the positions that it may take
above  all of them: pessimistic, the exemplar comes last among its ties
below  none of them, all are ranked below it: optimistic, the exemplar comes first among its ties
"""
EXPECTED = "expected"
"""The policy without a share: the expectation over random orders of tied candidates, see `expected_ties`."""
POLICIES = (*TIES, EXPECTED)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Positions of the exemplars of each query among all its candidates.

    queries   (queries,) names, sorted
    query     (rows,) index of the row's query
    hit       (rows,) 1 for the highest ranked exemplar of its query, 2 for the next, ...
    position  (rows,) 1 + number of candidates ranked above, float64: other exemplars, distractors, and the
              share of tied distractors that TIES gives; the middle with EXPECTED
    blocks    with EXPECTED: the ties of each query

    A row is one exemplar of one query, in the order of the table.
    """

    queries: np.ndarray
    query: np.ndarray
    hit: np.ndarray
    position: np.ndarray
    blocks: Blocks | None = None

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum a value per row over the rows of each query, (queries,) float64."""
        return np.bincount(self.query, weights=values, minlength=len(self.queries))

    def exemplars(self) -> np.ndarray:
        """Return the number of exemplars of each query, (queries,) int64."""
        return np.bincount(self.query, minlength=len(self.queries))


def positions(ranks: pa.Table, ties: str = "half") -> Ranking:
    """Compute the position of each row of a table `ranks` among all candidates of its query.

    position = hit + n_above + TIES[ties] n_tied. Exemplars that tie with each other still take different
    positions; which of two equal exemplars comes first changes no metric.
    """
    queries, query = np.unique(ranks.column("query_id").to_numpy(zero_copy_only=False), return_inverse=True)
    exemplar = np.unique(ranks.column("exemplar_id").to_numpy(zero_copy_only=False), return_inverse=True)[1]
    counts = (ranks.column(name).to_numpy() for name in ("n_siblings_above", "n_above", "n_tied"))
    return positions_from_counts(queries, query, exemplar, *counts, ties=ties)


def positions_from_counts(
    queries: np.ndarray,
    query: np.ndarray,
    exemplar: np.ndarray,
    siblings_above: np.ndarray,
    above: np.ndarray,
    tied: np.ndarray,
    *,
    ties: str = "half",
) -> Ranking:
    """Compute `positions` from arrays.

    queries                      (queries,) names
    query                        (rows,) index of the row's query
    exemplar                     (rows,) a number of the exemplar, which orders equally similar exemplars
    siblings_above, above, tied  (rows,) exemplars of the query that are more similar; distractors that are
                                 more similar, equally similar

    Raises InputError for another policy than POLICIES.
    """
    if ties not in POLICIES:
        raise InputError(f"metrics.ties: {ties!r}, {close_matches(ties, POLICIES)}")
    order = np.lexsort((exemplar, siblings_above, query))
    first = np.searchsorted(query[order], np.arange(len(queries)))  # where each query begins in `order`
    hit = np.empty(len(query), np.int64)
    hit[order] = np.arange(len(query)) - first[query[order]] + 1
    tied_blocks = blocks(query, above, tied) if ties == EXPECTED else None
    return Ranking(queries, query, hit, hit + above + TIES.get(ties, 0.5) * tied, tied_blocks)


def per_query(ranking: Ranking, ks: Sequence[int]) -> dict[tuple[str, int | None], np.ndarray]:
    """Compute every metric of every query, (queries,) float64, by name and cut-off.

    recall_at_k             exemplars at position k or better / exemplars
    capped_recall_at_k      the same count / min(k, exemplars)
    success_at_k            1 where any exemplar is at position k or better
    mean_average_precision  average precision: mean over the exemplars of hit / position
    median_rank             position of the best exemplar (its median over queries is the metric)

    With EXPECTED their expectations over orders of ties; of the position of the best exemplar the median.
    """
    if ranking.blocks is not None:
        return expected_metrics(ranking.blocks, len(ranking.queries), ks)
    n = ranking.exemplars()
    values: dict[tuple[str, int | None], np.ndarray] = {}
    for k in ks:
        found = ranking.total(ranking.position <= k)
        values["recall_at_k", k] = found / n
        values["capped_recall_at_k", k] = found / np.minimum(k, n)
        values["success_at_k", k] = (found > 0).astype(np.float64)
    values["mean_average_precision", None] = ranking.total(ranking.hit / ranking.position) / n
    best = np.full(len(n), np.inf)
    np.minimum.at(best, ranking.query, ranking.position)
    values["median_rank", None] = best
    return values


def recall_curve(ranks: pa.Table, ks: Sequence[int], ties: str = "half") -> np.ndarray:
    """Compute recall at each of many cut-offs, averaged over the queries of the table, (ks,) float64."""
    ranking = positions(ranks, ties)
    if ranking.blocks is not None:
        return expected_recall(ranking.blocks, len(ranking.queries), ks)
    weight = 1.0 / ranking.exemplars()[ranking.query]
    order = np.argsort(ranking.position)
    reached = np.searchsorted(ranking.position[order], np.asarray(ks), side="right")
    cumulative = np.concatenate([[0.0], np.cumsum(weight[order])])
    recall: np.ndarray = cumulative[reached] / max(1, len(ranking.queries))
    return recall
