"""The k most similar candidates, kept while a pool streams past."""

from __future__ import annotations

import numpy as np


def best(scores: np.ndarray, ids: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest, in no order; of equal ones at the border those whose names come first."""
    if len(scores) <= k:
        return scores, ids
    border = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > border)
    equal = np.flatnonzero(scores == border)
    wanted = k - len(above)
    if len(equal) > wanted:
        equal = equal[np.argsort(ids[equal], kind="stable")[:wanted]]
    chosen = np.concatenate([above, equal])
    return scores[chosen], ids[chosen]


def in_order(scores: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Best first; equal ones in the order of their names."""
    order = sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))
    return scores[order], [ids[i] for i in order]
