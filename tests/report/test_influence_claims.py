"""Claims on displayed influence and "none of these", on rows written by hand."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from attrib_core.report import formatting
from attrib_core.report.findings import table
from attrib_core.report.findings.verdicts import AGAINST, NO_INTERVAL, OPEN, SHOWN
from tests.report.metrics_fixtures import alone


def bins(*values: tuple[float, float | None, float | None, int]) -> list[dict[str, Any]]:
    """Return rows of reliability from (lower edge, mean influence, true share, candidates)."""
    names = ("bin_low", "mean_influence", "exemplar_share", "n_candidates")
    same = dict(encoder="e", mapper="untuned", split="test", judged="displayed")
    return [same | dict(zip(names, value, strict=True)) for value in values]


def excess(
    low: float | None, high: float | None, level: float = 0.1, models: int = 10
) -> list[dict[str, Any]]:
    """Return the row of calibration with the interval of displayed less true influence."""
    value = 0.0 if low is None or high is None else (low + high) / 2
    same = dict(encoder="e", mapper="untuned", split="test", kind="all", value=value, df=9.0, n_models=models)
    return [same | dict(metric=f"displayed_excess_at_{level:g}", ci_low=low, ci_high=high)]


@pytest.mark.parametrize(
    ("low", "high", "models", "verdict", "limit"),
    [
        (
            -0.04,
            0.07,
            10,
            SHOWN,
            "10 models could show them to be equal within 4.46\u202f%; 7.50\u202f% is allowed.",
        ),
        (-0.074, 0.074, 10, SHOWN, ""),
        (-0.1, 0.1, 10, OPEN, "within 8.10\u202f%; 7.50\u202f% is allowed."),
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
    claim = alone(table.displayed_influence(rows, calibration, "e", "untuned"))
    assert (claim.verdict, claim.value) == (verdict, "+5.00 points")
    assert limit in claim.sentence
    assert claim.interval == formatting.points_interval(low, high, decimals=2)
    if verdict == SHOWN and low is not None and high is not None:
        error = (high - low) / 2 / stats.t.ppf(0.975, 9)
        tails = stats.t.sf([(0.075 - (low + high) / 2) / error, (0.075 + (low + high) / 2) / error], 9)
        assert claim.p_value == pytest.approx(max(tails))


def test_displayed_influence_is_averaged_over_candidates() -> None:
    rows = bins((0.0, 0.01, 0.9, 999), (0.1, 0.15, 0.05, 30), (0.9, 0.95, 0.85, 10))
    claim = alone(table.displayed_influence(rows, [], "e", "untuned"))
    assert (claim.verdict, claim.value) == (OPEN, "+10.00 points")
    assert "40 candidates" in claim.sentence
    assert "35.00\u202f%" in claim.sentence and "25.00\u202f%" in claim.sentence


def test_the_level_of_influence_goes_down_to_where_there_are_candidates() -> None:
    rows = bins((1e-4, 5e-4, 1e-3, 500), (1e-3, 4e-3, 6e-3, 100), (0.01, 0.02, 0.0, 5), (0.1, None, None, 0))
    claim = alone(table.displayed_influence(rows, [], "e", "untuned"))
    assert "105 candidates with an influence of 0.1\u202f% or more" in claim.sentence
    claim = alone(table.displayed_influence(rows[:1], [], "e", "untuned"))
    assert claim.verdict == OPEN and "Fewer than 20 candidates" in claim.sentence


def test_only_what_is_displayed_is_judged() -> None:
    shares = [dict(one, judged="shares") for one in bins((0.1, 0.9, 0.1, 500))]
    assert table.displayed_influence(shares, [], "e", "untuned") is None
    claim = alone(table.displayed_influence([*shares, *bins((0.1, 0.3, 0.2, 50))], [], "e", "untuned"))
    assert "50 candidates" in claim.sentence and claim.value == "+10.00 points"
    empty = bins((0.0, None, None, 0), (0.1, None, None, 0))  # of a test split without sets
    assert table.displayed_influence(empty, [], "e", "untuned") is None


def test_a_calibrator_of_one_kind_is_named_in_the_question() -> None:
    rows = [dict(one, mapper="linear-style") for one in bins((0.1, 0.2, 0.2, 50))]
    claim = alone(table.displayed_influence(rows, [], "e", "linear-style", kinds=["style"]))
    assert claim.question.endswith("for style sets?")


def none_rows(auc: float, low: float | None, high: float | None, **changes: Any) -> list[dict[str, Any]]:
    """Return the rows of calibration that the claim on "none of these" reads."""
    same = dict(
        encoder="e", mapper="untuned", split="test", kind="all", ci_low=low, ci_high=high, df=9.0, n_models=10
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
    claim = alone(table.none_of_these(none_rows(auc, low, high, n_models=models), "e", "untuned"))
    assert (claim.verdict, claim.value) == (verdict, formatting.percent(auc))
    assert claim.interval == formatting.interval(low, high)
    assert "41.0\u202f%" in claim.sentence and limit in claim.sentence


def test_tuned_none_of_these_is_compared_with_untuned() -> None:
    rows = [
        *none_rows(0.8, 0.75, 0.9, mapper="linear-style"),
        *none_rows(0.8, 0.75, 0.9, kind="style", mapper="linear-style"),
        *none_rows(0.53, 0.5, 0.6, kind="style"),
    ]
    claim = alone(table.none_of_these(rows, "e", "linear-style", ["style"]))
    assert claim.verdict == SHOWN and claim.question.endswith("for style sets?")
    assert "(53.0\u202f% [50.0, 60.0] untuned)" in claim.sentence
    assert table.none_of_these([], "e", "untuned") is None
