"""Select the k most similar candidates, with ties settled by name."""

from __future__ import annotations

import numpy as np


def select_top_k(scores: np.ndarray, ids: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k highest scores and their ids, unsorted; of ties at the border the first by name."""
    if len(scores) <= k:
        return scores, ids
    border = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > border)
    tied = np.flatnonzero(scores == border)
    n_tied = k - len(above)
    if len(tied) > n_tied:
        tied = tied[np.argsort(ids[tied], kind="stable")[:n_tied]]
    chosen = np.concatenate([above, tied])
    return scores[chosen], ids[chosen]


def sort_by_score(scores: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Sort by falling score; ties by name."""
    order = sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))
    return scores[order], [ids[i] for i in order]
