"""Permutation test of a difference between two groups of models, within strata.

If the groups do not differ, any of the models of a stratum might as well have been in the other group. The p-value is
the share of all assignments of the models of each stratum to the two groups, of the sizes that they have, whose
difference is as far from 0 as the observed one (Fisher 1935; Good 2005, Permutation, Parametric and Bootstrap Tests
of Hypotheses, on stratified data). It is valid for any number of models, and never 0.

With weights n m / (n + m) for n and m models, the weighted sum of the differences of means is the sum over strata of

    sum of our values - n / (n + m) sum of all values
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from attrib_core.attribution.metrics.sign_flip_test import Tested, share_beyond
from attrib_core.common import hashing

EXACT = 50_000
"""Most assignments that are all tried; if there are more, as many random ones as there are resamples."""


def p_value(
    values: np.ndarray, ours: np.ndarray, strata: np.ndarray, names: np.ndarray, *, times: int, seed: int
) -> Tested:
    """Compute the two-sided p-value of "no difference between the groups".

    values, ours, strata, names  (models,) value, whether in our group (bool), stratum, and name, which settles the
                                 random assignments; their order does not matter
    """
    order = np.lexsort((names, strata))
    values, ours, strata = values[order], ours[order], strata[order]
    groups = [np.flatnonzero(strata == name) for name in np.unique(strata)]
    sizes = [(len(group), int(ours[group].sum())) for group in groups]
    expected = [n / size * values[group].sum() for group, (size, n) in zip(groups, sizes, strict=True)]
    observed = math.fsum(values[group][ours[group]].sum() for group in groups) - math.fsum(expected)
    exact = math.prod(math.comb(size, n) for size, n in sizes) <= EXACT
    drawn = np.zeros(1) if exact else np.zeros(times)
    for group, (_, n), mean in zip(groups, sizes, expected, strict=True):
        if exact:
            chosen = [sum(some) for some in itertools.combinations(values[group].tolist(), n)]
            drawn = np.add.outer(drawn, np.array(chosen) - mean).ravel()
        else:
            generator = hashing.generator(seed, "groups of models", names[order][group].tolist(), n)
            keys = generator.random((times, len(group)))
            drawn += values[group][np.argsort(keys, axis=1)[:, :n]].sum(axis=1) - mean
    return share_beyond(drawn, observed, exact, float(np.abs(values).sum()))
