"""Ceiling of each metric (the value of a perfect ranking) and chance (the expected value of a random one).

n exemplars and N distractors are M = n + N candidates. In a random ranking every order of them is equally
likely. All functions take arrays (queries,) of n and of M.
"""

from __future__ import annotations

import numpy as np

Key = tuple[str, int | None]


def ceilings(keys: list[Key], n: np.ndarray) -> dict[Key, np.ndarray]:
    """Compute the best possible value of each metric and query: all n exemplars rank first.

    Recall at k is at most min(k, n) / n; the others reach 1, which is also the best rank.
    """
    ones = np.ones(len(n))
    return {key: np.minimum(key[1] or 1, n) / n if key[0] == "recall_at_k" else ones for key in keys}


def chances(keys: list[Key], n: np.ndarray, candidates: np.ndarray) -> dict[Key, np.ndarray]:
    """Compute the expected value of each metric in a random ranking, all but that of `median_rank`."""
    values: dict[Key, np.ndarray] = {}
    for name, k in keys:
        if name == "mean_average_precision":
            values[name, k] = average_precision(n, candidates)
        elif k is not None and name == "success_at_k":
            values[name, k] = 1.0 - none_within(k, n, candidates)
        elif k is not None:
            # Each exemplar is in the first k with probability k / M, so n k / M of them are expected.
            denominator = n if name == "recall_at_k" else np.minimum(k, n)
            values[name, k] = n * np.minimum(k, candidates) / candidates / denominator
    return values


def average_precision(n: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Compute the expected average precision of a random ranking, (H_M + (n - 1) / (M - 1) (M - H_M)) / M.

    AP is the mean over exemplars of the precision at their position, so the sum over positions p of
    P(exemplar at p) E[precision at p | exemplar at p] / n. The probability is n / M. Given an exemplar
    at p, each of the p - 1 places above holds one of the other n - 1 with probability
    (n - 1) / (M - 1), so the expected precision is (1 + (p - 1) (n - 1) / (M - 1)) / p. With
    H_M = sum of 1 / p for p up to M, and sum of (p - 1) / p = M - H_M, the formula follows.
    """
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, int(candidates.max(initial=0)) + 1))])
    h = harmonic[candidates]
    others = (n - 1) / np.maximum(candidates - 1, 1)
    expected: np.ndarray = (h + others * (candidates - h)) / candidates
    return expected


def none_within(k: int | np.ndarray, n: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Compute the probability that no exemplar is among the first k: C(M - k, n) / C(M, n); k may be (queries,).

    Placed one after the other, exemplar i (from 0) avoids the first k with probability
    (M - k - i) / (M - i), given that those before it did.
    """
    probability = np.ones(len(n))
    for i in range(int(n.max(initial=0))):
        left = np.maximum(candidates - k - i, 0) / np.maximum(candidates - i, 1)
        probability = np.where(i < n, probability * left, probability)
    return probability


def median_rank(n: np.ndarray, candidates: np.ndarray) -> float:
    """Compute the median rank of the best exemplar where every query is ranked at random.

    The smallest r for which the mean over queries of P(best exemplar within r) reaches one half.
    """
    pairs, counts = np.unique(np.stack([n, candidates]), axis=1, return_counts=True)
    low, high = 1, int(candidates.max())
    while low < high:
        middle = (low + high) // 2
        within = 1.0 - none_within(middle, pairs[0], pairs[1])
        if within @ counts / counts.sum() >= 0.5:
            high = middle
        else:
            low = middle + 1
    return float(low)
