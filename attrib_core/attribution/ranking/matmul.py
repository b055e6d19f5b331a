"""Float32 matrix products, and what is counted in them where they were computed: on the CPU with NumPy.

`torch_matmul` does the same on a GPU. Both are within `mixed_precision.error_bound`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from attrib_core.attribution.ranking.histogram import Histograms

MAX_PENDING = 1 << 18  # pairs collected before they are passed on; bounds memory, never changes a result
LOWEST = np.finfo(np.float32).min  # below all products, above what is left out

Again = Callable[[np.ndarray, np.ndarray], None]
"""Function that is passed places (pairs,) and columns (pairs,), sorted by place, as they are found."""


class Scores(Protocol):
    """The products of some queries, the rows, and a block, the columns; valid until the next multiplication.

    `rows` are numbers of rows (n,) int; a place is one in 0, 1, ..., n - 1. `limit` is the most pairs of a row that are
    passed to `again`; a row with more is crowded: no pair of it is passed on, and nothing of it is counted.
    """

    def count(
        self,
        rows: np.ndarray,
        starts: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
        limit: int | None,
        again: Again,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Count products above thresholds; those from `low` to `high`, both included, are passed to `again`.

        starts     (n + 1,) the thresholds of a row are starts[place]:starts[place + 1]; pairs have these as places
        low, high  (thresholds,) float32; those of a row are in the same order by low and by high

        Returns how many are above `high` (thresholds,), and which rows are crowded, (n,) bool.
        """

    def highest(
        self, rows: np.ndarray, k: int, low: np.ndarray, margin: np.ndarray, limit: int | None, again: Again
    ) -> np.ndarray:
        """Pass on products that are at least `low` (n,) and at most `margin` (n,) below the k-th highest of the row.

        Others may be passed on too, but none that is left out. Returns which rows are crowded, (n,) bool.
        """

    def take(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return single products, (pairs,)."""

    def leave_out(self, rows: np.ndarray, columns: np.ndarray) -> None:
        """Put single products below all others."""

    def histogram(self, histograms: Histograms, first: int) -> None:
        """Add all products to the histograms of queries first, first + 1, ..."""


class Products(Protocol):
    """A way to multiply. `load` keeps a block (columns, dim) for several products."""

    def load(self, block: np.ndarray) -> Any: ...

    def multiply(self, queries: np.ndarray, block: Any) -> Scores: ...


class NumpyProducts:
    """Multiply with NumPy, each time in the same memory: fresh pages cost a tenth of the product itself."""

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.float32)

    def load(self, block: np.ndarray) -> np.ndarray:
        """Return the block."""
        return block

    def multiply(self, queries: np.ndarray, block: np.ndarray) -> NumpyScores:
        """Multiply queries (rows, dim) and a block (columns, dim)."""
        rows, columns = len(queries), len(block)
        if len(self._buffer) < rows * columns:
            self._buffer = np.empty(rows * columns, np.float32)
        values = self._buffer[: rows * columns].reshape(rows, columns)
        np.matmul(queries, block.T, out=values)
        return NumpyScores(values)


class NumpyScores:
    """Products (rows, columns) float32 in memory; passes go row by row, which stays in the cache."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def count(
        self,
        rows: np.ndarray,
        starts: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
        limit: int | None,
        again: Again,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Count products above thresholds, see `Scores`."""
        above, crowded = np.zeros(len(low), np.int64), np.zeros(len(rows), bool)
        pending = _Pending(again)
        for place, row in enumerate(rows.tolist()):
            start, stop = int(starts[place]), int(starts[place + 1])
            found = _count_row(self.values[row], low[start:stop], high[start:stop], limit, above[start:stop])
            if found is None:
                above[start:stop], crowded[place] = 0, True
            else:
                for threshold, near in found:
                    pending.add(start + threshold, near)
        pending.flush()
        return above, crowded

    def highest(
        self, rows: np.ndarray, k: int, low: np.ndarray, margin: np.ndarray, limit: int | None, again: Again
    ) -> np.ndarray:
        """Pass on the highest products of each row, see `Scores`."""
        crowded = np.zeros(len(rows), bool)
        pending = _Pending(again)
        for place, (row, least) in enumerate(zip(rows.tolist(), low, strict=True)):
            values = self.values[row]
            if least <= LOWEST:
                least = max(_near_highest(values, k) - margin[place], LOWEST)
            found = (values >= least).nonzero()[0]
            if len(found) > 2 * k:
                some = values[found]
                found = found[some >= np.partition(some, len(some) - k)[len(some) - k] - margin[place]]
            if limit is not None and len(found) > limit:
                crowded[place] = True
            else:
                pending.add(place, found)
        pending.flush()
        return crowded

    def take(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return single products, (pairs,)."""
        found: np.ndarray = self.values[rows, columns]
        return found

    def leave_out(self, rows: np.ndarray, columns: np.ndarray) -> None:
        """Put single products below all others."""
        self.values[rows, columns] = -np.inf

    def histogram(self, histograms: Histograms, first: int) -> None:
        """Add all products to the histograms of queries first, first + 1, ..."""
        for row, products in enumerate(self.values):
            histograms.add(first + row, np.bincount(histograms.places(products).astype(np.int32)))


class _Pending:
    """Pairs on their way to `again`, many at once."""

    def __init__(self, again: Again) -> None:
        self._again = again
        self._places: list[np.ndarray] = []
        self._columns: list[np.ndarray] = []
        self._pairs = 0

    def add(self, place: int, columns: np.ndarray) -> None:
        if len(columns):
            self._places.append(np.full(len(columns), place))
            self._columns.append(columns)
            self._pairs += len(columns)
            if self._pairs > MAX_PENDING:
                self.flush()

    def flush(self) -> None:
        if self._pairs:
            self._again(np.concatenate(self._places), np.concatenate(self._columns))
            self._places, self._columns, self._pairs = [], [], 0


def _count_row(
    row: np.ndarray, low: np.ndarray, high: np.ndarray, limit: int | None, above: np.ndarray
) -> list[tuple[int, np.ndarray]] | None:
    """Count what is clearly above each threshold; return (threshold, columns near it), None if crowded."""
    order = np.argsort(low, kind="stable").tolist() if len(low) > 1 else range(len(low))
    left: np.ndarray | None = None  # columns that are not below an earlier threshold; None: all
    found, pairs = [], 0
    for threshold in order:  # from the lowest up: what is below one threshold is below the next
        reaching = row >= low[threshold]
        count = int(np.count_nonzero(reaching))
        if not count:
            break
        if 4 * count < len(row):
            kept = reaching.nonzero()[0]
            left, row = (kept if left is None else left[kept]), row[kept]
            reaching = None
        clear = row > high[threshold]
        above[threshold] = np.count_nonzero(clear)
        near = count - int(above[threshold])
        pairs += near
        if limit is not None and pairs > limit:
            return None
        if near:
            columns = (~clear if reaching is None else reaching & ~clear).nonzero()[0]
            found.append((threshold, columns if left is None else left[columns]))
    return found


def _near_highest(row: np.ndarray, k: int) -> np.float32:
    """Return a number that at least k of the row reach and few more; -inf where it has fewer."""
    groups = 4 * k
    if len(row) >= 2 * groups:  # the highest of groups are other elements each
        row = row[: len(row) // groups * groups].reshape(-1, groups).max(axis=0)
    if len(row) < k:
        return np.float32(-np.inf)
    lowest: np.float32 = np.partition(row, len(row) - k)[len(row) - k]
    return lowest


def products_for(device: str) -> Products:
    """Return the products for a device that `attrib_core.runtime.devices.choose` returned."""
    if not device.startswith("cuda"):
        return NumpyProducts()
    from attrib_core.attribution.ranking.torch_matmul import TorchProducts

    return TorchProducts(device)
