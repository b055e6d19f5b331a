"""What one pass over the pool adds up for a group of queries: counts, best candidates, histogram."""

from __future__ import annotations

import numpy as np

from attrib_core.attribution.ranking import fixed_point
from attrib_core.attribution.ranking.top_k import best, in_order


class Tally:
    """Sums over the distractors seen so far; every one of them an integer, so order does not matter.

    starts      (queries + 1,) exemplars of query q are starts[q]:starts[q + 1]
    thresholds  (exemplars,) exact similarity of query and exemplar
    above, tied (exemplars,) int64, distractors more similar than the exemplar, equally similar
    """

    def __init__(self, thresholds: list[np.ndarray], *, top_k: int, bins: int) -> None:
        queries = len(thresholds)
        self.starts = np.concatenate([[0], np.cumsum([len(values) for values in thresholds])]).astype(np.intp)
        self.thresholds = np.concatenate(thresholds)
        self.above = np.zeros(len(self.thresholds), np.int64)
        self.tied = np.zeros(len(self.thresholds), np.int64)
        self._top_k, self._bins = top_k, bins
        self._top: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0, object))] * queries
        self._floor = np.full(queries, -np.inf)  # below this, no candidate enters the top any more
        self._counts = np.zeros((queries, bins), np.int64)
        self._sums = np.zeros((queries, bins), np.int64)

    def add(self, first: int, scores: np.ndarray, ids: np.ndarray) -> None:
        """Take in the exact similarities (some queries, some candidates) of queries first, first + 1, ..."""
        for query, row in enumerate(scores, start=first):
            self._count(query, row)
            self._keep_top(query, row, ids)
            place, steps = fixed_point.places(row, self._bins)
            self._counts[query] += np.bincount(place, minlength=self._bins)
            self._sums[query] += np.bincount(place, weights=steps, minlength=self._bins).astype(np.int64)

    def top(self, query: int) -> tuple[np.ndarray, list[str]]:
        """The most similar candidates, best first; equal ones in the order of their names."""
        return in_order(*self._top[query])

    def rest(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Histogram of all candidates but the top: counts (bins,) int64, sums of similarity (bins,)."""
        place, steps = fixed_point.places(self._top[query][0], self._bins)
        counts = self._counts[query] - np.bincount(place, minlength=self._bins)
        sums = self._sums[query] - np.bincount(place, weights=steps, minlength=self._bins).astype(np.int64)
        return counts, fixed_point.from_steps(sums)

    def _count(self, query: int, row: np.ndarray) -> None:
        span = slice(self.starts[query], self.starts[query + 1])
        thresholds = self.thresholds[span]
        if len(thresholds) > 2:  # one pass that throws out what lies below all exemplars saves many
            row = row[row >= thresholds.min() - fixed_point.TIE]
        for exemplar, threshold in enumerate(thresholds, start=span.start):
            above = np.count_nonzero(row > threshold + fixed_point.TIE)
            self.above[exemplar] += above
            self.tied[exemplar] += np.count_nonzero(row >= threshold - fixed_point.TIE) - above

    def _keep_top(self, query: int, row: np.ndarray, ids: np.ndarray) -> None:
        entering = np.flatnonzero(row >= self._floor[query])
        if not len(entering):
            return
        if len(entering) > self._top_k:  # the first block: look up names of few, not of all
            border = np.partition(row, len(row) - self._top_k)[len(row) - self._top_k]
            entering = np.flatnonzero(row >= border)
        scores, names = self._top[query]
        kept = best(
            np.concatenate([scores, row[entering]]), np.concatenate([names, ids[entering]]), self._top_k
        )
        self._top[query] = kept
        if len(kept[0]) == self._top_k:
            self._floor[query] = kept[0].min()
