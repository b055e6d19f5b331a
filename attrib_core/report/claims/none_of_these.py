"""Does "none of these" tell images whose exemplars are in the pool from those whose exemplars are not?"""

from __future__ import annotations

from collections.abc import Sequence

from attrib_core.attribution.metrics.metrics_table import Row
from attrib_core.common.constants import UNTUNED
from attrib_core.report import formatting
from attrib_core.report.claims.wording import AGAINST, OPEN, SHOWN, Claim, value_of

ENOUGH = 0.7
"""Area under the curve from which on discrimination is commonly called acceptable."""
GUESS = 0.5
FEWEST = 5
"""Models from which on an interval decides; those of fewer are far too narrow (see `finer.FEW`)."""


def claim(calibration: Sequence[Row], encoder: str, mapper: str, kinds: Sequence[str] = ()) -> Claim | None:
    """From the rows of one form of the calibrator; `kinds` are those that it covers, where there are several.

    Shown where the whole interval of the area under the curve is at ENOUGH or above, against where it is
    below; open where it is of fewer than FEWEST models. Beside tuned features stand the untuned ones of
    the same encoder.
    """
    kind = kinds[0] if len(kinds) == 1 else "all"
    auc, missed, wrong = (
        _row(calibration, encoder, mapper, kind, name)
        for name in ("none_auc", "none_said_held_out", "none_said")
    )
    if auc is None or missed is None or wrong is None:
        return None
    about = f" for {formatting.listing(kinds)} sets" if kinds else ""
    question = f"Does “none of these” tell when an image’s exemplars are not in the pool{about}?"
    text = (
        f"With {formatting.features(encoder, mapper)} an image whose exemplars were taken out of the pool has more mass of "
        f"“none of these” than one with its exemplars there in {value_of(auc)} of all pairs of such images, where a "
        f"guess is right in {formatting.percent(GUESS)}. It is the answer (more than half of the mass) to "
        f"{value_of(missed)} of the images without their exemplars, and to {value_of(wrong)} of those with them, where "
        f"it is wrong. {_end(auc)}"
    )
    plain = None if mapper == UNTUNED else _row(calibration, encoder, UNTUNED, kind, "none_auc")
    if plain is not None:
        text += f" With the untuned {encoder} features the pairs are {value_of(plain)}{_reach(plain)}."
    return Claim(question, _verdict(auc), text)


def _row(rows: Sequence[Row], encoder: str, mapper: str, kind: str, metric: str) -> Row | None:
    place = (encoder, mapper, "test", kind, metric)
    for row in rows:
        if (row["encoder"], row["mapper"], row["split"], row["kind"], row["metric"]) == place:
            return row
    return None


def _verdict(auc: Row) -> str:
    if auc["ci_low"] is None or auc["n_models"] < FEWEST:
        return OPEN
    return SHOWN if auc["ci_low"] >= ENOUGH else AGAINST if auc["ci_high"] < ENOUGH else OPEN


def _end(auc: Row) -> str:
    enough = formatting.percent(ENOUGH)
    if auc["ci_low"] is None:
        return "With fewer than two models there is no interval for the pairs."
    if auc["n_models"] < FEWEST:
        return f"{formatting.plural(auc['n_models'], 'model').capitalize()} are too few for their interval to decide."
    better = auc["ci_low"] > GUESS
    if _verdict(auc) == SHOWN:
        return f"The pairs are {enough} or more, so it tells them apart, though a single answer may well be wrong."
    if _verdict(auc) == AGAINST:
        worth = "better than a guess and" if better else "not shown to be better than a guess, and"
        return f"The pairs are {worth} below {enough}: with these features it hardly works."
    worth = "better than a guess" if better else "not shown to be better than a guess"
    return f"The pairs are {worth}; whether they reach {enough}, below which it hardly works, is open."


def _reach(auc: Row) -> str:
    """Whether it hardly works with other features, where the interval says so."""
    return ", where it hardly works" if _verdict(auc) == AGAINST else ""
