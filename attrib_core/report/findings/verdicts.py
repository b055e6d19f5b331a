"""The rules that decide whether a claim is shown, open or against.

A claim is shown only where a 95 % interval excludes the opposite; what the numbers do not settle is open.
Each rule returns the verdict and what limits it beyond interval and p-value, which is mostly nothing.
"""

from __future__ import annotations

import math

from attrib_core.attribution.metrics.metrics_table import Row
from attrib_core.report import formatting
from attrib_core.report.sections.subgroups import FEW

SHOWN, OPEN, AGAINST = "shown", "open", "against"
Verdict = tuple[str, str]

SIGNIFICANCE = 0.05
"""A difference is shown only where its p-value is below this."""
CHANCE_FACTOR = 3
"""The control is at chance where it is within this factor of it, either way."""
TOLERANCE = 0.25
"""Largest error of displayed influence, relative to its mean, that counts as accurate."""
ACCEPTABLE_AUC = 0.7
"""Area under the ROC curve from which on discrimination is commonly called acceptable."""
MIN_MODELS = 5
"""An interval over fewer models is far too narrow to decide (see `subgroups.FEW`)."""
NO_INTERVAL = "There is no interval, which needs at least two models."


def difference(paired: Row | None) -> Verdict:
    """Judge a paired difference by its p-value, where it has one, and by the side of zero its interval is on."""
    if paired is None or paired["ci_low"] is None:
        return OPEN, NO_INTERVAL
    significant = paired["p_value"] is None or paired["p_value"] < SIGNIFICANCE
    above, below = significant and paired["ci_low"] > 0, significant and paired["ci_high"] < 0
    return SHOWN if above else AGAINST if below else OPEN, _few_models(paired)


def _few_models(paired: Row) -> str:
    """Say what an interval over few models is worth, and which p-values they can reach.

    Where nothing differs, the interval of five normal differences excludes 0 in 15 % of samples and that of
    eight in 10 %, since resamples of few models vary too little. The p-value does not suffer from this.
    """
    if paired["n_models"] >= FEW:
        return ""
    text = f"An interval over {formatting.plural(paired['n_models'], 'model')} is too narrow"
    smallest_p = 2.0 ** (1 - paired["n_models"])
    if smallest_p < SIGNIFICANCE:
        return f"{text}."
    agree = paired["difference"] > 0 and (paired["p_value"] or 1) <= 1.001 * smallest_p
    return f"{text}, and p cannot be below {smallest_p:.3g}{', though all models agree' if agree else ''}."


def trace(recall: Row, control: Row | None, paired: Row | None) -> Verdict:
    """Judge whether customized models retrieve their exemplars: above the control and above chance."""
    if control is None:
        return OPEN, "The run has no control, so the effect of the prompt is not known."
    verdict, limit = difference(paired)
    if verdict == SHOWN and (recall["ci_low"] is None or recall["ci_low"] <= recall["chance"]):
        return OPEN, f"Recall itself is not shown to be above chance. {limit}"
    return verdict, limit


def control_at_chance(recall: Row) -> Verdict:
    """Judge whether the control's recall is within CHANCE_FACTOR of chance."""
    low, high, chance = recall["ci_low"], recall["ci_high"], recall["chance"]
    if low is None:
        return OPEN, NO_INTERVAL
    if high > CHANCE_FACTOR * chance:
        return (AGAINST if low > CHANCE_FACTOR * chance else OPEN), ""
    if recall["value"] < chance / CHANCE_FACTOR:
        return OPEN, "The control finds exemplars less often than chance."
    return SHOWN, ""


def displayed_influence(excess: Row | None, displayed: float) -> Verdict:
    """Judge whether the interval of displayed less true influence is within TOLERANCE of the displayed mean."""
    allowed = TOLERANCE * displayed
    return _interval_within(excess, inside=(-allowed, allowed))


def none_of_these(auc: Row) -> Verdict:
    """Judge whether the interval of the area under the ROC curve is above or below ACCEPTABLE_AUC."""
    return _interval_within(auc, inside=(ACCEPTABLE_AUC, math.inf))


def _interval_within(row: Row | None, inside: tuple[float, float]) -> Verdict:
    """Shown where all of the interval is `inside`, against where all of it is outside; MIN_MODELS decide."""
    if row is None or row["ci_low"] is None:
        return OPEN, NO_INTERVAL
    if row["n_models"] < MIN_MODELS:
        return OPEN, f"{formatting.plural(row['n_models'], 'model').capitalize()} are too few to decide."
    if inside[0] <= row["ci_low"] and row["ci_high"] <= inside[1]:
        return SHOWN, ""
    return (AGAINST if row["ci_low"] > inside[1] or row["ci_high"] < inside[0] else OPEN), ""
