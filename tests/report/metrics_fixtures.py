"""Rows of the table `metrics`, written by hand, and claims on their own."""

from __future__ import annotations

from typing import Any

from attrib_core.attribution.metrics.metrics_table import Metrics
from attrib_core.report.findings.claim import Claim, Draft, judged


def metrics_row(**changes: Any) -> dict[str, Any]:
    """Return a row of metrics: Recall@10 of customized models on object sets of the test split."""
    base = dict(
        encoder="e", mapper="untuned", condition="customized", split="test", kind="object", seen="all",
        prompt_kind="all", metric="recall_at_k", k=10, value=0.4, ci_low=0.3, ci_high=0.5, df=9.0, ceiling=1.0,
        chance=0.01, n_queries=100, n_models=10,
    )  # fmt: skip
    return base | changes


def metrics_of(*rows: dict[str, Any], mappers: tuple[str, ...] = ("untuned",)) -> Metrics:
    """Return the table of these rows, of the encoder "e"."""
    return Metrics(rows, ("e",), mappers)


def alone(draft: Draft | None) -> Claim:
    """Judge a claim as if it were the only one of the page."""
    assert draft is not None
    (claim,) = judged([draft])
    return claim
