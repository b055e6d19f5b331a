"""Accumulate counts, top candidates and histograms of a group of queries over the blocks of the pool."""

from __future__ import annotations

import numpy as np

from attrib_core.attribution.ranking import fixed_point
from attrib_core.attribution.ranking.top_k import select_top_k, sort_by_score


class RankAccumulator:
    """Sums over the distractors seen so far, all of them integers, so the order of blocks does not matter.

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
        self._floor = np.full(queries, -np.inf)  # the k-th best similarity so far
        self._counts = np.zeros((queries, bins), np.int64)
        self._sums = np.zeros((queries, bins), np.int64)

    def add(self, first: int, scores: np.ndarray, ids: np.ndarray) -> None:
        """Add exact similarities (queries, candidates) of queries first, first + 1, ..."""
        for query, row in enumerate(scores, start=first):
            self._count(query, row)
            self._update_top(query, row, ids)
            counts, sums = self._histogram(row)
            self._counts[query] += counts
            self._sums[query] += sums

    def top(self, query: int) -> tuple[np.ndarray, list[str]]:
        """Return the exact similarities and ids of the top candidates, sorted; ties by name."""
        return sort_by_score(*self._top[query])

    def rest(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the histogram of all other candidates: counts (bins,) int64, sums of similarity (bins,)."""
        counts, sums = self._histogram(self._top[query][0])
        return self._counts[query] - counts, fixed_point.from_steps(self._sums[query] - sums)

    def _histogram(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index, steps = fixed_point.histogram_bins(scores, self._bins)
        sums = np.bincount(index, weights=steps, minlength=self._bins).astype(np.int64)
        return np.bincount(index, minlength=self._bins), sums

    def _count(self, query: int, row: np.ndarray) -> None:
        span = slice(self.starts[query], self.starts[query + 1])
        thresholds = self.thresholds[span]
        if len(thresholds) > 2:  # one pass that drops what is below all exemplars makes the others short
            row = row[row >= thresholds.min() - fixed_point.TIE]
        for exemplar, threshold in enumerate(thresholds, start=span.start):
            above = np.count_nonzero(row > threshold + fixed_point.TIE)
            self.above[exemplar] += above
            self.tied[exemplar] += np.count_nonzero(row >= threshold - fixed_point.TIE) - above

    def _update_top(self, query: int, row: np.ndarray, ids: np.ndarray) -> None:
        entering = np.flatnonzero(row >= self._floor[query])
        if not len(entering):
            return
        if len(entering) > self._top_k:  # the first block: look up the ids of few candidates, not of all
            border = np.partition(row, len(row) - self._top_k)[len(row) - self._top_k]
            entering = np.flatnonzero(row >= border)
        scores, names = self._top[query]
        scores = np.concatenate([scores, row[entering]])
        names = np.concatenate([names, ids[entering]])
        self._top[query] = select_top_k(scores, names, self._top_k)
        if len(self._top[query][0]) == self._top_k:
            self._floor[query] = self._top[query][0].min()
