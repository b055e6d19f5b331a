"""The rules that decide whether a claim is shown, open or against.

A claim is shown only where a test rejects the opposite, and against only where a test rejects the claim, with p-values
adjusted for all tests of the page by Holm (1979); what the numbers do not settle is open. That something is equal, up
to a margin, is shown by two one-sided tests (Schuirmann 1987). Each rule returns the test and what limits it.

A verdict that a small change could turn is open. Two processors round differently, so training ends in other last
bits, and an image just inside the first K may be just outside; and p-values from random draws have an error. So p
must be below the level after the largest of: two standard errors of its random draws, a millionth of itself, and, for
metrics of ranks, one image more or less, which changes a mean over n images by at most 1 / n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from attrib_core.attribution.metrics.metrics_table import Row
from attrib_core.common import intervals
from attrib_core.common.intervals import Interval
from attrib_core.report import formatting
from attrib_core.report.sections.subgroups import FEW

SHOWN, OPEN, AGAINST = "shown", "open", "against"
Verdict = tuple[str, str]

SIGNIFICANCE = 0.05
"""A claim is decided only where its adjusted p-value is below this."""
CHANCE_FACTOR = 3
"""The control is at chance where it is within this factor of it, either way."""
TOLERANCE = 0.25
"""Largest error of displayed influence, relative to its mean, that counts as accurate."""
ACCEPTABLE_AUC = 0.7
"""Area under the ROC curve from which on discrimination is commonly called acceptable."""
MIN_MODELS = FEW
"""Fewer models decide nothing: by simulation (`benchmarks/inference.py`), their intervals span most of the range."""
NO_INTERVAL = "There is no interval, which needs at least two models."
TURNS = "Rounding, the random draws of the test or one image could turn the verdict."
ROUNDING = 1e-6  # of a p-value


class Evidence(NamedTuple):
    """The test that decides a claim.

    p_value   of the claim, or of its opposite; None where nothing was tested
    worst     the largest p that a small change could make of it
    supports  whether it is the claim that is tested
    limit     what limits it, as a sentence; mostly empty
    counted   whether it is one of the tests that p-values are adjusted for: not where there are too few models for a p
              below the level, whatever they do (Tarone 1990)
    """

    p_value: float | None
    worst: float | None
    supports: bool
    limit: str = ""
    counted: bool = True


def no_test(limit: str = "") -> Evidence:
    """Return that nothing was tested."""
    return Evidence(None, None, False, limit)


def adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for their number by Holm's step-down procedure; None is no test and not counted.

    The i-th smallest of m is multiplied by m - i + 1, is not below that of a smaller one, and is at most 1. Holds for
    tests that depend on each other in any way.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for number, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - number) * p))
        found[place] = largest
    return found


def decide(evidence: Evidence, p_value: float | None, worst: float | None) -> Verdict:
    """Return the verdict by the adjusted p-values of the test and of its worst case."""
    if p_value is None or worst is None or p_value >= SIGNIFICANCE:
        return OPEN, evidence.limit
    if worst >= SIGNIFICANCE:
        return OPEN, f"{evidence.limit} {TURNS}".strip()
    return (SHOWN if evidence.supports else AGAINST), evidence.limit


def difference(paired: Row | None) -> Evidence:
    """Test whether there is a paired difference; it supports a claim where it is above 0."""
    if paired is None or paired["ci_low"] is None or paired["p_value"] is None:
        return no_test(NO_INTERVAL)
    value, p = paired["difference"], paired["p_value"]
    image = intervals.difference_tail(
        value, _interval(paired), 0.0, above=value > 0, shift=1.0 / paired["n_queries"]
    )
    worst = max(p * (1.0 + ROUNDING) + 2.0 * paired["p_error"], min(1.0, 2.0 * image))
    limit = _few_models(paired)
    return Evidence(p, worst, value > 0, limit, not limit)


def _few_models(paired: Row) -> str:
    """Say where the number of models is too small for any p-value below SIGNIFICANCE."""
    smallest_p = 2.0 ** (1 - paired["n_models"])
    if smallest_p < SIGNIFICANCE:
        return ""
    agree = paired["difference"] > 0 and paired["p_value"] <= 1.001 * smallest_p
    models = formatting.plural(paired["n_models"], "model")
    return f"With {models} p cannot be below {smallest_p:.3g}{', though all models agree' if agree else ''}."


def trace(recall: Row, control: Row | None, paired: Row | None) -> Evidence:
    """Test whether customized models retrieve their exemplars: above the control and above chance."""
    if control is None:
        return no_test("The run has no control, so the effect of the prompt is not known.")
    found = difference(paired)
    if found.p_value is None or found.worst is None or not found.supports:
        return found
    p, worst = _with_one_image(recall, lambda shift: _beyond(recall, recall["chance"], shift, above=True))
    limit = found.limit
    if not p < SIGNIFICANCE:
        limit = f"Recall itself is not shown to be above chance. {limit}".strip()
    return Evidence(max(found.p_value, p), max(found.worst, worst), True, limit, found.counted)


def control_at_chance(recall: Row) -> Evidence:
    """Test whether the control's recall is within CHANCE_FACTOR of chance, or outside."""
    if (limit := _too_few(recall)) is not None:
        return no_test(limit)
    low, high = recall["chance"] / CHANCE_FACTOR, recall["chance"] * CHANCE_FACTOR
    if low <= recall["value"] <= high:
        p, worst = _with_one_image(
            recall,
            lambda shift: max(
                _beyond(recall, low, shift, above=True), _beyond(recall, high, shift, above=False)
            ),
        )
        return Evidence(p, worst, True)
    above = recall["value"] > high
    p, worst = _with_one_image(
        recall, lambda shift: 2.0 * _beyond(recall, high if above else low, shift, above=above)
    )
    limit = "" if above else "The control finds exemplars less often than chance."
    return Evidence(min(1.0, p), min(1.0, worst), False, limit)


