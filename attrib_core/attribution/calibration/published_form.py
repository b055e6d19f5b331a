"""From similarities to shares of influence, in the published form (arXiv 2306.09345):

    w_i = relu(exp((s_i - s_max) / tau) + b),    p_i = w_i / sum of w over pool and exemplars,

with s the cosines of one query and s_max the highest of them. Training and use have this one form.
Where b >= 0 the relu changes nothing, and p mixes a softmax at temperature tau with a uniform share:
p_i = (exp((s_i - s_max) / tau) + b) / (U + b M), with U the sum of the exponentials and M the number
of candidates. Where b < 0, all candidates with exp(...) < -b have no influence.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from attrib_core.attribution.calibration.similarities import Evidence

TEXT = "p_i = relu(exp((s_i - s_max) / tau) + bias) / sum over pool and exemplars of the same"


class Calibrator(NamedTuple):
    """tau: in units of cosine; bias: b above, in units of the weight of the most similar candidate."""

    tau: float
    bias: float

    def shares(self, evidence: Evidence) -> np.ndarray:
        """Influence of one candidate of each entry, (entries,)."""
        return shares(evidence, self)

    def none(self, evidence: Evidence) -> np.ndarray:
        """This form cannot say that no candidate is the source, (queries,) zeros."""
        return np.zeros(len(evidence.queries))


def weights(gap: np.ndarray, calibrator: Calibrator) -> np.ndarray:
    """w of candidates whose similarity is `gap` (0 or below) from the highest of their query."""
    weight: np.ndarray = np.maximum(np.exp(gap / calibrator.tau) + calibrator.bias, 0.0)
    return weight


def shares(evidence: Evidence, calibrator: Calibrator) -> np.ndarray:
    """Influence of one candidate of each entry, (entries,); with the counts they sum to 1 per query."""
    weight = weights(evidence.gap, calibrator)
    share: np.ndarray = weight / evidence.total(evidence.count * weight)[evidence.query]
    return share


def negative_log_likelihood(evidence: Evidence, calibrator: Calibrator) -> np.ndarray:
    """-(1 / n) sum over the n exemplars of log p, (queries,) nats.

    The cross-entropy between equal shares for all exemplars and p; at best log n. Infinite where an
    exemplar is given no influence at all.
    """
    own = slice(0, evidence.exemplars)
    with np.errstate(divide="ignore"):
        logarithm = np.log(shares(evidence, calibrator)[own])
    mean: np.ndarray = -evidence.total(logarithm, own) / evidence.n_exemplars()
    return mean
