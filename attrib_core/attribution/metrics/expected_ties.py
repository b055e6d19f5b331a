"""Metrics of each query as expectations over random orders of equally similar candidates.

The exemplars of a query that tie with each other and with the same distractors are a block. Of a block with e exemplars
and t distractors, M = e + t candidates take the positions b + 1 ... b + M, where b candidates are more similar, h of
them exemplars. In a random order

    a place has an exemplar with probability e / M, so among the first j of them are e j / M exemplars expected;
    none of the first j has one with probability C(M - j, e) / C(M, e);
    given one at place p, h + 1 + (p - 1) (e - 1) / (M - 1) exemplars are expected down to it.

With H_n = 1 + 1/2 + ... + 1/n and D = H_{b + M} - H_b, the expected sum of the precisions of a block is therefore

    e / M ((h + 1) D + (e - 1) / (M - 1) (M - (b + 1) D))

A constant encoder has one block with all candidates, and then each metric is that of a random ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attrib_core.attribution.metrics.ceiling_and_chance import none_within


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of equally similar candidates that have exemplars, in the order of the ranking; arrays are (blocks,).

    query       index of the query, in rising order
    before      candidates that are more similar, b
    found       exemplars among these, h
    exemplars   e
    candidates  M
    """

    query: np.ndarray
    before: np.ndarray
    found: np.ndarray
    exemplars: np.ndarray
    candidates: np.ndarray

    def within(self, k: int) -> np.ndarray:
        """Return how many places of each block are among the first k, (blocks,)."""
        inside: np.ndarray = np.clip(k - self.before, 0, self.candidates)
        return inside


def blocks(query: np.ndarray, above: np.ndarray, tied: np.ndarray) -> Blocks:
    """Group exemplars into blocks, from arrays (rows,) as `per_query.positions_from_counts` takes them.

    Exemplars of a query that tie with the same distractors tie with each other. Those that tie with none may differ,
    but their order changes no metric.
    """
    order = np.lexsort((tied, above, query))
    columns = np.stack([query, above, tied])[:, order]
    new = np.ones(len(query), bool)
    new[1:] = (columns[:, 1:] != columns[:, :-1]).any(axis=0)
    first = np.flatnonzero(new)
    exemplars = np.diff(np.append(first, len(query)))
    of_query = columns[0, first]
    found = first - np.searchsorted(columns[0], of_query)  # less the rows before those of its query
    return Blocks(of_query, columns[1, first] + found, found, exemplars, exemplars + columns[2, first])


def expected_metrics(
    some: Blocks, queries: int, ks: Sequence[int]
) -> dict[tuple[str, int | None], np.ndarray]:
    """Compute the metrics of `per_query.per_query` as expectations, (queries,) float64; median_rank as a median."""
    n = _total(some, some.exemplars, queries)
    values: dict[tuple[str, int | None], np.ndarray] = {}
    for k in ks:
        inside = some.within(k)
        found = _total(some, some.exemplars * inside / some.candidates, queries)
        values["recall_at_k", k] = found / n
        values["capped_recall_at_k", k] = found / np.minimum(k, n)
        missed = none_within(inside, some.exemplars, some.candidates)
        none = np.ones(queries)
        np.multiply.at(none, some.query, missed)
        values["success_at_k", k] = 1.0 - none
    values["mean_average_precision", None] = _total(some, precisions(some), queries) / n
    values["median_rank", None] = best_positions(some, queries)
    return values


def precisions(some: Blocks) -> np.ndarray:
    """Compute the expected sum of the precisions at the exemplars of each block, (blocks,)."""
    last = some.before + some.candidates
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, int(last.max(initial=0)) + 1))])
    sums = harmonic[last] - harmonic[some.before]
    others = (some.exemplars - 1) / np.maximum(some.candidates - 1, 1)
    expected = (some.found + 1) * sums + others * (some.candidates - (some.before + 1) * sums)
    found: np.ndarray = some.exemplars / some.candidates * expected
    return found


def best_positions(some: Blocks, queries: int) -> np.ndarray:
    """Compute the median position of the best exemplar over the orders, (queries,): where P(within) reaches 1/2."""
    first = np.searchsorted(some.query, np.arange(queries))
    exemplars, candidates = some.exemplars[first], some.candidates[first]
    low, high = np.ones(queries, np.int64), candidates - exemplars + 1
    while (low < high).any():
        middle = (low + high) // 2
        reached = none_within(middle, exemplars, candidates) <= 0.5
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
        low = np.minimum(low, high)
    return (some.before[first] + low).astype(np.float64)


def expected_recall(some: Blocks, queries: int, ks: Sequence[int]) -> np.ndarray:
    """Compute the expected recall at each cut-off, averaged over the queries, (ks,) float64."""
    weight = some.exemplars / _total(some, some.exemplars, queries)[some.query] / max(1, queries)
    return np.array([float(weight @ (some.within(k) / some.candidates)) for k in ks])


def _total(some: Blocks, values: np.ndarray, queries: int) -> np.ndarray:
    return np.bincount(some.query, weights=values, minlength=queries)
