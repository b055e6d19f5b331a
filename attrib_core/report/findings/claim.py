"""Claims before and after they are judged together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attrib_core.report import formatting
from attrib_core.report.findings import verdicts
from attrib_core.report.findings.verdicts import Evidence


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A claim before it is judged; value and interval are text, since their units differ."""

    question: str
    evidence: Evidence
    sentence: str
    value: str = formatting.NONE
    interval: str = ""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One line of the table; `adjusted` is the p-value adjusted for all claims of the page."""

    question: str
    value: str
    interval: str
    p_value: float | None
    adjusted: float | None
    verdict: str
    sentence: str


def judged(drafts: Sequence[Draft]) -> list[Claim]:
    """Judge claims together: each by its p-value, adjusted for the number of tests among them that could decide."""
    p_values, worst = (
        verdicts.adjusted(
            [getattr(draft.evidence, name) if draft.evidence.counted else None for draft in drafts]
        )
        for name in ("p_value", "worst")
    )
    found = []
    for draft, *ps in zip(drafts, p_values, worst, strict=True):
        verdict, limit = verdicts.decide(draft.evidence, *ps)
        found.append(
            Claim(
                question=draft.question,
                value=draft.value,
                interval=draft.interval,
                p_value=draft.evidence.p_value,
                adjusted=ps[0],
                verdict=verdict,
                sentence=f"{draft.sentence} {limit}".strip(),
            )
        )
    return found
