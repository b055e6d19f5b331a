"""Pool-aware calibrator: shares of influence that account for the size of the pool, and for "none of these".

With s the cosines of one query to the M candidates of pool and exemplars, m and d their mean and standard
deviation, and z = (s - m) / d,

    p_i = (1 - q) ((1 - r) exp(z_i / tau) / sum_j exp(z_j / tau) + r / M)
    q = 1 / (1 + exp(k log((1 / M) sum_j exp(z_j / tau)) - l - log(a / (1 - a)))).

p sums to 1 - q over all M, and q is the mass of "none of these". The published s_max rises with the size of the
pool, and is the same reference whether anything matches the query or not; mean and deviation over the pool do
not change with a larger pool of the same kind, so tau, in deviations, is comparable across encoders. The floor
r / M spreads a share r evenly whatever M, where the published b takes a share that grows with the pool. q falls
as more of the pool is exceptionally similar: with k = 1 it is Bayes' rule for a source that is any of M
candidates, or none, where exp(z / tau) is proportional to the likelihood ratio; k is fitted since the tails of
real pools are heavier. a is the assumed share of queries whose sources are not in the pool.

tau, r, k, l are fitted for each kind of sets or for all together (`pool_aware_fit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from attrib_core.attribution.calibration.similarities import SimilarityBatch

FORMULA = (
    "p_i = (1 - none) ((1 - floor) softmax_i(z / tau) + floor / M), z: cosines of a query less their mean, over"
    " their standard deviation; none = 1 / (1 + exp(slope log mean exp(z / tau) - level - log odds of absent_share))"
)


class Parameters(NamedTuple):
    """Parameters: tau in standard deviations; floor: r; level, slope: l, k of the mass of "none of these"."""

    tau: float
    floor: float
    level: float
    slope: float


@dataclass(frozen=True)
class PoolAware:
    """Parameters by kind of sets, and the assumed share of queries whose sources are not in the pool.

    `other_kinds` are the parameters for kinds without any set in the fit: those of all its kinds together.
    """

    kinds: Mapping[str, Parameters]
    absent_share: float
    other_kinds: Parameters | None = None

    def shares(self, batch: SimilarityBatch) -> np.ndarray:
        """Compute the influence of one candidate of each entry if one of them is the source, (entries,)."""
        tau, floor = (self._per_query(batch, name) for name in ("tau", "floor"))
        return mix_with_uniform(standardized_softmax(batch, tau), batch, floor)

    def none_mass(self, batch: SimilarityBatch) -> np.ndarray:
        """Compute the mass of "none of these", (queries,)."""
        tau, level, slope = (self._per_query(batch, name) for name in ("tau", "level", "slope"))
        prior = np.log(self.absent_share / (1.0 - self.absent_share))
        odds = level + prior - slope * log_mean_exp(batch, tau)
        mass: np.ndarray = np.exp(-np.logaddexp(0.0, -odds))
        return mass

    def _per_query(self, batch: SimilarityBatch, name: str) -> np.ndarray:
        return np.array([getattr(self.kinds.get(kind, self.other_kinds), name) for kind in batch.kinds])


def standard_deviations(batch: SimilarityBatch) -> np.ndarray:
    """Compute the standard deviation of each query's cosines, (queries,); 1 where all are equal.

    All candidates of a bin count with its mean, which makes the variance too small by at most the squared
    width of a bin over 4.
    """
    mean = _means(batch)
    squares = batch.total(batch.count * (batch.similarity - mean[batch.query]) ** 2)
    deviation = np.sqrt(squares / batch.n_candidates())
    return np.where(deviation > 0, deviation, 1.0)


def standardized_softmax(batch: SimilarityBatch, tau: np.ndarray) -> np.ndarray:
    """Compute the softmax of z / tau over all candidates, (entries,); tau is (queries,)."""
    weight = np.exp(batch.gap / (tau * standard_deviations(batch))[batch.query])
    share: np.ndarray = weight / batch.total(batch.count * weight)[batch.query]
    return share


def mix_with_uniform(share: np.ndarray, batch: SimilarityBatch, floor: np.ndarray) -> np.ndarray:
    """Mix shares with a uniform distribution of weight `floor` (queries,)."""
    uniform = (floor / batch.n_candidates())[batch.query]
    mixed: np.ndarray = (1.0 - floor)[batch.query] * share + uniform
    return mixed


def log_mean_exp(batch: SimilarityBatch, tau: np.ndarray) -> np.ndarray:
    """Compute log((1 / M) sum_j exp(z_j / tau)), (queries,)."""
    deviation = standard_deviations(batch)
    weight = np.exp(batch.gap / (tau * deviation)[batch.query])
    mean = batch.total(batch.count * weight) / batch.n_candidates()
    value: np.ndarray = np.log(mean) + (batch.highest() - _means(batch)) / (tau * deviation)
    return value


def _means(batch: SimilarityBatch) -> np.ndarray:
    mean: np.ndarray = batch.total(batch.count * batch.similarity) / batch.n_candidates()
    return mean
