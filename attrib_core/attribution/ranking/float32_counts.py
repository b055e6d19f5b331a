"""Exact counts of more similar distractors from float32 matrix products.

A float32 matrix product is twice as fast as one in float64, but its last bits differ from library to
library and from block to block, and may put a distractor on either side of an exemplar. How far a float32
product can be off is bounded (`error_bound`). So a distractor whose similarity differs from that of an
exemplar by more than the bound is counted from the product, and the few similarities within the bound are
computed again from float64 vectors. The counts are those of the float64 vectors alone, whatever the blocks,
the library and the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from attrib_core.attribution.ranking.matmul import Product, numpy_product

TIE = 2.0**-40
"""Largest difference of tied similarities: float64 sums of 4,096 products, in any order, differ by less than 2**-41."""
PAIR_BLOCK = 4096  # similarities computed again in one step; bounds memory, never changes a result
MAX_PENDING = 1 << 18  # pairs that are collected for it; the same
UNIT_ERROR = 2.0**-22  # length of the difference of a float32 vector from its float64 vector
ROUNDOFF = 2.0**-24  # largest relative error of one float32 operation


class MixedPrecision(NamedTuple):
    """Unit vectors in float32 for matrix products, and in float64 for what is computed again.

    unit    (rows, dim) float32, each within UNIT_ERROR of its float64 vector
    points  function from row numbers to vectors (len(numbers), dim) float64
    """

    unit: np.ndarray
    points: Callable[[np.ndarray], np.ndarray]


def error_bound(dim: int) -> float:
    """Bound the difference of a float32 product of two vectors from the float64 similarity.

    Adding n products in float32 in any order, with or without fused operations, errs by at most
    n u / (1 - n u) times the sum of their magnitudes (Higham, Accuracy and Stability, 3.1), with
    u = 2**-24; by Cauchy and Schwarz that sum is at most the product of the lengths. Two more
    operations are allowed for a library that scales the result. The differences of both vectors from
    their float64 vectors and underflow are added.
    """
    terms = (dim + 2) * ROUNDOFF
    summing = terms / (1.0 - terms) * (1.0 + UNIT_ERROR) ** 2
    return summing + 2.0 * UNIT_ERROR * (1.0 + UNIT_ERROR) + dim * 2.0**-125


class Counter:
    """Counts over the distractors seen so far, for a group of queries.

    starts      (queries + 1,) exemplars of query q are starts[q]:starts[q + 1]
    thresholds  (exemplars,) float64 similarity of query and exemplar
    above, tied (exemplars,) int64, distractors more similar than the exemplar, equally similar
    """

    def __init__(
        self, thresholds: Sequence[np.ndarray], dim: int, *, product: Product = numpy_product
    ) -> None:
        self.starts = np.concatenate([[0], np.cumsum([len(values) for values in thresholds])]).astype(np.intp)
        self.thresholds = np.concatenate([np.empty(0), *thresholds])
        self.above = np.zeros(len(self.thresholds), np.int64)
        self.tied = np.zeros(len(self.thresholds), np.int64)
        reach = TIE + error_bound(dim)
        self._low = _round_down(self.thresholds - reach)
        self._high = -_round_down(-self.thresholds - reach)
        self._product = product
        self._buffer = np.empty(0, np.float32)

    def add(self, queries: MixedPrecision, block: MixedPrecision, *, query_block: int) -> None:
        """Count a block of distractors."""
        multiply = self._product(block.unit)
        for first in range(0, len(queries.unit), query_block):
            some = queries.unit[first : first + query_block]
            scores = self._output(len(some), len(block.unit))
            multiply(some, scores)
            self._count(first, scores, queries, block)

    def _output(self, rows: int, columns: int) -> np.ndarray:
        """Return memory for a product, the same each time: fresh pages cost a tenth of the product itself."""
        if len(self._buffer) < rows * columns:
            self._buffer = np.empty(rows * columns, np.float32)
        return self._buffer[: rows * columns].reshape(rows, columns)

    def _count(self, first: int, scores: np.ndarray, queries: MixedPrecision, block: MixedPrecision) -> None:
        """Count what is clear, and compute again what is within the error bound, many pairs at once."""
        exemplars: list[np.ndarray] = []
        rows: list[np.ndarray] = []
        pending = 0
        for query, row in enumerate(scores, start=first):
            for exemplar, near in self._count_row(query, row):
                exemplars.append(np.full(len(near), exemplar))
                rows.append(near)
                pending += len(near)
            if pending > MAX_PENDING:
                self._count_again(np.concatenate(exemplars), np.concatenate(rows), queries, block)
                exemplars, rows, pending = [], [], 0
        if pending:
            self._count_again(np.concatenate(exemplars), np.concatenate(rows), queries, block)

    def _count_again(
        self, exemplar: np.ndarray, row: np.ndarray, queries: MixedPrecision, block: MixedPrecision
    ) -> None:
        query = np.searchsorted(self.starts, exemplar, side="right") - 1
        difference = _pair_similarities(queries, query, block, row) - self.thresholds[exemplar]
        above = exemplar[difference > TIE]
        tied = exemplar[np.abs(difference) <= TIE]
        self.above += np.bincount(above, minlength=len(self.above))
        self.tied += np.bincount(tied, minlength=len(self.tied))

    def _count_row(self, query: int, row: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Count what is clearly above the exemplars of a query; return (exemplar, rows within the bound)."""
        start, stop = int(self.starts[query]), int(self.starts[query + 1])
        order: Sequence[int] = range(start, stop)
        if stop - start > 1:  # from the lowest up: what is below one exemplar is below the next
            order = (start + np.argsort(self.thresholds[start:stop], kind="stable")).tolist()
        left: np.ndarray | None = None  # rows that are not below an earlier exemplar; None: all
        found = []
        for exemplar in order:
            reaching = row >= self._low[exemplar]
            count = int(np.count_nonzero(reaching))
            if not count:
                break
            if 4 * count < len(row):
                kept = np.flatnonzero(reaching)
                left, row = (kept if left is None else left[kept]), row[kept]
                reaching = None
            clear = row > self._high[exemplar]
            above = int(np.count_nonzero(clear))
            self.above[exemplar] += above
            if above < count:
                near = np.flatnonzero(~clear if reaching is None else reaching & ~clear)
                found.append((exemplar, near if left is None else left[near]))
        return found


def _pair_similarities(
    queries: MixedPrecision, query: np.ndarray, block: MixedPrecision, row: np.ndarray
) -> np.ndarray:
    """Compute the float64 similarities of pairs, (pairs,); each vector is read once."""
    distinct, left_index = np.unique(query, return_inverse=True)
    rows, right_index = np.unique(row, return_inverse=True)
    left = queries.points(distinct)
    products = np.empty(len(query))
    order = np.argsort(right_index, kind="stable")
    for start in range(0, len(order), PAIR_BLOCK):
        some = order[start : start + PAIR_BLOCK]
        first, last = right_index[some[0]], right_index[some[-1]]
        right = block.points(rows[first : last + 1])
        products[some] = np.einsum("ij,ij->i", left[left_index[some]], right[right_index[some] - first])
    return products


def _round_down(values: np.ndarray) -> np.ndarray:
    """Round to float32 towards minus infinity, so that a comparison in float32 leaves nothing out."""
    rounded = values.astype(np.float32)
    lower: np.ndarray = np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    return lower
