"""Claims of the report, on rows written by hand: verdicts follow the intervals, and sentences have the numbers."""

from __future__ import annotations

from typing import Any

import pytest

from attrib_core.attribution.metrics.metrics_table import Metrics
from attrib_core.report import formatting
from attrib_core.report.findings import table
from attrib_core.report.findings.table import Claim
from attrib_core.report.findings.verdicts import AGAINST, NO_INTERVAL, OPEN, SHOWN
from tests.report.metrics_fixtures import metrics_of, metrics_row

CONTROL = metrics_row(condition="control", value=0.2)
LINEAR = ("untuned", "linear-both")


def comparison(low: float | None, high: float | None, **changes: Any) -> dict[str, Any]:
    """Return a row of comparisons: customized against control."""
    base = dict(
        encoder="e", comparison="condition", mapper="untuned", condition="customized", against_mapper="untuned",
        against_condition="control", split="test", kind="object", seen="all", prompt_kind="all", metric="recall_at_k",
        k=10, value=0.4, against_value=0.2, difference=0.2, ci_low=low, ci_high=high, p_value=0.01, n_models=10,
    )  # fmt: skip
    return base | changes


def mapper_comparison(low: float | None, high: float | None, **changes: Any) -> dict[str, Any]:
    """Return a row of comparisons: tuned against untuned."""
    same = dict(
        comparison="mapper", mapper="linear-both", against_condition="customized", metric=table.MAP, k=None
    )
    return comparison(low, high, **same | changes)


def trace(*rows: dict[str, Any], paired: dict[str, Any]) -> Claim:
    claim = table.trace(metrics_of(*rows), [paired], "object", "e")
    assert claim is not None
    return claim


def tuning(paired: dict[str, Any]) -> Claim:
    (claim,) = table.tuning(metrics_of(metrics_row(), mappers=LINEAR), [paired], "object", [])
    return claim


@pytest.mark.parametrize(
    ("low", "high", "p_value", "verdict"),
    [
        (0.1, 0.3, 0.01, SHOWN),
        (0.1, 0.3, None, SHOWN),
        (0.1, 0.3, 0.05, OPEN),
        (-0.1, 0.3, 0.01, OPEN),
        (-0.3, -0.1, 0.01, AGAINST),
        (None, None, None, OPEN),
    ],
)
def test_trace_and_tuning_follow_interval_and_p_value(
    low: float | None, high: float | None, p_value: float | None, verdict: str
) -> None:
    claim = trace(metrics_row(), CONTROL, paired=comparison(low, high, p_value=p_value))
    tuned = tuning(mapper_comparison(low, high, p_value=p_value))
    interval = "" if low is None else formatting.points_interval(low, high)
    for found in (claim, tuned):
        assert (found.verdict, found.value, found.interval) == (verdict, "+20.0 points", interval)
        assert found.p_value == p_value and (NO_INTERVAL in found.sentence) == (low is None)
    assert "is 40.0\u202f% [30.0, 50.0] for customized models and 20.0\u202f% [30.0, 50.0]" in claim.sentence
    assert "chance is 1.0\u202f%." in claim.sentence
    assert "mAP is 40.0\u202f% with the mapper and 20.0\u202f% without" in tuned.sentence


def test_a_trace_needs_a_control_and_recall_above_chance() -> None:
    claim = trace(metrics_row(), paired=comparison(0.1, 0.3))
    assert (claim.verdict, claim.value) == (OPEN, formatting.NONE) and "no control" in claim.sentence
    low = metrics_row(value=0.012, ci_low=0.004, ci_high=0.02)
    claim = trace(low, CONTROL, paired=comparison(0.001, 0.02))
    assert claim.verdict == OPEN and "not shown to be above chance" in claim.sentence
    assert table.trace(metrics_of(CONTROL), [], "object", "e") is None


@pytest.mark.parametrize(
    ("values", "verdict", "value", "interval", "limit"),
    [
        ((0.02, 0.005, 0.029), SHOWN, "2.0", "[0.5, 2.9]", ""),
        ((0.02, 0.005, 0.031), OPEN, "2.0", "[0.5, 3.1]", ""),
        ((0.05, 0.031, 0.07), AGAINST, "5.0", "[3.1, 7.0]", ""),
        ((0.003, 0.0, 0.006), OPEN, "0.3", "[0.0, 0.6]", "less often than chance"),
        ((0.0, 0.0, 0.0), OPEN, "0.0", "[0.0, 0.0]", "less often than chance"),
        ((0.02, None, None), OPEN, "2.0", "", NO_INTERVAL),
    ],
)
def test_the_control_at_chance_is_judged_at_the_largest_k(
    values: tuple[float | None, ...], verdict: str, value: str, interval: str, limit: str
) -> None:
    measured = dict(zip(("value", "ci_low", "ci_high"), values, strict=True))
    rows = [metrics_row(condition="control", k=100, **measured), metrics_row(condition="control", value=0.9)]
    claim = table.control_at_chance(metrics_of(*rows), "object", "e", "untuned")
    assert claim is not None and limit in claim.sentence
    assert (claim.verdict, claim.value, claim.interval) == (verdict, f"{value} × chance", interval)
    assert table.control_at_chance(metrics_of(metrics_row()), "object", "e", "untuned") is None


