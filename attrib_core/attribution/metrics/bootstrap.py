"""Bootstrap over models, since the queries of one customized model are not independent.

A resample draws as many exemplar sets as there are, with replacement, and takes all queries of each.
Which sets a resample holds depends on the run's seed and the names of the sets alone, so two systems
measured on the same sets are compared on the same resamples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from attrib_core.common import hashing

_ELEMENTS = 1 << 24  # of the largest temporary array of `medians`


class Sample(NamedTuple):
    """One value per query, and the index of its exemplar set."""

    values: np.ndarray
    sets: np.ndarray


def resamples(names: list[str], times: int, seed: int, *, salt: str = "") -> np.ndarray:
    """Draw how often each exemplar set is in each resample, (times, sets) int64.

    `names` are the sets in sorted order; the counts of a resample sum to their number. Another `salt` gives
    independent draws.
    """
    generator = hashing.generator(seed, f"bootstrap over models{salt}", names)
    return generator.multinomial(len(names), np.full(len(names), 1.0 / len(names)), size=times)


def means(sample: Sample, draws: np.ndarray) -> np.ndarray:
    """Compute the mean over the queries of each resample, (times,)."""
    sets = draws.shape[1]
    sums = np.bincount(sample.sets, weights=sample.values, minlength=sets)
    counts = np.bincount(sample.sets, minlength=sets)
    mean: np.ndarray = (draws @ sums) / (draws @ counts)
    return mean


def medians(sample: Sample, draws: np.ndarray) -> np.ndarray:
    """Compute the median over the queries of each resample, (times,)."""
    order = np.argsort(sample.values, kind="stable")
    values, sets = sample.values[order], sample.sets[order]
    found = np.empty(len(draws))
    step = max(1, _ELEMENTS // max(1, len(values)))
    for start in range(0, len(draws), step):
        reached = np.cumsum(draws[start : start + step, sets], axis=1)
        total = reached[:, -1:]
        lower = np.argmax(reached >= (total + 1) // 2, axis=1)
        upper = np.argmax(reached >= total // 2 + 1, axis=1)
        found[start : start + step] = (values[lower] + values[upper]) / 2
    return found


def interval(statistics: np.ndarray) -> tuple[float, float]:
    """Compute the 2.5th and 97.5th percentile of a statistic over the resamples."""
    low, high = np.quantile(statistics, [0.025, 0.975])
    return float(low), float(high)


def p_value(differences: np.ndarray) -> float:
    """Compute the two-sided p-value of "no difference" from the differences over the resamples.

    Twice the share of resamples on the rarer side of zero, those at zero counted on both; one is added
    to count and total, so that p is never 0: the smallest value is 2 / (resamples + 1).
    """
    rarer = int(min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0)))
    return min(1.0, 2.0 * (rarer + 1) / (len(differences) + 1))
