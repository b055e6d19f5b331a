"""Histograms of similarities on the grid: how many fall in each bin, and their sum."""

from __future__ import annotations

from typing import Any

import numpy as np

FINE = 8192  # fine bins over [-1, 1], or one a bin if there are more


class Histograms:
    """Counts of a group of queries in equal bins over [-1, 1], each divided into `parts` fine bins.

    Fine bins go on beyond -1 and 1, where similarities fall by the rounding of vectors: they count as the outermost.
    Sums are those of the middles of fine bins: off by at most half of a fine bin for each similarity.

    total           number of fine bins
    factor, offset  the number of the fine bin of a product is the whole part of product * factor + offset; both are
                    float32 numbers, and each operation rounds alike on every device
    """

    def __init__(self, queries: int, bins: int, scale: float) -> None:
        """Make empty histograms for products of vectors on the grid of this scale (`Grid`)."""
        parts = max(1, FINE // bins)
        beyond = int(parts * bins / 2.0 * (2.0**24 / scale**2 - 1.0)) + 2
        self.total = bins * parts + 2 * beyond
        self.factor = float(np.float32(bins * parts / 2.0 / scale**2))
        self.offset = bins * parts / 2.0 + beyond
        self._counts = np.zeros((queries, self.total), np.int32)
        fine = np.clip(np.arange(self.total) - beyond, 0, bins * parts - 1)
        self._bin, self._middle = fine // parts, (fine + 0.5) * 2.0 / (bins * parts) - 1.0

    def add(self, query: int, counts: np.ndarray) -> None:
        """Add counts (at most total,) in fine bins to a query."""
        self._counts[query, : len(counts)] += counts

    def remove(self, query: np.ndarray, products: np.ndarray) -> None:
        """Take back single products of queries, (pairs,) each."""
        np.subtract.at(self._counts, (query, self.places(products).astype(np.intp)), 1)

    def without(self, query: int, products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the histogram of a query without some products: counts (bins,) int64, sums of similarity (bins,)."""
        rest = self._counts[query].copy()
        np.subtract.at(rest, self.places(products).astype(np.intp), 1)
        filled = rest.nonzero()[0]
        bins, rest = self._bin[filled], rest[filled]
        sums = np.bincount(bins, rest * self._middle[filled], self._bin[-1] + 1)
        return np.bincount(bins, rest, self._bin[-1] + 1).astype(np.int64), sums

    def places(self, products: Any) -> Any:
        """Compute numbers of fine bins, not yet rounded down, of an array or tensor."""
        return products * self.factor + self.offset
