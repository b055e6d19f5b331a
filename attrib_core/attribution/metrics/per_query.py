"""From counts to positions: here, and nowhere else, it is decided how a tie counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from attrib_core.common.errors import InputError, close_matches

TIES = {"half": 0.5, "best": 0.0, "worst": 1.0}
"""Share of the tied distractors that count as ranked above the exemplar."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Where the exemplars of each query stand. Queries are in the order of their names, rows as in the table.

    queries   (queries,) names, sorted
    query     (rows,) index of the row's query
    hit       (rows,) 1 for the exemplar of its query that ranks highest, 2 for the next, ...
    position  (rows,) 1 + what ranks above: distractors, tied ones in part, and siblings; float64
    """

    queries: np.ndarray
    query: np.ndarray
    hit: np.ndarray
    position: np.ndarray

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sums of a value per row over the rows of each query, (queries,) float64."""
        return np.bincount(self.query, weights=values, minlength=len(self.queries))

    def exemplars(self) -> np.ndarray:
        """Number of exemplars of each query, (queries,) int64."""
        return np.bincount(self.query, minlength=len(self.queries))


def positions(ranks: pa.Table, ties: str = "half") -> Ranking:
    """Positions of the rows of a table `ranks` among all candidates of their query.

    position = hit + n_above + w n_tied, with w = 1/2 ("half": the middle of the positions that the
    exemplar may take), 0 ("best") or 1 ("worst"). The exemplars of a query stand one behind the other
    also where they tie with each other: which of two equal exemplars comes first changes no metric.
    Raises InputError for a query whose exemplars searched pools of different size.
    """
    queries, query = np.unique(ranks.column("query_id").to_numpy(zero_copy_only=False), return_inverse=True)
    exemplar = np.unique(ranks.column("exemplar_id").to_numpy(zero_copy_only=False), return_inverse=True)[1]
    counts = (ranks.column(name).to_numpy() for name in ("n_siblings_above", "n_above", "n_tied"))
    return placed(queries, query, exemplar, *counts, ties=ties)


def placed(
    queries: np.ndarray,
    query: np.ndarray,
    exemplar: np.ndarray,
    siblings_above: np.ndarray,
    above: np.ndarray,
    tied: np.ndarray,
    *,
    ties: str = "half",
) -> Ranking:
    """`positions` from plain arrays: the queries (queries,), and of each row (rows,) the index of its
    query, a number of its exemplar that settles an order among equals, and its counts."""
    if ties not in TIES:
        raise InputError(f"metrics.ties: {ties!r}, {close_matches(ties, TIES)}")
    order = np.lexsort((exemplar, siblings_above, query))
    first = np.searchsorted(query[order], np.arange(len(queries)))  # where each query begins in this order
    hit = np.empty(len(query), np.int64)
    hit[order] = np.arange(len(query)) - first[query[order]] + 1
    return Ranking(queries, query, hit, hit + above + TIES[ties] * tied)


def per_query(ranking: Ranking, ks: Sequence[int]) -> dict[tuple[str, int | None], np.ndarray]:
    """Every metric of every query, (queries,) float64, by name and cut-off.

    recall_at_k             exemplars at position k or better / exemplars
    capped_recall_at_k      the same count / min(k, exemplars)
    success_at_k            1 where any exemplar is at position k or better
    mean_average_precision  mean over the exemplars of hit / position: the precision at each of them
    median_rank             position of the best exemplar (its median over queries is the metric)
    """
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
    """Recall at each of many cut-offs, averaged over the queries of the table, (ks,) float64."""
    ranking = positions(ranks, ties)
    weight = 1.0 / ranking.exemplars()[ranking.query]
    order = np.argsort(ranking.position)
    reached = np.searchsorted(ranking.position[order], np.asarray(ks), side="right")
    found: np.ndarray = np.concatenate([[0.0], np.cumsum(weight[order])])[reached] / max(
        1, len(ranking.queries)
    )
    return found
