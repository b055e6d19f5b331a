"""Fit the published calibrator by maximum likelihood of the exemplars, summing over the whole pool.

The loss is the mean over queries of

    log(U + b M) - (1 / n) sum over exemplars of log(u_e + b),   u = exp((s - s_max) / tau), b >= 0

in the notation of `published_form`. A negative b would give some candidates probability 0, and the likelihood
of all queries would be 0 with the first exemplar among them; so the optimum has b >= 0 unless every exemplar
is near the top, and a fit to such data would fail on the first new query where it is not. For each tau the
sums U are computed once and the best b is found from them: one search over log tau around another over log b
(`golden_section`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from attrib_core.attribution.calibration.golden_section import minimize
from attrib_core.attribution.calibration.published_form import PublishedCalibrator
from attrib_core.attribution.calibration.similarities import SimilarityBatch

TAUS = np.geomspace(1e-3, 1.0, 43)
BIASES = np.geomspace(1e-12, 1.0, 49)


class Fit(NamedTuple):
    """A fitted calibrator and its mean negative log-likelihood in nats a query.

    uniform_share  mean over queries of b M / (U + b M): influence that b spreads evenly
    """

    calibrator: PublishedCalibrator
    negative_log_likelihood: float
    uniform_share: float


def fit(batches: Sequence[SimilarityBatch]) -> Fit:
    """Fit to all queries with equal weight."""
    loss = _profile(batches)
    tau = float(np.exp(minimize(lambda x: loss(float(np.exp(x)))[0], np.log(TAUS))))
    value, bias, uniform_share = loss(tau)
    return Fit(PublishedCalibrator(tau, bias), value, uniform_share)


def _profile(batches: Sequence[SimilarityBatch]) -> Callable[[float], tuple[float, float, float]]:
    """Return the function from tau to the loss at the best bias, that bias, and the mean uniform share."""
    candidates = np.concatenate([batch.n_candidates() for batch in batches])
    own_gap = np.concatenate([batch.gap[: batch.exemplars] for batch in batches])
    own_weight = np.concatenate(
        [(1.0 / batch.n_exemplars())[batch.query[: batch.exemplars]] for batch in batches]
    )

    def at(tau: float) -> tuple[float, float, float]:
        sums = np.concatenate([batch.total(batch.count * np.exp(batch.gap / tau)) for batch in batches])
        own = np.exp(own_gap / tau)

        def loss(bias: float) -> float:
            with np.errstate(divide="ignore"):
                likelihood = own_weight @ np.log(own + bias)
            return float((np.log(sums + bias * candidates).sum() - likelihood) / len(candidates))

        best = float(np.exp(minimize(lambda x: loss(float(np.exp(x))), np.log(BIASES))))
        bias = min((0.0, best), key=loss)
        uniform = bias * candidates
        return loss(bias), bias, float((uniform / (sums + uniform)).mean())

    return at
