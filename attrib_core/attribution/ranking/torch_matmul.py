"""Float32 matrix products, and what is counted in them where they were computed: on a device of torch.

Only counts, histograms and the few pairs that are computed again come back from the device.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from attrib_core.attribution.ranking.histogram import Histograms
from attrib_core.attribution.ranking.matmul import LOWEST, Again

COMPARED = 1 << 24  # products compared at once; bounds memory, never changes a result


class TorchProducts:
    """Multiply on a device of torch, such as 'cuda', in full float32: TF32 has too few digits."""

    def __init__(self, device: str) -> None:
        torch.backends.cuda.matmul.allow_tf32 = False
        self._device = device

    def load(self, block: np.ndarray) -> torch.Tensor:
        """Copy a block (columns, dim) to the device."""
        return torch.from_numpy(np.ascontiguousarray(block)).to(self._device)

    def multiply(self, queries: np.ndarray, block: torch.Tensor) -> TorchScores:
        """Multiply queries (rows, dim) and a block (columns, dim)."""
        return TorchScores(self.load(queries) @ block.T)


class TorchScores:
    """Products (rows, columns) float32 on a device."""

    def __init__(self, values: torch.Tensor) -> None:
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
        """Count products above thresholds, see `matmul.Scores`."""
        owner = np.repeat(np.arange(len(rows)), np.diff(starts))
        above, near = np.zeros(len(low), np.int64), np.zeros(len(low), np.int64)
        for some in self._parts(len(low)):
            values, least, most = self._thresholds(rows[owner[some]], low[some], high[some])
            above[some] = (values > most).sum(1).cpu().numpy()
            near[some] = (values >= least).sum(1).cpu().numpy() - above[some]
        pairs = np.bincount(owner, near, len(rows))
        crowded = np.zeros(len(rows), bool) if limit is None else pairs > limit
        above[crowded[owner]] = 0
        wanted = np.flatnonzero((near > 0) & ~crowded[owner])
        for part in self._parts(len(wanted)):
            chosen = wanted[part]
            values, least, most = self._thresholds(rows[owner[chosen]], low[chosen], high[chosen])
            place, column = torch.nonzero((values >= least) & (values <= most)).T.cpu().numpy()
            again(chosen[place], column)
        return above, crowded

    def highest(
        self, rows: np.ndarray, k: int, low: np.ndarray, margin: np.ndarray, limit: int | None, again: Again
    ) -> np.ndarray:
        """Pass on the highest products of each row, see `matmul.Scores`."""
        crowded = np.zeros(len(rows), bool)
        for part in self._parts(len(rows)):
            values, least, allowed = self._thresholds(rows[part], np.maximum(low[part], LOWEST), margin[part])
            if values.shape[1] >= k:
                border = torch.topk(values, k, dim=1).values[:, -1:]
                least = torch.maximum(least, border - allowed)
            found = values >= least
            if limit is not None:
                full = found.sum(1) > limit
                found &= ~full[:, None]
                crowded[part] = full.cpu().numpy()
            place, column = torch.nonzero(found).T.cpu().numpy()
            again(np.arange(part.start, part.stop)[place], column)
        return crowded

    def take(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return single products, (pairs,)."""
        found: np.ndarray = self.values[self._index(rows), self._index(columns)].cpu().numpy()
        return found

    def leave_out(self, rows: np.ndarray, columns: np.ndarray) -> None:
        """Put single products below all others."""
        self.values[self._index(rows), self._index(columns)] = -torch.inf

    def histogram(self, histograms: Histograms, first: int) -> None:
        """Add all products to the histograms of queries first, first + 1, ..."""
        for some in self._parts(len(self.values)):
            places = histograms.places(self.values[some]).to(torch.int64)
            rows, total = len(places), histograms.total
            places += torch.arange(rows, device=places.device)[:, None] * total
            counts = torch.bincount(places.flatten(), minlength=rows * total)
            for row, found in enumerate(counts.reshape(rows, total).cpu().numpy()):
                histograms.add(first + some.start + row, found)

    def _parts(self, total: int) -> Iterator[slice]:
        """Divide so many rows into parts whose products fit in memory once more."""
        step = max(1, COMPARED // max(1, self.values.shape[1]))
        for start in range(0, total, step):
            yield slice(start, min(start + step, total))

    def _thresholds(self, rows: np.ndarray, *limits: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Return rows of products, and columns of one number a row, on the device."""
        columns = (
            torch.from_numpy(np.ascontiguousarray(one)).to(self.values.device)[:, None] for one in limits
        )
        return self.values[self._index(rows)], *columns

    def _index(self, numbers: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers, np.int64)).to(self.values.device)
