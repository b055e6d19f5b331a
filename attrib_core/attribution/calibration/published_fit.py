"""Fit the published calibrator with its published loss, as the code of the paper has it.

The loss is the mean over queries of

    log sum over j of w_j - (1 / n) sum over exemplars of log w_e,   w = softplus(u + b),  u = exp((s - s_max) / tau)

with softplus(x) = log(1 + exp(100 x)) / 100, and j over the selected candidates alone: the exemplars and
the most similar distractors. It ignores the rest of the pool, though the published function takes its size
and distribution as arguments. Inference uses the same tau and b with a relu and sums over the whole pool
(`published_form`), so that an exemplar with u < -b has no influence at all. The number of selected
distractors, the optimizer and its steps are not published; here they are the top candidates that ranking
keeps, and the optimum itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from attrib_core.attribution.calibration.golden_section import minimize_nested
from attrib_core.attribution.calibration.published_form import PublishedCalibrator
from attrib_core.attribution.calibration.similarities import SimilarityBatch

BETA = 100.0
GAIN = 1e-3
"""The published checkpoint stores b divided by this."""
TAUS = np.geomspace(1e-3, 1.0, 29)
# far above 1 all selected candidates have equal shares, the optimum where exemplars are no more similar
BIASES = np.concatenate([-np.geomspace(1.0, 1e-3, 16), [0.0], np.geomspace(1e-3, 10.0, 20)])
ITERATIONS = 20


def fit(batches: Sequence[SimilarityBatch]) -> PublishedCalibrator:
    """Minimize the published loss over tau and b."""
    return PublishedCalibrator(*minimize_nested(lambda tau: loss_at(batches, tau), TAUS, BIASES, ITERATIONS))


def loss_at(batches: Sequence[SimilarityBatch], tau: float) -> Callable[[float], float]:
    """Return the function from b to the published loss at this tau, mean over queries."""
    parts = [(batch, np.exp(batch.gap[: batch.exemplars + batch.top] / tau)) for batch in batches]
    queries = sum(len(batch.queries) for batch in batches)

    def loss(bias: float) -> float:
        total = 0.0
        for batch, u in parts:
            weight = np.logaddexp(0.0, BETA * (u + bias)) / BETA
            own = slice(0, batch.exemplars)
            of_exemplars = batch.total(np.log(weight[own]), own) / batch.n_exemplars()
            total += float((np.log(batch.total(weight, slice(0, len(u)))) - of_exemplars).sum())
        return total / queries

    return loss
