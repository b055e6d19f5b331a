"""Means, calibration errors and areas under curves with their intervals, from what each query or cell contributes.

A cell is the queries of one model and prompt. The error of each measure is linearized: to first order it is the sum
of the terms that are given to `Crossing.spread`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from attrib_core.attribution.calibration import auc
from attrib_core.common import intervals
from attrib_core.common.crossing import Crossing
from attrib_core.common.intervals import Interval

LEVELS = (0.1, 0.01, 0.001)
"""Edges of bins; the excess of displayed influence is over all candidates with one of these or more."""
UNBOUNDED = ("negative_log_likelihood", "mixture_negative_log_likelihood", "brier", "mixture_brier")


class Error(NamedTuple):
    """A measure, its interval, and the number of models."""

    value: float
    interval: Interval
    models: int


def mean(name: str, values: np.ndarray, crossing: Crossing) -> Error:
    """Compute the mean of a metric over queries, (queries,); infinite values have no interval."""
    value = float(values.mean())
    if not np.isfinite(value):
        return Error(value, intervals.NONE, crossing.n_models)
    spread = crossing.spread((values - value) / len(values))
    found = (
        intervals.of_mean(value, spread)
        if name in UNBOUNDED
        else intervals.of_share(value, spread, crossing.n_models)
    )
    return Error(value, found, crossing.n_models)


def calibration_error(bins: np.ndarray, crossing: Crossing) -> Error:
    """Compute the expected calibration error from sums in bins, (cells, 3, bins); see `scoring_rules.sum_in_bins`."""
    difference, queries = bins[:, 1] - bins[:, 2], bins[:, 2].sum(axis=1)
    total = difference.sum(axis=0)
    value = float(np.abs(total).sum() / 2.0 / queries.sum())
    terms = (difference @ np.sign(total) / 2.0 - value * queries) / queries.sum()
    return Error(
        value, intervals.of_share(value, crossing.spread(terms), crossing.n_models), crossing.n_models
    )


def excess(sums: np.ndarray, crossing: Crossing) -> Error:
    """Compute the mean displayed less the mean true influence of candidates.

    sums  (cells, 3): candidates, displayed and true influence
    """
    count = sums[:, 0].sum()
    means = sums.sum(axis=0)[1:] / count
    terms = (sums[:, 1:] - sums[:, :1] * means) / count
    displayed, true = (
        intervals.share_side(float(value), crossing.spread(one), crossing.n_models)
        for value, one in zip(means, terms.T, strict=True)
    )
    interval = intervals.of_difference(displayed, true, crossing.spread(terms[:, 0] - terms[:, 1]))
    return Error(displayed.value - true.value, interval, crossing.n_models)


def area_under_curve(negative: np.ndarray, positive: np.ndarray, crossing: Crossing) -> Error:
    """Compute the area under the ROC curve where each query has a score as a negative and one as a positive."""
    parts = auc.components(negative, positive)
    value = float(parts[1].mean())
    spread = crossing.spread((parts[0] + parts[1] - 2.0 * value) / len(negative))
    return Error(value, intervals.of_share(value, spread, crossing.n_models), crossing.n_models)
