"""Accumulate counts, top candidates and histograms of a group of queries over the blocks of the pool.

One float32 product of vectors on the grid (`mixed_precision`) gives the histogram and a first look at all similarities.
For most queries a few pairs are too near to a threshold, and are computed again in float64. Where it is more than a
few, as for an exemplar in the middle of the pool, a second product, in plain float32, has a hundredth of the error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from attrib_core.attribution.ranking import fixed_point
from attrib_core.attribution.ranking.float32_counts import Counter, Look
from attrib_core.attribution.ranking.histogram import Histograms
from attrib_core.attribution.ranking.matmul import NumpyProducts, Products
from attrib_core.attribution.ranking.mixed_precision import MixedPrecision, Pairs, grid_bound
from attrib_core.attribution.ranking.top_k import TopK

FEW = 16  # queries for which a second product takes hardly longer than for one; only decides what is faster
OPERATIONS_A_PAIR = 1 << 15  # of a product, in the time of one pair in float64; the same

LeftOutRows = Sequence[np.ndarray] | None
"""Numbers of the rows of a block that are no distractors of a query, one array a query; None: no row of any."""


class RankAccumulator:
    """What is known of a group of queries from the distractors seen so far, whatever their blocks and order.

    thresholds  of each query the exact similarities of its exemplars, (exemplars,) float64
    vectors     of the queries, by `fixed_point.vectors`
    products    how to multiply, and where to count: `NumpyProducts`, or `TorchProducts` of a GPU
    """

    def __init__(
        self,
        thresholds: Sequence[np.ndarray],
        vectors: MixedPrecision,
        *,
        top_k: int,
        bins: int,
        query_block: int,
        products: Callable[[], Products] = NumpyProducts,
    ) -> None:
        self.counter = Counter(thresholds, tie=fixed_point.TIE)
        self.top = TopK(len(thresholds), top_k)
        self._vectors, self._grid = vectors, vectors.on_grid()
        self._histograms = Histograms(len(thresholds), bins, self._grid.scale)
        self._top_k, self._query_block = top_k, query_block
        self._memory = np.empty((0, 0), np.float32)  # for the vectors of a block on the grid
        self._first, self._second = products(), products()

    def add(self, ids: np.ndarray, unit: np.ndarray, left_out: LeftOutRows = None) -> None:
        """Add a block of distractors: ids (rows,) object, and unit vectors (rows, dim) float32."""
        if len(self._memory) < len(unit):
            self._memory = np.empty(unit.shape, np.float32)
        pairs = Pairs(self._vectors, fixed_point.vectors(unit, self._memory))
        grid = pairs.block.on_grid()
        loaded = self._first.load(grid.steps)
        bound = grid_bound(self._grid, grid, fixed_point.LONGEST)
        limit = 2 * self._top_k + unit.size // OPERATIONS_A_PAIR
        for start in range(0, len(bound), self._query_block):
            query = np.arange(start, min(start + self._query_block, len(bound)))
            scores = self._first.multiply(self._grid.steps[query], loaded)
            scores.histogram(self._histograms, start)
            if left_out is not None:
                rows, columns = _pairs(query, left_out)
                self._histograms.remove(query[rows], scores.take(rows, columns))
                scores.leave_out(rows, columns)
            first = Look(scores, query, bound[query], self._grid.scale**-2, limit)
            self._compare(first, pairs, ids, left_out)

    def rest(self, query: int, top: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the histogram of all candidates but the top: counts (bins,) int64, sums of similarity (bins,)."""
        return self._histograms.without(query, top)

    def _compare(self, first: Look, pairs: Pairs, ids: np.ndarray, left_out: LeftOutRows) -> None:
        """Count the distractors above exemplars and find the top candidates, with a second look where it pays."""
        rows = np.arange(len(first.query))
        uncounted = self.counter.count(first, rows, pairs)
        if 0 < len(uncounted) < FEW and first.limit is not None:
            uncounted = self.counter.count(first._replace(limit=FEW * first.limit), uncounted, pairs)
        unlisted = self.top.add(first, rows, pairs, first, ids)
        again = np.union1d(uncounted, unlisted)
        if len(again):
            query = first.query[again]
            scores = self._second.multiply(self._vectors.unit[query], self._second.load(pairs.block.unit))
            if left_out is not None:
                scores.leave_out(*_pairs(query, left_out))
            second = Look(scores, query, np.full(len(query), pairs.bound()))
            self.counter.count(second, np.searchsorted(again, uncounted), pairs)
            self.top.add(second, np.searchsorted(again, unlisted), pairs, first, ids)


def _pairs(query: np.ndarray, left_out: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs (place in `query`, row of the block) that are left out."""
    rows = [left_out[one] for one in query.tolist()]
    place = np.repeat(np.arange(len(rows)), [len(some) for some in rows])
    return place, np.concatenate(rows)
