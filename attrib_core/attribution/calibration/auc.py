"""How well a number tells one group of queries from another: the area under the curve of Mann and Whitney.

    AUC = mean over pairs (a of the lower group, b of the upper) of 1 where a < b, 1/2 where a = b, else 0

It is 1/2 where the number says nothing, whatever threshold it is read at.
"""

from __future__ import annotations

import numpy as np


def wins(lower: np.ndarray, upper: np.ndarray, place: np.ndarray, sets: int) -> np.ndarray:
    """Sums of the pairs of queries of each pair of sets, (sets, sets): row the set of `lower`.

    lower, upper  (queries,) a number of each query in its two forms
    place         (queries,) the set of each query, 0 to sets - 1
    """
    found = np.empty((sets, sets))
    for number in range(sets):
        own = np.sort(lower[place == number])
        below = np.searchsorted(own, upper, "left") + np.searchsorted(own, upper, "right")
        found[number] = np.bincount(place, weights=below / 2.0, minlength=sets)
    return found


def auc(pairs: np.ndarray, counts: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """AUC over all pairs of queries where the sets are drawn `draws` times each, (resamples,).

    pairs   of `wins`
    counts  (sets,) queries of each set
    draws   (resamples, sets)
    """
    total: np.ndarray = np.einsum("rs,rs->r", draws @ pairs, draws) / (draws @ counts) ** 2
    return total
