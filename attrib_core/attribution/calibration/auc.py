"""Compute the area under the ROC curve by the Mann-Whitney statistic.

    AUC = mean over pairs (a of the negatives, b of the positives) of 1 where a < b, 1/2 where a = b, else 0

It is 1/2 for a score that does not separate the two groups, and depends on no threshold.
"""

from __future__ import annotations

import numpy as np


def components(negative: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean over the pairs of each negative and of each positive, (negatives,) and (positives,).

    The mean of either is the AUC. They are the structural components of DeLong, DeLong and Clarke-Pearson (1988): the
    error of the AUC is the mean of the first less the AUC, plus the mean of the second less the AUC.
    """
    return _wins(-negative, -positive), _wins(positive, negative)


def _wins(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Compute for each of ours the share of theirs below it, equal ones by half."""
    known = np.sort(theirs)
    wins = np.searchsorted(known, ours, "left") + np.searchsorted(known, ours, "right")
    share: np.ndarray = wins / (2.0 * len(theirs))
    return share