def test_each_encoder_has_a_claim_on_tuning_and_a_kept_identity_is_open() -> None:
    both = Metrics((metrics_row(), metrics_row(encoder="f")), ("e", "f"), LINEAR)
    pairs = [mapper_comparison(0.1, 0.3), mapper_comparison(-0.3, -0.1, encoder="f")]
    claims = list(table.tuning(both, pairs, "object", []))
    assert [claim.verdict for claim in claims] == [SHOWN, AGAINST]
    assert "tuning e features" in claims[0].question and "tuning f features" in claims[1].question
    kept, other = table.tuning(both, pairs, "object", [("e", "object")])
    assert (kept.verdict, kept.value, kept.p_value) == (OPEN, formatting.NONE, None)
    assert "identity" in kept.sentence and other.verdict == AGAINST
    assert list(table.tuning(metrics_of(metrics_row()), pairs, "object", [])) == []


@pytest.mark.parametrize(("p_value", "agree"), [(0.0625, True), (0.125, False)])
def test_few_models_that_agree_are_still_open(p_value: float, agree: bool) -> None:
    few = dict(n_models=5, p_value=p_value)
    for claim in (
        trace(metrics_row(), CONTROL, paired=comparison(0.1, 0.3, **few)),
        tuning(mapper_comparison(0.1, 0.3, **few)),
    ):
        assert claim.verdict == OPEN and "p cannot be below 0.0625" in claim.sentence
        assert ("though all models agree" in claim.sentence) == agree


@pytest.mark.parametrize(("models", "too_narrow"), [(5, True), (9, True), (10, False), (30, False)])
def test_intervals_over_few_models_are_called_too_narrow(models: int, too_narrow: bool) -> None:
    known = metrics_of(
        metrics_row(), CONTROL, metrics_row(seen="seen"), metrics_row(seen="unseen"), mappers=LINEAR
    )
    pairs = [
        comparison(0.1, 0.3, n_models=models),
        comparison(0.1, 0.3, n_models=models, seen="unseen"),
        mapper_comparison(0.1, 0.3, n_models=models),
    ]
    for claim in (
        table.trace(known, pairs, "object", "e"),
        *table.tuning(known, pairs, "object", ()),
        table.unseen(known, pairs, [], "object", "e", "untuned"),
    ):
        assert claim is not None and claim.verdict == SHOWN
        assert (f"An interval over {models} models is too narrow" in claim.sentence) == too_narrow


def test_unseen_categories_are_compared_with_the_control_and_with_like_categories() -> None:
    known = metrics_of(metrics_row(), metrics_row(seen="seen"), metrics_row(seen="unseen", n_models=3))
    match = comparison(-0.3, 0.1, difference=-0.1, n_against=11, n_strata=3)
    for low, verdict in ((0.1, SHOWN), (-0.1, OPEN)):
        pairs = [comparison(low, 0.3, seen="unseen")]
        claim = table.unseen(known, pairs, [match], "object", "e", "untuned")
        assert claim is not None and claim.verdict == verdict
        assert "(3 models) for unseen" in claim.sentence and "(10 models) for seen" in claim.sentence
        assert "differ by \u221210.0 points [\u221230.0, +10.0]" in claim.sentence
    seen_only = metrics_of(metrics_row(), metrics_row(seen="seen"))
    assert table.unseen(seen_only, [], [], "object", "e", "untuned") is None


def bins(*values: tuple[float, float | None, float | None, int]) -> list[dict[str, Any]]:
    """Return rows of reliability from (lower edge, mean influence, true share, candidates)."""
    names = ("bin_low", "mean_influence", "exemplar_share", "n_candidates")
    same = dict(encoder="e", mapper="untuned", split="test", judged="displayed")
    return [same | dict(zip(names, value, strict=True)) for value in values]


def excess(
    low: float | None, high: float | None, level: float = 0.1, models: int = 10
) -> list[dict[str, Any]]:
    """Return the row of calibration with the interval of displayed less true influence."""
    same = dict(encoder="e", mapper="untuned", split="test", kind="all", value=0.0, n_models=models)
    return [same | dict(metric=f"displayed_excess_at_{level:g}", ci_low=low, ci_high=high)]


