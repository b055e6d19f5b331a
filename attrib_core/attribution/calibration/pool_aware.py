"""Shares of influence that know how large the pool is and may say "none of these".

With s the cosines of one query over pool and exemplars, M of them, m and d their mean and standard
deviation, and z = (s - m) / d,

    p_i = (1 - q) ((1 - r) exp(z_i / tau) / sum_j exp(z_j / tau) + r / M)
    q = 1 / (1 + exp(k log((1 / M) sum_j exp(z_j / tau)) - l - log(a / (1 - a)))).

p sums to 1 - q over all M, and q is the mass of "none of these". In place of the published form's s_max,
which rises with the pool and is blind to a query that nothing matches, the query's own mean and deviation
over the pool stand, which a larger pool of the same kind leaves where they are; so tau, in deviations,
compares across encoders. The floor r / M spreads a share r evenly whatever M, where the published b takes
a share that grows with the pool. q falls as the pool holds more that stands out: with k = 1 it is Bayes'
rule for a source that is any of M candidates, or none, where exp(z / tau) is proportional to the
likelihood ratio; k is fitted since the tails of real pools are heavier. a is the assumed share of queries
whose sources are not in the pool.

tau, r, k, l are fitted for each kind of sets or for all together (`pool_aware_fit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from attrib_core.attribution.calibration.similarities import Evidence

TEXT = (
    "p_i = (1 - none) ((1 - floor) softmax_i(z / tau) + floor / M), z: cosines of a query less their mean, over"
    " their standard deviation; none = 1 / (1 + exp(slope log mean exp(z / tau) - level - log odds of absent_share))"
)


class Parameters(NamedTuple):
    """tau: in standard deviations; floor: r; level, slope: l, k of the mass of none."""

    tau: float
    floor: float
    level: float
    slope: float


@dataclass(frozen=True)
class PoolAware:
    """Parameters by kind of sets, and the assumed share of queries whose sources are not in the pool.

    `rest` are the parameters of kinds of which the fit saw no set: those of all its kinds together.
    """

    kinds: Mapping[str, Parameters]
    absent_share: float
    rest: Parameters | None = None

    def shares(self, evidence: Evidence) -> np.ndarray:
        """Influence of one candidate of each entry if one of them is the source, (entries,)."""
        tau, floor = (self._of(evidence, name) for name in ("tau", "floor"))
        return mixed(soft(evidence, tau), evidence, floor)

    def none(self, evidence: Evidence) -> np.ndarray:
        """Mass of "none of these", (queries,)."""
        tau, level, slope = (self._of(evidence, name) for name in ("tau", "level", "slope"))
        odds = (
            level + np.log(self.absent_share / (1.0 - self.absent_share)) - slope * outstanding(evidence, tau)
        )
        mass: np.ndarray = np.exp(-np.logaddexp(0.0, -odds))
        return mass

    def _of(self, evidence: Evidence, name: str) -> np.ndarray:
        return np.array([getattr(self.kinds.get(kind, self.rest), name) for kind in evidence.kinds])


def deviations(evidence: Evidence) -> np.ndarray:
    """Standard deviation of each query's cosines over all candidates, (queries,); 1 where all are equal.

    Of a bin every candidate counts with the mean of the bin: too little by at most a bin's width squared
    over 4 in the variance.
    """
    mean = _means(evidence)
    spread = evidence.total(evidence.count * (evidence.similarity - mean[evidence.query]) ** 2)
    deviation = np.sqrt(spread / evidence.n_candidates())
    return np.where(deviation > 0, deviation, 1.0)


def soft(evidence: Evidence, tau: np.ndarray) -> np.ndarray:
    """Softmax of the standardised similarities at tau (queries,), over all candidates; (entries,)."""
    weight = np.exp(evidence.gap / (tau * deviations(evidence))[evidence.query])
    share: np.ndarray = weight / evidence.total(evidence.count * weight)[evidence.query]
    return share


def mixed(share: np.ndarray, evidence: Evidence, floor: np.ndarray) -> np.ndarray:
    """The softmax with the share `floor` (queries,) of it spread evenly."""
    spread = (floor / evidence.n_candidates())[evidence.query]
    result: np.ndarray = (1.0 - floor)[evidence.query] * share + spread
    return result


def outstanding(evidence: Evidence, tau: np.ndarray) -> np.ndarray:
    """log((1 / M) sum_j exp(z_j / tau)), (queries,): how much in the pool stands out."""
    deviation = deviations(evidence)
    weight = np.exp(evidence.gap / (tau * deviation)[evidence.query])
    highest = np.full(len(evidence.queries), -np.inf)
    np.maximum.at(highest, evidence.query, evidence.similarity)
    mean: np.ndarray = evidence.total(evidence.count * weight) / evidence.n_candidates()
    found: np.ndarray = np.log(mean) + (highest - _means(evidence)) / (tau * deviation)
    return found


def _means(evidence: Evidence) -> np.ndarray:
    mean: np.ndarray = evidence.total(evidence.count * evidence.similarity) / evidence.n_candidates()
    return mean
