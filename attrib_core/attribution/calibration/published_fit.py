"""The published training of the published form, as its code has it and not as its inference needs it.

Minimised is the mean over queries of

    log sum over j of w_j - (1 / n) sum over exemplars of log w_e,   w = softplus(u + b),  u = exp((s - s_max) / tau)

with softplus(x) = log(1 + exp(100 x)) / 100, and j over the selected candidates alone: the exemplars and
the most similar distractors. The rest of the pool is no part of it, though the published function takes
its size and distribution as arguments. In use the same tau and b stand behind a relu and the whole pool
is summed (`form`), so that an exemplar with u < -b has no influence at all. The number of selected
distractors, the optimizer and its steps are not published; here they are those that ranking keeps by
name, and the optimum itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from attrib_core.attribution.calibration.golden_section import lowest
from attrib_core.attribution.calibration.published_form import Calibrator
from attrib_core.attribution.calibration.similarities import Evidence

BETA = 100.0
GAIN = 1e-3
"""The published checkpoint stores b divided by this."""
TAUS = np.geomspace(1e-3, 1.0, 29)
# far above 1 the selected candidates share alike, which the loss asks for where exemplars do not stand out
BIASES = np.concatenate([-np.geomspace(1.0, 1e-3, 16), [0.0], np.geomspace(1e-3, 10.0, 20)])
SHRINKS = 20


def train(evidence: Sequence[Evidence]) -> Calibrator:
    """The optimum of the published loss over tau and b."""

    def best_bias(tau: float) -> tuple[float, float]:
        loss = loss_at(evidence, tau)
        bias = lowest(loss, BIASES, SHRINKS)
        return loss(bias), bias

    tau = float(np.exp(lowest(lambda x: best_bias(float(np.exp(x)))[0], np.log(TAUS), SHRINKS)))
    return Calibrator(tau, best_bias(tau)[1])


def loss_at(evidence: Sequence[Evidence], tau: float) -> Callable[[float], float]:
    """b -> the published loss at this tau, mean over queries."""
    parts = [(one, np.exp(one.gap[: one.exemplars + one.top] / tau)) for one in evidence]
    queries = sum(len(one.queries) for one in evidence)

    def loss(bias: float) -> float:
        total = 0.0
        for one, u in parts:
            weight = np.logaddexp(0.0, BETA * (u + bias)) / BETA
            own = slice(0, one.exemplars)
            fit = one.total(np.log(weight[own]), own) / one.n_exemplars()
            total += float((np.log(one.total(weight, slice(0, len(u)))) - fit).sum())
        return total / queries

    return loss
