"""The published calibrator (arXiv 2306.09345):

    w_i = relu(exp((s_i - s_max) / tau) + b),    p_i = w_i / sum of w over pool and exemplars,

with s the cosines of one query and s_max the highest of them. Where b >= 0 the relu changes nothing, and p
mixes a softmax at temperature tau with a uniform share: p_i = (exp((s_i - s_max) / tau) + b) / (U + b M), with
U the sum of the exponentials and M the number of candidates. Where b < 0, all candidates with exp(...) < -b
have no influence.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from attrib_core.attribution.calibration.similarities import SimilarityBatch

FORMULA = "p_i = relu(exp((s_i - s_max) / tau) + bias) / sum over pool and exemplars of the same"


class PublishedCalibrator(NamedTuple):
    """The published calibrator: tau in units of cosine; bias, b above, in units of the largest weight."""

    tau: float
    bias: float

    def shares(self, batch: SimilarityBatch) -> np.ndarray:
        """Compute the influence of one candidate of each entry, (entries,); with the counts they sum to 1."""
        weight = np.maximum(np.exp(batch.gap / self.tau) + self.bias, 0.0)
        share: np.ndarray = weight / batch.total(batch.count * weight)[batch.query]
        return share

    def none_mass(self, batch: SimilarityBatch) -> np.ndarray:
        """Return zeros (queries,): this calibrator has no "none of these"."""
        return np.zeros(len(batch.queries))
