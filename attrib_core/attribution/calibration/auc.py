"""Compute the area under the ROC curve by the Mann-Whitney statistic, with resampling of sets of queries.

    AUC = mean over pairs (a of the negatives, b of the positives) of 1 where a < b, 1/2 where a = b, else 0

It is 1/2 for a score that does not separate the two groups, and depends on no threshold.
"""

from __future__ import annotations

import numpy as np


def mann_whitney(negative: np.ndarray, positive: np.ndarray, index: np.ndarray, sets: int) -> np.ndarray:
    """Sum over the pairs of queries of each pair of sets, (sets, sets): row the set of the negative.

    negative, positive  (queries,) score of each query as a negative and as a positive
    index               (queries,) set of each query, 0 to sets - 1
    """
    statistic = np.empty((sets, sets))
    for number in range(sets):
        own = np.sort(negative[index == number])
        wins = np.searchsorted(own, positive, "left") + np.searchsorted(own, positive, "right")
        statistic[number] = np.bincount(index, weights=wins / 2.0, minlength=sets)
    return statistic


def auc(pairs: np.ndarray, counts: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Compute the AUC over all pairs of queries of each resample of the sets, (resamples,).

    pairs   of `mann_whitney`
    counts  (sets,) queries of each set
    draws   (resamples, sets) how often each set is drawn
    """
    value: np.ndarray = np.einsum("rs,rs->r", draws @ pairs, draws) / (draws @ counts) ** 2
    return value
