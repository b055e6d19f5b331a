"""Temperature and bias by maximum likelihood of the exemplars, with the whole pool in the sum.

Minimised is the mean over queries of

    log(U + b M) - (1 / n) sum over exemplars of log(u_e + b),   u = exp((s - s_max) / tau), b >= 0

(`form`). A negative b would give some candidates probability 0, and the likelihood of all queries
would vanish with the first exemplar among them; so maximum likelihood has b >= 0 unless every
exemplar is near the top, and a fit to such data would fail on the first new query that is not.
For each tau the sums U are formed once and the best b is found on them alone; the search is thus
one search over log tau around another over log b (`search`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from attrib_core.attribution.calibration.golden_section import lowest
from attrib_core.attribution.calibration.published_form import Calibrator
from attrib_core.attribution.calibration.similarities import Evidence
from attrib_core.common.errors import InputError

TAUS = np.geomspace(1e-3, 1.0, 43)
BIASES = np.geomspace(1e-12, 1.0, 49)


class Fit(NamedTuple):
    """The calibrator, its mean negative log-likelihood (nats a query) and what that compares with.

    uniform_negative_log_likelihood  the same for equal shares of all candidates, mean of log M
    uniform_share                    mean over queries of b M / (U + b M): influence that b spreads evenly
    """

    calibrator: Calibrator
    negative_log_likelihood: float
    uniform_negative_log_likelihood: float
    uniform_share: float
    queries: int


def fit(evidence: Sequence[Evidence]) -> Fit:
    """Fit to all queries of the evidence alike. Raises InputError where there are none."""
    if not evidence:
        raise InputError(
            "calibration: no customized query in the split 'validation', expected some to fit on"
        )
    loss = _profile(evidence)
    tau = float(np.exp(lowest(lambda x: loss(float(np.exp(x)))[0], np.log(TAUS))))
    value, bias, uniform_share = loss(tau)
    candidates = np.concatenate([one.n_candidates() for one in evidence])
    return Fit(Calibrator(tau, bias), value, float(np.log(candidates).mean()), uniform_share, len(candidates))


def _profile(evidence: Sequence[Evidence]) -> Callable[[float], tuple[float, float, float]]:
    """tau -> the loss at the best bias, that bias, and the mean uniform share with it."""
    candidates = np.concatenate([one.n_candidates() for one in evidence])
    own_gap = np.concatenate([one.gap[: one.exemplars] for one in evidence])
    own_weight = np.concatenate([(1.0 / one.n_exemplars())[one.query[: one.exemplars]] for one in evidence])

    def at(tau: float) -> tuple[float, float, float]:
        sums = np.concatenate([one.total(one.count * np.exp(one.gap / tau)) for one in evidence])
        own = np.exp(own_gap / tau)

        def loss(bias: float) -> float:
            with np.errstate(divide="ignore"):
                likelihood = own_weight @ np.log(own + bias)
            return float((np.log(sums + bias * candidates).sum() - likelihood) / len(candidates))

        best = float(np.exp(lowest(lambda x: loss(float(np.exp(x))), np.log(BIASES))))
        bias = min((0.0, best), key=loss)
        uniform = bias * candidates
        return loss(bias), bias, float((uniform / (sums + uniform)).mean())

    return at
