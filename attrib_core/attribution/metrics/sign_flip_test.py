"""Sign-flip test of a paired difference over models (Fisher's randomization test).

If two systems do not differ, the difference of each model might as well have had the other sign. The
p-value is the share of all assignments of signs whose sum is as far from 0 as the observed one. It is valid
for any number of models: with n models p cannot be below 2 / 2**n, so five models cannot reach a level of 0.05.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from attrib_core.attribution.metrics.summary import MEDIAN
from attrib_core.common import hashing

EXACT = 16
"""Most models for which all signs are tried; for more, as many random ones as there are resamples."""
TOLERANCE = 1e-12  # of the largest sum: sums that differ by rounding alone count as equal


def model_differences(
    metric: str,
    ours: np.ndarray,
    our_sets: np.ndarray,
    theirs: np.ndarray,
    their_sets: np.ndarray,
    models: int,
) -> np.ndarray:
    """Compute the difference of a metric by model, (models,): of medians, or contributions to that of means."""
    compute = median_differences if metric == MEDIAN else mean_contributions
    return compute(ours, our_sets, theirs, their_sets, models)


def mean_contributions(
    ours: np.ndarray, our_sets: np.ndarray, theirs: np.ndarray, their_sets: np.ndarray, models: int
) -> np.ndarray:
    """Compute what each model contributes to the difference of two means over queries, (models,).

    The contributions sum to the difference. ours, theirs: one value per query of each system; the sets give
    the model (0, 1, ...) of each query.
    """
    first = np.bincount(our_sets, weights=ours, minlength=models) / len(ours)
    second = np.bincount(their_sets, weights=theirs, minlength=models) / len(theirs)
    contributions: np.ndarray = first - second
    return contributions


def median_differences(
    ours: np.ndarray, our_sets: np.ndarray, theirs: np.ndarray, their_sets: np.ndarray, models: int
) -> np.ndarray:
    """Compute the difference of the medians of each model, (models,)."""
    return np.array(
        [np.median(ours[our_sets == one]) - np.median(theirs[their_sets == one]) for one in range(models)]
    )


class Tested(NamedTuple):
    """A p-value, and the standard error of its estimate from random draws, 0 where it is exact."""

    p_value: float
    error: float


def p_value(differences: np.ndarray, names: Sequence[str], *, times: int, seed: int) -> Tested:
    """Compute the two-sided p-value of "no difference" from one difference per model.

    `names` are the models, in sorted order. For more than EXACT models it is estimated from `times` random
    assignments of signs, and the observed assignment is counted among them.
    """
    exact = len(differences) <= EXACT
    signs = _all_signs(len(differences)) if exact else _random_signs(tuple(names), times, seed)
    return share_beyond(
        signs @ differences, float(differences.sum()), exact, float(np.abs(differences).sum())
    )


def share_beyond(drawn: np.ndarray, observed: float, exact: bool, scale: float) -> Tested:
    """Compute the share of the drawn values that are as far from 0 as the observed one; `scale` is the largest.

    exact  whether all values were drawn, among them the observed one; otherwise it is counted with them, so that
           the share is never 0 (Phipson and Smyth 2010)
    """
    beyond = int(np.count_nonzero(np.abs(drawn) >= abs(observed) - TOLERANCE * scale))
    extra = 0 if exact else 1
    p = (beyond + extra) / (len(drawn) + extra)
    return Tested(p, 0.0 if exact else float(np.sqrt(p * (1.0 - p) / len(drawn))))


@functools.lru_cache(maxsize=EXACT)
def _all_signs(models: int) -> np.ndarray:
    """Return all assignments of signs but for their opposites, (2**(models - 1), models): the first sign is 1."""
    found: np.ndarray = 1.0 - 2.0 * ((np.arange(1 << (models - 1))[:, None] >> np.arange(models)[::-1]) & 1)
    return found


@functools.lru_cache(maxsize=8)
def _random_signs(names: tuple[str, ...], times: int, seed: int) -> np.ndarray:
    """Draw random assignments of signs, (times, models)."""
    return hashing.generator(seed, "signs of models", list(names)).choice(
        [-1.0, 1.0], size=(times, len(names))
    )
