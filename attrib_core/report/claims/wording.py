"""What a claim of the report is, and the wordings that several claims share."""

from __future__ import annotations

from dataclasses import dataclass

from attrib_core.attribution.metrics.metrics_table import Row
from attrib_core.report import formatting

SHOWN, OPEN, AGAINST, MIXED = "shown", "open", "against", "mixed"


@dataclass(frozen=True)
class Claim:
    """A question, whether the run answers it ('shown', 'open', 'against', 'mixed'), and the words."""

    question: str
    verdict: str
    text: str


def value_of(row: Row) -> str:
    return formatting.with_interval(row["value"], row["ci_low"], row["ci_high"])


def times_chance(row: Row) -> str:
    """A multiple of chance with its interval, "160 [120, 200] times"."""
    value = formatting.ratio(row["value"] / row["chance"])
    if row["ci_low"] is None:
        return f"{value} times"
    low, high = (formatting.ratio(row[name] / row["chance"]) for name in ("ci_low", "ci_high"))
    return f"{value} [{low}, {high}] times"
