"""Keep the k most similar candidates of each query, with ties settled by name."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from attrib_core.attribution.ranking.float32_counts import Look
from attrib_core.attribution.ranking.mixed_precision import Pairs, round_down

SUBTRACTED = 2.0**-22  # more than float32 rounds in the difference of a similarity and a margin


class Candidates(NamedTuple):
    """Candidates of a query: float64 similarities, products on the grid, and ids, (candidates,) each."""

    similarities: np.ndarray
    products: np.ndarray
    ids: np.ndarray


class TopK:
    """The k most similar candidates of each query among those seen so far."""

    def __init__(self, queries: int, k: int) -> None:
        self._k = k
        none = Candidates(np.empty(0), np.empty(0, np.float32), np.empty(0, object))
        self._found = [[none] for _ in range(queries)]
        self._waiting = np.zeros(queries, np.int64)  # candidates found since the best were selected
        self._floor = np.full(queries, -np.inf)  # the k-th best similarity so far, or a lower one

    def add(self, look: Look, rows: np.ndarray, pairs: Pairs, first: Look, ids: np.ndarray) -> np.ndarray:
        """Add the candidates `ids` of a block for some rows of a look; returns those with too many near pairs.

        first  the look at the same block on the grid; its queries follow one another
        """
        query = look.query[rows]
        low = round_down((self._floor[query] - look.bound[rows]) / look.step)
        margin = -round_down(-(2.0 * look.bound[rows] + SUBTRACTED) / look.step)

        def again(place: np.ndarray, column: np.ndarray) -> None:
            owner = query[place]
            similarities = pairs.similarities(owner, column)
            kept = np.flatnonzero(similarities >= self._floor[owner])
            owner, column, similarities = owner[kept], column[kept], similarities[kept]
            products = first.scores.take(owner - first.query[0], column)
            found = Candidates(similarities, products, ids[column])
            edges = np.flatnonzero(np.diff(owner, prepend=-1, append=-1))
            for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
                self._extend(int(owner[start]), Candidates(*(values[start:stop] for values in found)))

        return rows[look.scores.highest(rows, self._k, low, margin, look.limit, again)]

    def of_query(self, query: int) -> Candidates:
        """Return the most similar candidates of a query, sorted; ties by name."""
        self._select(query)
        best = self._found[query][0]
        order = np.argsort(-best.similarities, kind="stable")
        if (np.diff(best.similarities[order]) == 0).any():
            order = np.array(sorted(order, key=lambda i: (-best.similarities[i], best.ids[i])))
        return Candidates(*(values[order] for values in best))

    def _extend(self, query: int, found: Candidates) -> None:
        self._found[query].append(found)
        self._waiting[query] += len(found.ids)
        if self._waiting[query] > self._k // 2 or self._floor[query] == -np.inf:
            self._select(query)

    def _select(self, query: int) -> None:
        joined = Candidates(*map(np.concatenate, zip(*self._found[query], strict=True)))
        chosen = select_top_k(joined.similarities, joined.ids, self._k)
        self._found[query] = [Candidates(*(values[chosen] for values in joined))]
        self._waiting[query] = 0
        if len(chosen) == self._k:
            self._floor[query] = joined.similarities[chosen].min()


def select_top_k(scores: np.ndarray, ids: np.ndarray, k: int) -> np.ndarray:
    """Return the places of the k highest scores, unsorted; of ties at the border the first by name."""
    if len(scores) <= k:
        return np.arange(len(scores))
    border = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > border)
    tied = np.flatnonzero(scores == border)
    n_tied = k - len(above)
    if len(tied) > n_tied:
        tied = tied[np.argsort(ids[tied], kind="stable")[:n_tied]]
    return np.concatenate([above, tied])
