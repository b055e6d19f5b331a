"""Does the control lie at chance? Else the prompt, and not customization, leads to the exemplars."""

from __future__ import annotations

from attrib_core.attribution.metrics.metrics_table import TUNED, Metrics
from attrib_core.common.constants import UNTUNED
from attrib_core.report import formatting
from attrib_core.report.claims.wording import AGAINST, OPEN, SHOWN, Claim, times_chance, value_of

FACTOR = 3
"""So far from chance, either way, the control counts as lying at it."""


def claim(metrics: Metrics, kind: str, encoder: str, mapper: str) -> Claim | None:
    """The control's recall against chance, for the features that the validation split prefers.

    At the largest K, since among the first few a control near chance finds next to nothing, and
    nothing has no interval. Shown where the whole interval is below FACTOR times chance and the value
    is no less than chance / FACTOR; against where the whole interval is above.
    """
    k: int = max(metrics.values("k", metric="recall_at_k"))
    row = metrics.get("recall_at_k", k, encoder=encoder, mapper=mapper, kind=kind, condition="control")
    if row is None:
        return None
    which = {UNTUNED: "untuned", TUNED: "tuned"}[mapper]
    text = (
        f"Among the first {formatting.count(k)}, where there is enough to count, the {which} {encoder} features find "
        f"{value_of(row)} of the exemplars of {kind} sets from images of the base model, made by the same prompts "
        f"without the token ({formatting.plural(row['n_queries'], 'image')} for "
        f"{formatting.plural(row['n_models'], 'test model')}). "
        f"Chance is {formatting.percent(row['chance'])}; so this is {times_chance(row)} chance."
    )
    low, high, chance = row["ci_low"], row["ci_high"], row["chance"]
    if low is None:
        verdict, end = OPEN, "With fewer than two models there is no interval."
    elif low > FACTOR * chance:
        verdict, end = (
            AGAINST,
            "So prompts alone lead to the exemplars, and recall must be read against the control.",
        )
    elif high > FACTOR * chance:
        verdict, end = OPEN, f"The interval does not exclude more than {FACTOR} times chance."
    elif row["value"] < chance / FACTOR:
        verdict, end = (
            OPEN,
            "It finds them less often than chance would: what they show, prompts do not ask for.",
        )
    else:
        verdict, end = SHOWN, "So prompts alone do not lead to the exemplars."
    return Claim(f"Does the control of {kind} sets lie at chance?", verdict, f"{text} {end}")
