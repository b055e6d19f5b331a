"""Scoring rules of one query: log-likelihood, Brier score, tail mass, and sums in bins of influence.

The true influence of a query is 1 / n for each of its n exemplars and 0 for all distractors.
"""

from __future__ import annotations

import numpy as np

from attrib_core.attribution.calibration.similarities import SimilarityBatch

EDGES = np.array([0.0, 1e-5, 1e-4, 1e-3, 1e-2, *np.arange(1, 11) / 10])
"""Bins of influence; nearly all candidates have almost none, so the first bins are by decades."""


def negative_log_likelihood(batch: SimilarityBatch, share: np.ndarray) -> np.ndarray:
    """Compute -(1 / n) sum over the n exemplars of log p, (queries,) nats.

    The cross-entropy of equal shares for all exemplars and p; at best log n. Infinite where an exemplar
    has no influence.
    """
    own = slice(0, batch.exemplars)
    with np.errstate(divide="ignore"):
        logarithm = np.log(share[own])
    mean: np.ndarray = -batch.total(logarithm, own) / batch.n_exemplars()
    return mean


def brier_score(share: np.ndarray, batch: SimilarityBatch, truth: np.ndarray | float = 0.0) -> np.ndarray:
    """Compute the sum over the candidates of (p - y)^2, (queries,)."""
    return batch.total(batch.count * (share - truth) ** 2)


def tail_mass(batch: SimilarityBatch, share: np.ndarray, shown: int) -> np.ndarray:
    """Compute the influence of all distractors but the `shown` most similar ones, (queries,)."""
    distractors = slice(batch.exemplars, None)
    mass = (batch.count * share)[distractors]
    mass[: batch.top][batch.top_positions() < shown] = 0.0
    return batch.total(mass, distractors)


def sum_in_bins(
    share: np.ndarray, count: np.ndarray, truth: np.ndarray, groups: np.ndarray, number: int
) -> np.ndarray:
    """Sum candidates, predicted and true influence in the bins of EDGES, (number of groups, 3, bins).

    share, count, truth, groups  (entries,) influence, candidates, true influence, and group: 0, 1, ...
    """
    bins = len(EDGES) - 1
    index = groups * bins + np.clip(np.searchsorted(EDGES, share, side="right") - 1, 0, bins - 1)
    sums = [np.bincount(index, weights=w, minlength=number * bins) for w in (count, count * share, truth)]
    return np.stack([one.reshape(number, bins) for one in sums], axis=1)
