"""Is what is displayed true where it is large?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrib_core.attribution.metrics.metrics_table import Row
from attrib_core.report import formatting
from attrib_core.report.claims.none_of_these import FEWEST as FEWEST_MODELS
from attrib_core.report.claims.wording import AGAINST, OPEN, SHOWN, Claim

FEWEST = 20  # candidates that a statement on calibration is made from
LEVELS = (0.1, 0.01, 0.001)
"""What a candidate is given at least, the highest where there are enough; as calibration judges them."""
ENOUGH = 0.25
"""Part of the mean statement that the truth may lie beside it, either way, for it to be taken at its word."""


def claim(
    reliability: Sequence[Row],
    calibration: Sequence[Row],
    encoder: str,
    mapper: str,
    *,
    distractors: int,
    kinds: Sequence[str] = (),
) -> Claim | None:
    """Is the displayed influence true where it is large?

    `mapper` has its name in the run; `kinds` are the kinds of sets that the
    calibrator covers, where there are several of them. Compares means over all bins
    above 10 %, or above 1 % or 0.1 % where fewer than 20 candidates are given
    more; and the likelihood of the shares with equal shares. Shown where the whole
    interval of the difference is within ENOUGH of the mean statement, against where it
    is beside that; open where few models have such candidates.
    """
    place = (encoder, mapper, "test")
    rows = [
        row
        for row in reliability
        if (row["encoder"], row["mapper"], row["split"], row["judged"]) == (*place, "displayed")
    ]
    if not any(row["n_candidates"] for row in rows):  # the test split has none of these sets
        return None
    judged = {
        row["metric"]: row
        for row in calibration
        if (row["encoder"], row["mapper"], row["split"], row["kind"]) == (*place, "all")
    }
    values = {metric: row["value"] for metric, row in judged.items()}
    text = ""
    if {"exemplar_mass", "tail_mass", "negative_log_likelihood"} <= set(values):
        gain = math.exp(math.log(distractors + 1) - values["negative_log_likelihood"])
        text = (
            f"With {formatting.features(encoder, mapper)} an image's own exemplars, taken to be in the pool, get "
            f"{formatting.percent(values['exemplar_mass'])} of the influence on average, and the candidates beyond those "
            f"listed {formatting.percent(values['tail_mass'])}. In the geometric mean, which the likelihood judges, an "
            f"exemplar gets {formatting.ratio(gain)} times what equal shares for all candidates would give it. "
        )
    about = f" for {formatting.listing(kinds)} sets" if kinds else ""
    question = f"Can the displayed influence be taken at its word{about}?"
    for least in LEVELS:
        large = [row for row in rows if row["bin_low"] >= 0.999 * least and row["mean_influence"] is not None]
        number = sum(row["n_candidates"] for row in large)
        if number >= FEWEST:
            break
    else:
        return Claim(
            question, OPEN, f"{text}Fewer than {FEWEST} candidates are given {_least(least)} or more."
        )
    stated, true = (
        sum(row[column] * row["n_candidates"] for row in large) / number
        for column in ("mean_influence", "exemplar_share")
    )
    side = "too high" if stated > true else "too low"
    excess = judged.get(f"displayed_excess_at_{least:g}")
    verdict, end = _judgement(excess, stated)
    text += (
        "What is displayed, the share less what “none of these” takes, is judged on images with their exemplars in the "
        f"pool and without them, as many as are assumed. Where a candidate is given {_least(least)} or more "
        f"({formatting.plural(number, 'candidate')}), the mean statement is {100 * stated:.2f}{formatting.THIN}% and the true "
        f"share {100 * true:.2f}{formatting.THIN}%: {side} by {abs(100 * (stated - true)):.2f} points. {end}"
    )
    return Claim(question, verdict, text)


def _judgement(excess: Row | None, stated: float) -> tuple[str, str]:
    """Verdict and last sentences, from the row of the difference; `stated` is the mean statement."""
    if excess is None or excess["ci_low"] is None:
        return OPEN, "With such candidates of fewer than two models there is no interval for the difference."
    low, high, models = excess["ci_low"], excess["ci_high"], excess["n_models"]
    text = (
        f"The interval of the statement less the truth is {_points(low)} to {_points(high)} points, over the"
        f" {formatting.plural(models, 'model')} that have such candidates."
    )
    if models < FEWEST_MODELS:
        return OPEN, f"{text} So few are too few for it to decide."
    near, part = ENOUGH * stated, formatting.percent(ENOUGH)
    if -near <= low and high <= near:
        return SHOWN, f"{text} All of it is within {part} of the mean statement, so it can on average."
    if low > near or high < -near:
        return AGAINST, f"{text} All of it is farther off than {part} of the mean statement, so it cannot."
    return OPEN, f"{text} Whether the truth is within {part} of the mean statement is open."


def _points(difference: float) -> str:
    """A signed difference with the decimals of the means beside it."""
    return f"{100 * difference:+.2f}".replace("-", "\u2212")


def _least(share: float) -> str:
    return f"{100 * share:g}{formatting.THIN}%"
