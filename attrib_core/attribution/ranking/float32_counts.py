"""Counts at the speed of float32, as right as float64.

A float32 matrix product is twice as fast as one in float64, but its last bits are noise: they differ
from library to library and from block to block, and may put a distractor on either side of an
exemplar. How far a float32 product can be off is known, though (`error_bound`). So what lies further
from an exemplar than that is counted straight from the product, and the few similarities within it
are computed again from exact points. The counts are those of the exact points alone, whatever the
blocks, the library and the number of threads.

What the exact points are is the caller's choice: `GRID` are those of `attrib_core.attribution.ranking.fixed_point`, and
gives what `Tally` gives; `FLOAT64` are unit vectors in plain float64, as the published protocol has
them, where only equal vectors tie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from attrib_core.attribution.ranking import fixed_point
from attrib_core.attribution.ranking.matmul import Product, numpy_product
from attrib_core.attribution.ranking.top_k import best, in_order

PAIRS = 4096  # similarities computed again at once; bounds memory and changes nothing else
WAITING = 1 << 18  # pairs that may wait for it; the same
UNIT_ERROR = 2.0**-22  # length of the difference of a float32 unit vector from its exact point
ROUNDOFF = 2.0**-24  # largest relative error of one float32 operation


class Scale(NamedTuple):
    """How to read products of exact points: which number stands for 1, which difference is a tie."""

    one: float
    tie: float


GRID = Scale(fixed_point.ONE, fixed_point.TIE)
FLOAT64 = Scale(1.0, 2.0**-40)
"""Sums of 4,096 products in float64, in whatever order, differ by less than 2**-41."""


class Side(NamedTuple):
    """Some vectors twice: roughly, for the product, and exactly, for what is computed again.

    unit    (rows, dim) float32, within UNIT_ERROR of the exact points in units of `Scale.one`
    points  row numbers to exact points (len(numbers), dim) float64; their products are in units of
            `Scale.one`
    """

    unit: np.ndarray
    points: Callable[[np.ndarray], np.ndarray]


def error_bound(dim: int) -> float:
    """How far a float32 product of two rough vectors may be from the exact similarity.

    Adding n products in float32 in any order, with or without fused operations, errs by at most
    n u / (1 - n u) times the sum of their magnitudes (Higham, Accuracy and Stability, 3.1), with
    u = 2**-24; by Cauchy and Schwarz that sum is at most the product of the lengths. Two more
    operations are allowed for a library that scales the result. To this come the differences of both
    vectors from their exact points, and what underflows.
    """
    terms = (dim + 2) * ROUNDOFF
    summing = terms / (1.0 - terms) * (1.0 + UNIT_ERROR) ** 2
    return summing + 2.0 * UNIT_ERROR * (1.0 + UNIT_ERROR) + dim * 2.0**-125


class Counter:
    """Sums over the distractors seen so far, for a group of queries.

    starts      (queries + 1,) exemplars of query q are starts[q]:starts[q + 1]
    thresholds  (exemplars,) exact similarity of query and exemplar in units of `scale`
    above, tied (exemplars,) int64, distractors more similar than the exemplar, equally similar
    """

    def __init__(
        self,
        thresholds: Sequence[np.ndarray],
        dim: int,
        scale: Scale,
        *,
        top_k: int = 0,
        product: Product = numpy_product,
    ) -> None:
        self.starts = np.concatenate([[0], np.cumsum([len(values) for values in thresholds])]).astype(np.intp)
        self.thresholds = np.concatenate([np.empty(0), *thresholds])
        self.above = np.zeros(len(self.thresholds), np.int64)
        self.tied = np.zeros(len(self.thresholds), np.int64)
        self._scale = scale
        self._margin = error_bound(dim)
        reach = scale.tie / scale.one + self._margin
        self._low = _down(self.thresholds / scale.one - reach)
        self._high = -_down(-self.thresholds / scale.one - reach)
        self._product = product
        self._buffer = np.empty(0, np.float32)
        self._top_k = top_k
        self._top: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0, object))] * len(
            thresholds
        )
        self._floor = np.full(len(thresholds), -np.inf, np.float32)  # below this, none enters the top

    def add(
        self,
        queries: Side,
        block: Side,
        *,
        query_block: int,
        ids: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """Take in some distractors; `ids` names rows of the block, for the top."""
        multiply = self._product(block.unit)
        for first in range(0, len(queries.unit), query_block):
            some = queries.unit[first : first + query_block]
            scores = self._room(len(some), len(block.unit))
            multiply(some, scores)
            self._count(first, scores, queries, block)
            if self._top_k and ids is not None:
                self._keep_top(first, scores, queries, block, ids)

    def _room(self, rows: int, columns: int) -> np.ndarray:
        """Memory for a product, the same each time: fresh pages cost a tenth of the product itself."""
        if len(self._buffer) < rows * columns:
            self._buffer = np.empty(rows * columns, np.float32)
        return self._buffer[: rows * columns].reshape(rows, columns)

    def top(self, query: int) -> tuple[np.ndarray, list[str]]:
        """The most similar distractors as cosine (top,) float64, best first; equal ones by name."""
        scores, ids = in_order(*self._top[query])
        return scores / self._scale.one, ids

    def _count(self, first: int, scores: np.ndarray, queries: Side, block: Side) -> None:
        """Count what is surely above; what is too near to tell is computed again, many pairs at once."""
        exemplars: list[np.ndarray] = []
        rows: list[np.ndarray] = []
        waiting = 0
        for query, row in enumerate(scores, start=first):
            for exemplar, near in self._count_row(query, row):
                exemplars.append(np.full(len(near), exemplar))
                rows.append(near)
                waiting += len(near)
            if waiting > WAITING:
                self._count_again(np.concatenate(exemplars), np.concatenate(rows), queries, block)
                exemplars, rows, waiting = [], [], 0
        if waiting:
            self._count_again(np.concatenate(exemplars), np.concatenate(rows), queries, block)

    def _count_again(self, exemplar: np.ndarray, row: np.ndarray, queries: Side, block: Side) -> None:
        query = np.searchsorted(self.starts, exemplar, side="right") - 1
        difference = _products(queries, query, block, row) - self.thresholds[exemplar]
        above = exemplar[difference > self._scale.tie]
        tied = exemplar[np.abs(difference) <= self._scale.tie]
        self.above += np.bincount(above, minlength=len(self.above))
        self.tied += np.bincount(tied, minlength=len(self.tied))

    def _count_row(self, query: int, row: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """For the exemplars of one query, add what is surely above; (exemplar, rows too near to tell)."""
        start, stop = int(self.starts[query]), int(self.starts[query + 1])
        order: Sequence[int] = range(start, stop)
        if stop - start > 1:  # from the lowest up: what one exemplar leaves behind, the next need not see
            order = (start + np.argsort(self.thresholds[start:stop], kind="stable")).tolist()
        left: np.ndarray | None = None  # rows still in sight; None: all
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
            sure = row > self._high[exemplar]
            above = int(np.count_nonzero(sure))
            self.above[exemplar] += above
            if above < count:
                near = np.flatnonzero(~sure if reaching is None else reaching & ~sure)
                found.append((exemplar, near if left is None else left[near]))
        return found

    def _keep_top(
        self,
        first: int,
        scores: np.ndarray,
        queries: Side,
        block: Side,
        ids: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        for query, row in enumerate(scores, start=first):
            entering = np.flatnonzero(row >= self._floor[query])
            if not len(entering):
                continue
            if len(entering) > self._top_k:  # the first blocks: the k-th best of this one bounds what enters
                border = np.partition(row, len(row) - self._top_k)[len(row) - self._top_k]
                entering = np.flatnonzero(row >= _down(np.float64(border) - 2 * self._margin))
            exactly = _products(queries, np.full(len(entering), query), block, entering)
            kept, names = self._top[query]
            self._top[query] = best(
                np.concatenate([kept, exactly]), np.concatenate([names, ids(entering)]), self._top_k
            )
            if len(self._top[query][0]) == self._top_k:
                worst = self._top[query][0].min() / self._scale.one
                self._floor[query] = _down(worst - self._margin)


def _products(queries: Side, query: np.ndarray, block: Side, row: np.ndarray) -> np.ndarray:
    """Exact similarities of pairs, (pairs,) float64; each vector is made exact once."""
    asked, ask = np.unique(query, return_inverse=True)
    rows, place = np.unique(row, return_inverse=True)
    left = queries.points(asked)
    products = np.empty(len(query))
    order = np.argsort(place, kind="stable")
    for start in range(0, len(order), PAIRS):
        some = order[start : start + PAIRS]
        first, last = place[some[0]], place[some[-1]]
        right = block.points(rows[first : last + 1])
        products[some] = np.einsum("ij,ij->i", left[ask[some]], right[place[some] - first])
    return products


def _down(values: np.ndarray | np.floating) -> np.ndarray:
    """As float32, rounded down, so that a comparison in float32 leaves nothing out."""
    rounded = np.asarray(values, np.float64).astype(np.float32)
    lower: np.ndarray = np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    return lower
