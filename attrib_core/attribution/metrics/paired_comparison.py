"""Compare two systems, or two conditions, on the same models: the difference, its interval and its p-value.

The p-value is the larger of two. The sign-flip test over models is exact for few models, but takes the prompts as they
are. The interval of the difference also has the variance between prompts, and its p-value is that level at which it
would end at 0. So p is below 0.05 only where the 95 % interval excludes 0 too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from attrib_core.attribution.metrics import sign_flip_test
from attrib_core.attribution.metrics.summary import interval_columns, side, terms
from attrib_core.common import intervals
from attrib_core.common.crossing import Crossing
from attrib_core.common.intervals import NONE, Interval


class Paired(NamedTuple):
    """Averages over queries of two systems, with interval and p-value of ours - theirs; NaN for one model."""

    ours: float
    theirs: float
    interval: Interval
    p_value: float
    p_error: float

    def columns(self) -> dict[str, float]:
        """Return the columns of tables of comparisons."""
        return {
            "value": self.ours, "against_value": self.theirs, "difference": self.ours - self.theirs,
            **interval_columns(self.interval), "p_value": self.p_value, "p_error": self.p_error,
        }  # fmt: skip


def paired(
    metric: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    crossing: Crossing,
    names: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> Paired:
    """Compare a metric of the queries of two systems on the same models.

    ours, theirs  (queries,) of each system
    crossing      models and prompts of our queries, then of theirs
    names         of the models, sorted
    resamples     random assignments of signs, where there are too many models to try all
    """
    own, other = terms(metric, ours), terms(metric, theirs)
    nothing = [np.zeros(len(one)) for one in (ours, theirs)]
    which = np.repeat([0, 1], [len(ours), len(theirs)])
    spreads = [
        crossing.spread(np.concatenate(parts), which)
        for parts in ((own, nothing[1]), (nothing[0], other), (own, -other))
    ]
    mine = side(metric, ours, spreads[0], crossing.n_models)
    others = side(metric, theirs, spreads[1], crossing.n_models)
    difference = mine.value - others.value
    if crossing.n_models < 2:
        return Paired(mine.value, others.value, NONE, np.nan, np.nan)
    interval = intervals.of_difference(mine, others, spreads[2])
    sets = np.split(crossing.models, [len(ours)])
    by_model = sign_flip_test.model_differences(metric, ours, sets[0], theirs, sets[1], crossing.n_models)
    flips, error = sign_flip_test.p_value(by_model, names, times=resamples, seed=seed)
    tails = (intervals.difference_tail(difference, interval, 0.0, above=above) for above in (True, False))
    return Paired(mine.value, others.value, interval, max(flips, min(1.0, 2.0 * min(tails))), error)