@pytest.mark.parametrize(
    ("low", "high", "models", "verdict", "limit"),
    [
        (-0.01, 0.07, 10, SHOWN, ""),
        (0.01, 0.2, 10, OPEN, ""),
        (0.08, 0.2, 10, AGAINST, ""),
        (-0.3, -0.08, 10, AGAINST, ""),
        (0.08, 0.2, 4, OPEN, "4 models are too few to decide."),
        (None, None, 1, OPEN, NO_INTERVAL),
    ],
)
def test_displayed_influence_is_accurate_only_within_a_quarter_of_its_mean(
    low: float | None, high: float | None, models: int, verdict: str, limit: str
) -> None:
    rows = bins((0.1, 0.3, 0.25, 50))  # a quarter of the mean is 7.5 points
    calibration = [*excess(-0.9, 0.9, 0.01), *excess(low, high, models=models)]
    claim = table.displayed_influence(rows, calibration, "e", "untuned")
    assert claim is not None and (claim.verdict, claim.value) == (verdict, "+5.00 points")
    assert limit in claim.sentence and claim.sentence.endswith(limit or "25.00\u202f%.")
    assert claim.interval == formatting.points_interval(low, high, decimals=2)


def test_displayed_influence_is_averaged_over_candidates() -> None:
    rows = bins((0.0, 0.01, 0.9, 999), (0.1, 0.15, 0.05, 30), (0.9, 0.95, 0.85, 10))
    claim = table.displayed_influence(rows, [], "e", "untuned")
    assert claim is not None and (claim.verdict, claim.value) == (OPEN, "+10.00 points")
    assert "40 candidates" in claim.sentence
    assert "35.00\u202f%" in claim.sentence and "25.00\u202f%" in claim.sentence


def test_the_level_of_influence_goes_down_to_where_there_are_candidates() -> None:
    rows = bins((1e-4, 5e-4, 1e-3, 500), (1e-3, 4e-3, 6e-3, 100), (0.01, 0.02, 0.0, 5), (0.1, None, None, 0))
    claim = table.displayed_influence(rows, [], "e", "untuned")
    assert claim is not None and "105 candidates with an influence of 0.1\u202f% or more" in claim.sentence
    claim = table.displayed_influence(rows[:1], [], "e", "untuned")
    assert claim is not None and claim.verdict == OPEN and "Fewer than 20 candidates" in claim.sentence


def test_only_what_is_displayed_is_judged() -> None:
    shares = [dict(one, judged="shares") for one in bins((0.1, 0.9, 0.1, 500))]
    assert table.displayed_influence(shares, [], "e", "untuned") is None
    claim = table.displayed_influence([*shares, *bins((0.1, 0.3, 0.2, 50))], [], "e", "untuned")
    assert claim is not None and "50 candidates" in claim.sentence and claim.value == "+10.00 points"
    empty = bins((0.0, None, None, 0), (0.1, None, None, 0))  # of a test split without sets
    assert table.displayed_influence(empty, [], "e", "untuned") is None


def test_a_calibrator_of_one_kind_is_named_in_the_question() -> None:
    rows = [dict(one, mapper="linear-style") for one in bins((0.1, 0.2, 0.2, 50))]
    claim = table.displayed_influence(rows, [], "e", "linear-style", kinds=["style"])
    assert claim is not None and claim.question.endswith("for style sets?")


def none_rows(auc: float, low: float | None, high: float | None, **changes: Any) -> list[dict[str, Any]]:
    """Return the rows of calibration that the claim on "none of these" reads."""
    same = dict(
        encoder="e", mapper="untuned", split="test", kind="all", ci_low=low, ci_high=high, n_models=10
    )
    values = {"none_auc": auc, "none_said_held_out": 0.41, "none_said": 0.4}
    return [same | changes | dict(metric=metric, value=value) for metric, value in values.items()]


@pytest.mark.parametrize(
    ("auc", "low", "high", "models", "verdict", "limit"),
    [
        (0.85, 0.75, 0.92, 10, SHOWN, ""),
        (0.60, 0.55, 0.65, 10, AGAINST, ""),
        (0.72, 0.55, 0.85, 10, OPEN, ""),
        (0.50, 0.50, 0.50, 4, OPEN, "4 models are too few to decide."),
        (0.90, None, None, 1, OPEN, NO_INTERVAL),
    ],
)
def test_none_of_these_works_only_where_the_interval_is_above_acceptable(
    auc: float, low: float | None, high: float | None, models: int, verdict: str, limit: str
) -> None:
    claim = table.none_of_these(none_rows(auc, low, high, n_models=models), "e", "untuned")
    assert claim is not None and (claim.verdict, claim.value) == (verdict, formatting.percent(auc))
    assert claim.interval == formatting.interval(low, high)
    assert "41.0\u202f%" in claim.sentence and limit in claim.sentence


def test_tuned_none_of_these_is_compared_with_untuned() -> None:
    rows = [
        *none_rows(0.8, 0.75, 0.9, mapper="linear-style"),
        *none_rows(0.8, 0.75, 0.9, kind="style", mapper="linear-style"),
        *none_rows(0.53, 0.5, 0.6, kind="style"),
    ]
    claim = table.none_of_these(rows, "e", "linear-style", ["style"])
    assert claim is not None and claim.verdict == SHOWN and claim.question.endswith("for style sets?")
    assert "(53.0\u202f% [50.0, 60.0] untuned)" in claim.sentence
    assert table.none_of_these([], "e", "untuned") is None
