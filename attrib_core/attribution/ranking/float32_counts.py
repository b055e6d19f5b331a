"""Exact counts of more similar distractors from float32 matrix products.

A float32 matrix product is twice as fast as one in float64, but its last bits differ from library to
library and from block to block, and may put a distractor on either side of an exemplar. How far a float32
product can be off is bounded (`mixed_precision`). So a distractor whose similarity differs from that of an
exemplar by more than the bound is counted from the product, and the few similarities within the bound are
computed again from float64 vectors. The counts are those of the float64 vectors alone, whatever the blocks,
the library and the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from attrib_core.attribution.ranking.matmul import NumpyProducts, Products, Scores
from attrib_core.attribution.ranking.mixed_precision import (
    MixedPrecision,
    Pairs,
    round_down,
)

TIE = 2.0**-40
"""Largest difference of tied similarities: float64 sums of 4,096 products, in any order, differ by less than 2**-41."""


class Look(NamedTuple):
    """The float32 similarities of some queries to a block, and how far they may be off.

    scores  products, rows in the order of `query`; a similarity is product * step
    query   (rows,) numbers of the queries
    bound   (rows,) largest error of a similarity
    limit   near pairs of a query with the block above which a more precise look costs less; None: there is none
    """

    scores: Scores
    query: np.ndarray
    bound: np.ndarray
    step: float = 1.0
    limit: int | None = None


class Counter:
    """Counts over the distractors seen so far, for a group of queries.

    starts      (queries + 1,) exemplars of query q are starts[q]:starts[q + 1]
    thresholds  (exemplars,) float64 similarity of query and exemplar
    above, tied (exemplars,) int64, distractors more similar than the exemplar, equally similar
    """

    def __init__(
        self, thresholds: Sequence[np.ndarray], *, tie: float = TIE, products: Products | None = None
    ) -> None:
        self.starts = np.concatenate([[0], np.cumsum([len(values) for values in thresholds])]).astype(np.intp)
        self.thresholds = np.concatenate([np.empty(0), *thresholds])
        self.above = np.zeros(len(self.thresholds), np.int64)
        self.tied = np.zeros(len(self.thresholds), np.int64)
        self._tie = tie
        self._products = NumpyProducts() if products is None else products

    def add(self, queries: MixedPrecision, block: MixedPrecision, *, query_block: int) -> None:
        """Count a block of distractors."""
        loaded = self._products.load(block.unit)
        pairs = Pairs(queries, block)
        for first in range(0, len(queries.unit), query_block):
            some = queries.unit[first : first + query_block]
            scores = self._products.multiply(some, loaded)
            rows = np.arange(len(some))
            self.count(Look(scores, first + rows, np.full(len(some), pairs.bound())), rows, pairs)

    def count(self, look: Look, rows: np.ndarray, pairs: Pairs) -> np.ndarray:
        """Count for some rows of a look; returns those with more near pairs than its limit, which are not counted."""
        query = look.query[rows]
        sizes = self.starts[query + 1] - self.starts[query]
        ends = np.cumsum(sizes)
        exemplar = np.arange(sizes.sum()) + np.repeat(self.starts[query] - ends + sizes, sizes)
        thresholds, reach = self.thresholds[exemplar], np.repeat(self._tie + look.bound[rows], sizes)
        low = round_down((thresholds - reach) / look.step)
        high = -round_down(-(thresholds + reach) / look.step)
        owner = np.repeat(query, sizes)

        fine = pairs.bound()
        coarse = look.bound.max(initial=0.0) > fine

        def again(place: np.ndarray, column: np.ndarray) -> None:
            near, difference = np.arange(len(place)), np.empty(len(place))
            if coarse:  # a float32 product of single pairs settles most
                difference[:] = pairs.products(owner[place], column) - thresholds[place]
                near = np.flatnonzero(np.abs(difference) <= self._tie + fine)
            exact = pairs.similarities(owner[place[near]], column[near])
            difference[near] = exact - thresholds[place[near]]
            for total, found in (
                (self.above, difference > self._tie),
                (self.tied, np.abs(difference) <= self._tie),
            ):
                total += np.bincount(exemplar[place[found]], minlength=len(total))

        starts = np.concatenate([[0], ends])
        above, crowded = look.scores.count(rows, starts, low, high, look.limit, again)
        self.above[exemplar] += above
        return rows[crowded]
