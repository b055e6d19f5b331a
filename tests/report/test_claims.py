"""Claims of the report, on rows written by hand: verdicts follow the tests, and sentences have the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from attrib_core.attribution.metrics.metrics_table import Metrics
from attrib_core.common import intervals
from attrib_core.common.crossing import Spread
from attrib_core.report import formatting
from attrib_core.report.findings import table, verdicts
from attrib_core.report.findings.claim import Claim, judged
from attrib_core.report.findings.verdicts import AGAINST, NO_INTERVAL, OPEN, SHOWN, TURNS
from tests.report.metrics_fixtures import alone, metrics_of, metrics_row

CONTROL = metrics_row(condition="control", value=0.2)
LINEAR = ("untuned", "linear-both")


def comparison(low: float | None, high: float | None, **changes: Any) -> dict[str, Any]:
    """Return a row of comparisons: customized against control."""
    base = dict(
        encoder="e", comparison="condition", mapper="untuned", condition="customized", against_mapper="untuned",
        against_condition="control", split="test", kind="object", seen="all", prompt_kind="all", metric="recall_at_k",
        k=10, value=0.4, against_value=0.2, difference=0.2, ci_low=low, ci_high=high, df=9.0, p_value=0.001,
        p_error=0.0, n_queries=100, n_models=10,
    )  # fmt: skip
    return base | changes


def mapper_comparison(low: float | None, high: float | None, **changes: Any) -> dict[str, Any]:
    """Return a row of comparisons: tuned against untuned."""
    same = dict(
        comparison="mapper", mapper="linear-both", against_condition="customized", metric=table.MAP, k=None
    )
    return comparison(low, high, **same | changes)


def trace(*rows: dict[str, Any], paired: dict[str, Any]) -> Claim:
    return alone(table.trace(metrics_of(*rows), [paired], "object", "e"))


def tuning(paired: dict[str, Any]) -> Claim:
    (draft,) = table.tuning(metrics_of(metrics_row(), mappers=LINEAR), [paired], "object", [])
    return alone(draft)


@pytest.mark.parametrize(
    ("low", "high", "p_value", "verdict"),
    [
        (0.1, 0.3, 0.001, SHOWN),
        (0.1, 0.3, None, OPEN),
        (0.1, 0.3, 0.05, OPEN),
        (-0.1, 0.5, 0.08, OPEN),
        (-0.3, -0.1, 0.001, AGAINST),
        (None, None, None, OPEN),
    ],
)
def test_trace_and_tuning_follow_the_p_value_and_the_side_of_zero(
    low: float | None, high: float | None, p_value: float | None, verdict: str
) -> None:
    difference = 0.2 if low is None or high is None else (low + high) / 2
    own = dict(p_value=p_value, difference=difference)
    claim = trace(metrics_row(), CONTROL, paired=comparison(low, high, **own))
    tuned = tuning(mapper_comparison(low, high, **own))
    interval = "" if low is None else formatting.points_interval(low, high)
    for found in (claim, tuned):
        assert (found.verdict, found.interval) == (verdict, interval)
        assert found.value == f"{formatting.points(difference)} points"
        assert (NO_INTERVAL in found.sentence) == (p_value is None)
        assert found.adjusted == found.p_value  # it is the only one
    assert tuned.p_value == p_value
    assert "is 40.0\u202f% [30.0, 50.0] for customized models and 20.0\u202f% [30.0, 50.0]" in claim.sentence
    assert "chance is 1.0\u202f%." in claim.sentence
    assert "mAP is 40.0\u202f% with the mapper and 20.0\u202f% without" in tuned.sentence


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        (dict(p_value=0.04), SHOWN),
        (dict(p_value=0.04, p_error=0.004), SHOWN),
        (dict(p_value=0.04, p_error=0.006), OPEN),  # two standard errors of the random draws
        (dict(p_value=0.05 - 1e-9), OPEN),  # rounding
        (dict(p_value=0.04, n_queries=12, difference=0.12, ci_low=0.01), OPEN),  # one image of twelve
        (dict(p_value=0.04, n_queries=12), SHOWN),
    ],
)
def test_a_verdict_that_a_small_change_could_turn_is_open(changes: dict[str, Any], verdict: str) -> None:
    for found in (
        trace(metrics_row(), CONTROL, paired=comparison(0.1, 0.3) | changes),
        tuning(mapper_comparison(0.1, 0.3) | changes),
    ):
        assert found.verdict == verdict and (TURNS in found.sentence) == (verdict == OPEN)


def test_p_values_are_adjusted_for_all_tests_of_the_page() -> None:
    """By hand: 0.01, 0.02, 0.03 and 0.04 of four are 0.04, 0.06, 0.06 and 0.06."""
    ps = [0.03, None, 0.01, 0.04, 0.02]
    drafts = [
        draft
        for p in ps
        for draft in table.tuning(
            metrics_of(metrics_row(), mappers=LINEAR), [mapper_comparison(0.1, 0.3, p_value=p)], "object", []
        )
    ]
    claims = judged(drafts)
    assert [claim.p_value for claim in claims] == ps
    assert [claim.adjusted for claim in claims] == [
        None if p is None else pytest.approx(p) for p in (0.06, None, 0.04, 0.06, 0.06)
    ]
    assert [claim.verdict for claim in claims] == [OPEN, OPEN, SHOWN, OPEN, OPEN]
    mixed = judged(drafts[::-1])
    assert [claim.adjusted for claim in mixed[::-1]] == [claim.adjusted for claim in claims]
    assert verdicts.adjusted([0.5, 0.9, 0.4]) == [1.0, 1.0, 1.0] and verdicts.adjusted([]) == []
    assert verdicts.adjusted([0.01, 0.01, 0.5]) == [pytest.approx(0.03), pytest.approx(0.03), 0.5]


def test_a_trace_needs_a_control_and_recall_above_chance() -> None:
    claim = trace(metrics_row(), paired=comparison(0.1, 0.3))
    assert (claim.verdict, claim.value) == (OPEN, formatting.NONE) and "no control" in claim.sentence
    low = metrics_row(value=0.012, ci_low=0.004, ci_high=0.035)
    claim = trace(low, CONTROL, paired=comparison(0.001, 0.02, difference=0.01, n_queries=10_000))
    assert claim.verdict == OPEN and "not shown to be above chance" in claim.sentence
    expected = intervals.share_tail(0.012, intervals.Interval(0.004, 0.035, 9.0), 0.01, above=True)
    assert claim.p_value == pytest.approx(expected)
    assert table.trace(metrics_of(CONTROL), [], "object", "e") is None


def control(value: float, variance: float, **changes: Any) -> dict[str, Any]:
    """Return Recall@100 of the control over 30 models, where chance is 0.05."""
    low, high, df = intervals.of_share(value, Spread(variance, 29), 30)
    own = dict(value=value, ci_low=low, ci_high=high, df=df, chance=0.05, n_models=30, n_queries=2000)
    return metrics_row(condition="control", k=100) | own | changes


@pytest.mark.parametrize(
    ("row", "verdict", "limit"),
    [
        (control(0.05, 1e-4), SHOWN, "could show it within a factor of 1.5"),
        (control(0.06, 2e-4), SHOWN, ""),
        (control(0.02, 2e-5), OPEN, ""),  # it may be less than a third
        (control(0.14, 1e-4), OPEN, ""),
        (control(0.25, 4e-4), AGAINST, ""),
        (control(0.002, 1e-6), AGAINST, "less often than chance"),
        (control(0.0, 0.0), OPEN, "less often than chance"),
        (control(0.05, 1e-4, n_models=4), OPEN, "4 models are too few to decide."),
        (control(0.05, 1e-4, ci_low=None, ci_high=None), OPEN, NO_INTERVAL),
    ],
)
def test_the_control_is_at_chance_by_two_one_sided_tests_at_the_largest_k(
    row: dict[str, Any], verdict: str, limit: str
) -> None:
    rows = [row, metrics_row(condition="control", value=0.9)]
    claim = alone(table.control_at_chance(metrics_of(*rows), "object", "e", "untuned"))
    assert (claim.verdict, claim.value) == (verdict, f"{formatting.ratio(row['value'] / 0.05)} × chance")
    assert limit in claim.sentence
    if claim.p_value is not None and verdict == SHOWN:
        inner = intervals.Interval(row["ci_low"], row["ci_high"], row["df"])
        inverse = row["ci_high"] - row["value"]
        inverse = inverse**2 / (row["ci_high"] * (1 - row["ci_high"]) * stats.t.ppf(0.975, 29) ** 2)
        tails = [
            stats.t.sf(distance / (bound * (1 - bound) * inverse) ** 0.5, 29)
            for distance, bound in ((row["value"] - 0.05 / 3, 0.05 / 3), (0.15 - row["value"], 0.15))
        ]
        assert claim.p_value == pytest.approx(max(tails))
        both = intervals.at_level(row["value"], inner, 0.90)  # 5 % on each side
        assert both.low > 0.05 / 3 and both.high < 0.15


def test_one_image_of_the_control_does_not_turn_the_verdict() -> None:
    """Of 14 models with 8 images each, one image is 0.9 points: shown with it is open without."""
    where: dict[str, Any] = dict(chance=0.05, n_models=14, df=13.0)
    for value in np.arange(2, 14) / 112:
        found = control(float(value), 5e-5)
        few, many = (
            alone(
                table.control_at_chance(
                    metrics_of(found | where | dict(n_queries=n)), "object", "e", "untuned"
                )
            )
            for n in (112, 10**9)
        )
        assert few.p_value == many.p_value
        assert few.verdict in (many.verdict, OPEN)
        assert (few.verdict != many.verdict) == (TURNS in few.sentence)


def test_without_a_control_there_is_no_claim_on_it() -> None:
    assert table.control_at_chance(metrics_of(metrics_row()), "object", "e", "untuned") is None


def test_each_encoder_has_a_claim_on_tuning_and_a_kept_identity_is_open() -> None:
    both = Metrics((metrics_row(), metrics_row(encoder="f")), ("e", "f"), LINEAR)
    pairs = [mapper_comparison(0.1, 0.3), mapper_comparison(-0.3, -0.1, encoder="f", difference=-0.2)]
    claims = judged(list(table.tuning(both, pairs, "object", [])))
    assert [claim.verdict for claim in claims] == [SHOWN, AGAINST]
    assert "tuning e features" in claims[0].question and "tuning f features" in claims[1].question
    kept, other = judged(list(table.tuning(both, pairs, "object", [("e", "object")])))
    assert (kept.verdict, kept.value, kept.p_value) == (OPEN, formatting.NONE, None)
    assert "identity" in kept.sentence and other.verdict == AGAINST
    assert list(table.tuning(metrics_of(metrics_row()), pairs, "object", [])) == []


def test_tests_that_cannot_decide_do_not_count_in_the_adjustment() -> None:
    """Five models reach 0.0625 at best."""
    pairs = [
        mapper_comparison(0.1, 0.3, p_value=0.03),
        mapper_comparison(0.1, 0.3, p_value=0.0625, n_models=5),
    ]
    drafts = [
        draft
        for pair in pairs
        for draft in table.tuning(metrics_of(metrics_row(), mappers=LINEAR), [pair], "object", [])
    ]
    first, second = judged(drafts)
    assert (first.adjusted, first.verdict) == (0.03, SHOWN)
    assert (second.p_value, second.adjusted, second.verdict) == (0.0625, None, OPEN)


@pytest.mark.parametrize(("p_value", "agree"), [(0.0625, True), (0.125, False)])
def test_few_models_that_agree_are_still_open(p_value: float, agree: bool) -> None:
    few = dict(n_models=5, p_value=p_value)
    for claim in (
        trace(metrics_row(), CONTROL, paired=comparison(0.1, 0.3, **few)),
        tuning(mapper_comparison(0.1, 0.3, **few)),
    ):
        assert claim.verdict == OPEN and "p cannot be below 0.0625" in claim.sentence
        assert ("though all models agree" in claim.sentence) == agree


def test_unseen_categories_are_compared_with_the_control_and_with_like_categories() -> None:
    known = metrics_of(metrics_row(), metrics_row(seen="seen"), metrics_row(seen="unseen", n_models=3))
    match = comparison(-0.3, 0.1, difference=-0.1, n_against=11, n_strata=3)
    for p_value, verdict in ((0.001, SHOWN), (0.2, OPEN)):
        pairs = [comparison(0.1, 0.3, seen="unseen", p_value=p_value)]
        claim = alone(table.unseen(known, pairs, [match], "object", "e", "untuned"))
        assert claim.verdict == verdict
        assert "(3 models) for unseen" in claim.sentence and "(10 models) for seen" in claim.sentence
        assert "differ by \u221210.0 points [\u221230.0, +10.0]" in claim.sentence
    seen_only = metrics_of(metrics_row(), metrics_row(seen="seen"))
    assert table.unseen(seen_only, [], [], "object", "e", "untuned") is None