def smallest_factor(recall: Row) -> float | None:
    """Return the smallest factor of chance within which these models could show a control to be that is at chance."""
    if _too_few(recall) is not None:
        return None
    chance = recall["chance"]
    found = intervals.at_level(recall["value"], _interval(recall), 1.0 - 2.0 * SIGNIFICANCE, instead=chance)
    return max(found.high / chance, chance / found.low)


def displayed_influence(excess: Row | None, displayed: float) -> Evidence:
    """Test whether displayed less true influence is within TOLERANCE of the displayed mean, or outside."""
    if excess is None:
        return no_test(NO_INTERVAL)
    if (limit := _too_few(excess)) is not None:
        return no_test(limit)
    value, interval, allowed = excess["value"], _interval(excess), TOLERANCE * displayed
    if abs(value) <= allowed:
        p = max(
            intervals.difference_tail(value, interval, -allowed, above=True),
            intervals.difference_tail(value, interval, allowed, above=False),
        )
        return Evidence(p, p * (1.0 + ROUNDING), True)
    above = value > 0
    bound = allowed if above else -allowed
    p = min(1.0, 2.0 * intervals.difference_tail(value, interval, bound, above=above))
    return Evidence(p, p * (1.0 + ROUNDING), False)


def smallest_margin(excess: Row | None) -> float | None:
    """Return the smallest margin within which these models could show displayed influence to be that is accurate."""
    if excess is None or _too_few(excess) is not None:
        return None
    return intervals.reach_at_level(excess["value"], _interval(excess), 1.0 - 2.0 * SIGNIFICANCE)


def none_of_these(auc: Row) -> Evidence:
    """Test whether the area under the ROC curve is above or below ACCEPTABLE_AUC."""
    if (limit := _too_few(auc)) is not None:
        return no_test(limit)
    above = auc["value"] >= ACCEPTABLE_AUC
    p = min(1.0, 2.0 * _beyond(auc, ACCEPTABLE_AUC, 0.0, above=above))
    return Evidence(p, p * (1.0 + ROUNDING), above)


def _too_few(row: Row) -> str | None:
    """Say why an interval decides nothing; None where it may."""
    if row["ci_low"] is None:
        return NO_INTERVAL
    if row["n_models"] < MIN_MODELS:
        return f"{formatting.plural(row['n_models'], 'model').capitalize()} are too few to decide."
    return None


def _interval(row: Row) -> Interval:
    return Interval(row["ci_low"], row["ci_high"], row["df"])


def _beyond(row: Row, bound: float, shift: float, *, above: bool) -> float:
    return intervals.share_tail(row["value"], _interval(row), bound, above=above, shift=shift)


def _with_one_image(row: Row, p_value: Callable[[float], float]) -> tuple[float, float]:
    """Return a p-value, and the same after one image more or less was found."""
    if row["ci_low"] is None:
        return math.nan, math.nan
    p = p_value(0.0)
    return p, max(p_value(1.0 / row["n_queries"]), p * (1.0 + ROUNDING))
