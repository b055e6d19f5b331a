"""Whether a paired difference could be chance: signs of models' differences, flipped in all ways.

If two systems do not differ, each model's difference might as well have had the other sign. The p-value is
the share of all assignments of signs whose sum is as far from 0 as the one seen (Fisher's randomization
test). It holds for any number of models, unlike percentiles of a bootstrap, which are too sure of few: of n
models p cannot be below 2 / 2**n, so that five can show nothing at a level of 0.05.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from attrib_core.attribution.metrics.summary import MEDIAN
from attrib_core.common import hashing

EXACT = 12
"""Models up to which all signs are tried; beyond, as many random ones as there are resamples."""
TIES = 1e-12  # of the largest sum: sums that differ by rounding alone count as equal


def of_models(
    metric: str,
    ours: np.ndarray,
    our_sets: np.ndarray,
    theirs: np.ndarray,
    their_sets: np.ndarray,
    models: int,
) -> np.ndarray:
    """What each model says of a metric's difference, (models,): `of_medians` or `contributions`."""
    found = of_medians if metric == MEDIAN else contributions
    return found(ours, our_sets, theirs, their_sets, models)


def contributions(
    ours: np.ndarray, our_sets: np.ndarray, theirs: np.ndarray, their_sets: np.ndarray, models: int
) -> np.ndarray:
    """What each model adds to the difference of two means over queries, (models,); they sum to it.

    ours, theirs: one value a query of each system; the sets say which model (0, 1, ...) it belongs to.
    """
    first = np.bincount(our_sets, weights=ours, minlength=models) / len(ours)
    second = np.bincount(their_sets, weights=theirs, minlength=models) / len(theirs)
    added: np.ndarray = first - second
    return added


def of_medians(
    ours: np.ndarray, our_sets: np.ndarray, theirs: np.ndarray, their_sets: np.ndarray, models: int
) -> np.ndarray:
    """Differences of each model's own medians, (models,)."""
    return np.array(
        [np.median(ours[our_sets == one]) - np.median(theirs[their_sets == one]) for one in range(models)]
    )


def p_value(differences: np.ndarray, names: Sequence[str], *, times: int, seed: int) -> float:
    """Two-sided p-value of "no difference" from the differences of models, by their names in sorted order.

    Of more than EXACT models from `times` random assignments, the one seen counted among them.
    """
    exact = len(differences) <= EXACT
    signs = _all(len(differences)) if exact else _some(tuple(names), times, seed)
    extra = 0 if exact else 1
    sums = np.abs(signs @ differences)
    seen = abs(float(differences.sum()))
    beyond = int(np.count_nonzero(sums >= seen - TIES * np.abs(differences).sum()))
    return (beyond + extra) / (len(signs) + extra)


@functools.lru_cache(maxsize=EXACT)
def _all(models: int) -> np.ndarray:
    """All assignments of signs, (2**models, models)."""
    found: np.ndarray = 1.0 - 2.0 * ((np.arange(1 << models)[:, None] >> np.arange(models)) & 1)
    return found


@functools.lru_cache(maxsize=8)
def _some(names: tuple[str, ...], times: int, seed: int) -> np.ndarray:
    """Random assignments of signs, (times, models)."""
    return hashing.generator(seed, "signs of models", list(names)).choice(
        [-1.0, 1.0], size=(times, len(names))
    )
