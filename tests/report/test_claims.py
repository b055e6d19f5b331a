"""What the report's paragraphs say, from tables made by hand: never more than the intervals allow."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from attrib_core.attribution.metrics import best_features, metrics_table
from attrib_core.report import formatting
from attrib_core.report.claims import control_at_chance, displayed_influence, findings, none_of_these
from attrib_core.report.plots import figures, panels
from attrib_core.report.sections import feature_choice
from attrib_core.report.sections import tables as report_tables
from attrib_core.storage import tables


def row(**changes: Any) -> dict[str, Any]:
    """A row of metrics."""
    base = dict(
        encoder="e", mapper="untuned", condition="customized", split="test", kind="object", seen="all",
        prompt_kind="all", metric="recall_at_k", k=10, value=0.4, ci_low=0.3, ci_high=0.5, ceiling=1.0, chance=0.01,
        n_queries=100, n_models=10,
    )  # fmt: skip
    return base | changes


def pair(low: float | None, high: float | None, **changes: Any) -> dict[str, Any]:
    """A row of comparisons: customized against control."""
    base = dict(
        encoder="e", comparison="condition", mapper="untuned", condition="customized", against_mapper="untuned",
        against_condition="control", split="test", kind="object", seen="all", prompt_kind="all", metric="recall_at_k",
        k=10, value=0.4, against_value=0.2, difference=0.2, ci_low=low, ci_high=high, p_value=0.01, n_models=10,
    )  # fmt: skip
    return base | changes


def metrics(*rows: dict[str, Any], mappers: tuple[str, ...] = ("untuned",)) -> metrics_table.Metrics:
    return metrics_table.Metrics(rows, ("e",), mappers)


@pytest.mark.parametrize(
    ("low", "high", "verdict", "said"),
    [
        (0.1, 0.3, findings.SHOWN, "customization put something into these images"),
        (-0.1, 0.3, findings.OPEN, "does not show"),
        (-0.3, -0.1, findings.AGAINST, "points to the exemplars more"),
        (None, None, findings.OPEN, "no interval"),
    ],
)
def test_a_trace_is_claimed_only_where_the_interval_says_so(
    low: float | None, high: float | None, verdict: str, said: str
) -> None:
    found = findings.trace(
        metrics(row(), row(condition="control", value=0.2)), [pair(low, high)], "object", "e"
    )
    assert found is not None and found.verdict == verdict and said in found.text
    assert "40 [30, 50] times chance" in found.text


@pytest.mark.parametrize(
    ("values", "verdict", "said"),
    [
        ((0.02, 0.005, 0.029), findings.SHOWN, "2.0 [0.5, 2.9] times chance. So prompts alone do not"),
        ((0.02, 0.005, 0.031), findings.OPEN, "does not exclude more than 3 times"),
        ((0.05, 0.031, 0.07), findings.AGAINST, "prompts alone lead to the exemplars"),
        ((0.003, 0.0, 0.006), findings.OPEN, "less often than chance"),
        ((0.02, None, None), findings.OPEN, "no interval"),
    ],
)
def test_the_control_lies_at_chance_only_where_the_interval_says_so(
    values: tuple[float | None, ...], verdict: str, said: str
) -> None:
    named = dict(zip(("value", "ci_low", "ci_high"), values, strict=True))
    rows = [row(condition="control", k=100, **named), row(condition="control", k=10, value=0.9)]
    found = control_at_chance.claim(metrics(*rows), "object", "e", "untuned")
    assert found is not None and (found.verdict, said in found.text) == (verdict, True)
    assert control_at_chance.claim(metrics(row()), "object", "e", "untuned") is None


def test_a_trace_below_chance_is_not_shown() -> None:
    low = row(value=0.012, ci_low=0.004, ci_high=0.02)
    found = findings.trace(
        metrics(low, row(condition="control", value=0.0)), [pair(0.001, 0.02)], "object", "e"
    )
    assert (
        found is not None and found.verdict == findings.OPEN and "not shown to be above chance" in found.text
    )


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (dict(value=0.2, ci_low=0.1, ci_high=0.3), "a part of the recall needs no customization"),
        (dict(value=0.012, ci_low=0.0, ci_high=0.02), "compatible with it"),
        (dict(value=0.001, ci_low=0.0, ci_high=0.002), "below it"),
        (dict(value=0.0, ci_low=0.0, ci_high=0.0), "none of them is found"),
    ],
)
def test_the_control_is_held_against_chance(control: dict[str, float], said: str) -> None:
    found = findings.trace(
        metrics(row(), row(condition="control", **control)), [pair(0.1, 0.3)], "object", "e"
    )
    assert found is not None and said in found.text


@pytest.mark.parametrize(
    ("low", "high", "verdict", "said"),
    [
        (0.1, 0.3, findings.SHOWN, "tuning raises the mAP"),
        (-0.1, 0.3, findings.OPEN, "no gain is shown"),
        (-0.3, -0.1, findings.AGAINST, "tuning lowers the mAP"),
    ],
)
def test_tuning_is_praised_only_where_it_helped(low: float, high: float, verdict: str, said: str) -> None:
    paired = pair(
        low, high, comparison="mapper", mapper="linear-both", against_condition="customized",
        metric="mean_average_precision", k=None,
    )  # fmt: skip
    found = findings.tuning(metrics(row(), mappers=("untuned", "linear-both")), [paired], "object", [])
    assert found is not None and found.verdict == verdict and said in found.text
    assert findings.tuning(metrics(row()), [paired], "object", []) is None


def test_tuning_judged_on_one_model_is_said_and_open() -> None:
    paired = pair(
        None, None, comparison="mapper", mapper="linear-both", against_condition="customized",
        metric="mean_average_precision", k=None, n_models=1,
    )  # fmt: skip
    found = findings.tuning(metrics(row(), mappers=("untuned", "linear-both")), [paired], "object", [])
    assert found is not None and found.verdict == findings.OPEN
    assert "from 20.0\u202f% to 40.0\u202f%; with fewer than two models there is no interval" in found.text


def test_what_too_few_models_agree_on_is_open_and_said() -> None:
    same = dict(n_models=5, p_value=0.0625)
    known = metrics(row(), row(condition="control", value=0.2))
    found = findings.trace(known, [pair(0.1, 0.3, **same)], "object", "e")
    assert found is not None and found.verdict == findings.OPEN
    assert "in all 5 models alike, but so few cannot show that customization left a trace" in found.text
    tuned = dict(comparison="mapper", mapper="linear-both", metric="mean_average_precision", k=None)
    for p_value, said in ((0.0625, "in all 5 models alike, but so few"), (0.125, "no gain is shown")):
        paired = pair(0.1, 0.3, **tuned, against_condition="customized", **same | dict(p_value=p_value))
        found = findings.tuning(metrics(row(), mappers=("untuned", "linear-both")), [paired], "object", [])
        assert found is not None and found.verdict == findings.OPEN and said in found.text


def test_unseen_categories_are_held_against_the_control() -> None:
    known = metrics(row(), row(seen="seen"), row(seen="unseen", n_models=3))
    for low, verdict in ((0.1, findings.SHOWN), (-0.1, findings.OPEN)):
        found = findings.unseen(known, [pair(low, 0.3, seen="unseen")], [], "object", "e", "untuned")
        assert found is not None and found.verdict == verdict
    assert findings.unseen(metrics(row(), row(seen="seen")), [], [], "object", "e", "untuned") is None


def test_encoders_that_disagree_are_mixed_and_a_kept_identity_is_said() -> None:
    both = metrics_table.Metrics((row(), row(encoder="f")), ("e", "f"), ("untuned", "linear-object"))
    change = dict(comparison="mapper", mapper="linear-object", against_condition="customized", k=None)
    change |= dict(metric="mean_average_precision")
    pairs = [pair(0.1, 0.3, **change), pair(-0.3, -0.1, encoder="f", **change)]
    found = findings.tuning(both, pairs, "object", [])
    assert found is not None and found.verdict == findings.MIXED
    found = findings.tuning(both, pairs, "object", [("e", "object"), ("f", "object")])
    assert found is not None and found.verdict == findings.OPEN and "tuning" not in found.text
    assert found.text.count("no mapper did better") == 2


def bins(*values: tuple[float, float, float, int]) -> list[dict[str, Any]]:
    """Rows of reliability: (lower edge, mean influence, true share, candidates)."""
    names = ("bin_low", "mean_influence", "exemplar_share", "n_candidates")
    same = dict(encoder="e", mapper="untuned", split="test", judged="displayed")
    return [same | dict(zip(names, value, strict=True)) for value in values]


def excess(
    low: float | None, high: float | None, level: float = 0.1, models: int = 10
) -> list[dict[str, Any]]:
    """The row of calibration that says how far the displayed influence is off."""
    same = dict(encoder="e", mapper="untuned", split="test", kind="all", value=0.0, n_models=models)
    return [same | dict(metric=f"displayed_excess_at_{level:g}", ci_low=low, ci_high=high)]


@pytest.mark.parametrize(
    ("low", "high", "models", "verdict", "said"),
    [
        (-0.01, 0.07, 10, findings.SHOWN, "All of it is within 25.0\u202f% of the mean statement"),
        (0.01, 0.2, 10, findings.OPEN, "Whether the truth is within 25.0\u202f%"),
        (0.08, 0.2, 10, findings.AGAINST, "so it cannot"),
        (-0.3, -0.08, 10, findings.AGAINST, "\u221230.00 to \u22128.00 points, over the 10 models"),
        (0.08, 0.2, 4, findings.OPEN, "So few are too few"),
        (None, None, 1, findings.OPEN, "no interval"),
    ],
)
def test_the_displayed_influence_is_taken_at_its_word_only_where_the_interval_says_so(
    low: float | None, high: float | None, models: int, verdict: str, said: str
) -> None:
    rows = bins((0.1, 0.3, 0.25, 50))  # a quarter of the statement is 7.5 points
    given = [*excess(-0.9, 0.9, 0.01), *excess(low, high, models=models)]
    found = displayed_influence.claim(rows, given, "e", "untuned", distractors=9)
    assert found is not None and found.verdict == verdict and said in found.text


def test_confidence_is_weighed_by_candidates_and_open_without_an_interval() -> None:
    rows = bins((0.0, 0.01, 0.9, 999), (0.1, 0.15, 0.05, 30), (0.9, 0.95, 0.85, 10))
    found = displayed_influence.claim(rows, [], "e", "untuned", distractors=100)
    assert found is not None and found.verdict == findings.OPEN
    assert "(40 candidates)" in found.text and "too high by 10.00 points" in found.text
    assert "35.00\u202f%" in found.text and "25.00\u202f%" in found.text


def test_confidence_goes_down_to_where_there_are_candidates() -> None:
    rows = bins((1e-4, 5e-4, 1e-3, 500), (1e-3, 4e-3, 6e-3, 100), (0.01, 0.02, 0.0, 5), (0.1, None, None, 0))
    found = displayed_influence.claim(rows, [], "e", "untuned", distractors=100)
    assert found is not None and "given 0.1\u202f% or more (105 candidates)" in found.text
    found = displayed_influence.claim(rows[:1], [], "e", "untuned", distractors=100)
    assert found is not None and "Fewer than 20 candidates" in found.text


def test_the_claim_is_of_what_is_displayed() -> None:
    shares = [dict(one, judged="shares") for one in bins((0.1, 0.9, 0.1, 500))]
    assert displayed_influence.claim(shares, [], "e", "untuned", distractors=9) is None
    found = displayed_influence.claim(
        [*shares, *bins((0.1, 0.3, 0.2, 50))], [], "e", "untuned", distractors=9
    )
    assert found is not None and "(50 candidates)" in found.text and "too high by 10.00 points" in found.text
    nothing = bins((0.0, None, None, 0), (0.1, None, None, 0))  # of a test split without sets
    assert displayed_influence.claim(nothing, [], "e", "untuned", distractors=9) is None


def none_rows(auc: float, low: float | None, high: float | None, **more: Any) -> list[dict[str, Any]]:
    """Rows of calibration that the claim on "none of these" reads."""
    same = (
        dict(encoder="e", mapper="untuned", split="test", kind="all", ci_low=low, ci_high=high, n_models=10)
        | more
    )
    values = {"none_auc": auc, "none_said_held_out": 0.41, "none_said": 0.4}
    return [same | dict(metric=metric, value=value) for metric, value in values.items()]


@pytest.mark.parametrize(
    ("auc", "low", "high", "verdict", "said"),
    [
        (0.85, 0.75, 0.92, findings.SHOWN, "70.0\u202f% or more, so it tells them apart"),
        (0.52, 0.49, 0.55, findings.AGAINST, "not shown to be better than a guess, and below 70.0\u202f%"),
        (
            0.60,
            0.55,
            0.65,
            findings.AGAINST,
            "better than a guess and below 70.0\u202f%: with these features it hardly",
        ),
        (0.72, 0.55, 0.85, findings.OPEN, "better than a guess; whether they reach 70.0\u202f%"),
        (0.60, 0.45, 0.80, findings.OPEN, "not shown to be better than a guess; whether"),
        (0.90, None, None, findings.OPEN, "no interval"),
    ],
)
def test_none_of_these_is_praised_only_where_it_tells_images_apart(
    auc: float, low: float | None, high: float | None, verdict: str, said: str
) -> None:
    found = none_of_these.claim(none_rows(auc, low, high), "e", "untuned")
    assert found is not None and found.verdict == verdict
    assert said in found.text and formatting.percent(auc) in found.text and "41.0\u202f%" in found.text


def test_an_interval_of_few_models_decides_nothing() -> None:
    found = none_of_these.claim(none_rows(0.5, 0.5, 0.5, n_models=4), "e", "untuned")
    assert found is not None and found.verdict == findings.OPEN and "4 models are too few" in found.text


def test_tuned_none_of_these_stands_beside_the_untuned() -> None:
    rows = none_rows(0.8, 0.75, 0.9, mapper="linear-style") + none_rows(
        0.8, 0.75, 0.9, kind="style", mapper="linear-style"
    )
    rows += none_rows(0.53, 0.5, 0.6, kind="style")
    found = none_of_these.claim(rows, "e", "linear-style", ["style"])
    assert (
        found is not None and found.verdict == findings.SHOWN and found.question.endswith("for style sets?")
    )
    assert (
        "With the untuned e features the pairs are 53.0\u202f% [50.0, 60.0], where it hardly works."
        in found.text
    )
    assert none_of_these.claim([], "e", "untuned") is None


def test_likelihood_is_held_against_equal_shares() -> None:
    same = dict(encoder="e", mapper="untuned", split="test", kind="all")
    values = dict(negative_log_likelihood=math.log(50), exemplar_mass=0.1, tail_mass=0.2)
    quality = [same | dict(metric=name, value=value) for name, value in values.items()]
    found = displayed_influence.claim(bins((0.1, 0.2, 0.2, 50)), quality, "e", "untuned", distractors=99)
    assert found is not None and "gets 2.0 times what equal shares" in found.text


def test_features_are_chosen_on_the_validation_split_alone() -> None:
    mean = dict(metric="mean_average_precision", k=None)
    rows = [
        row(**mean, encoder="a", split="validation", value=0.5),
        row(**mean, encoder="b", split="validation", value=0.3),
        row(**mean, encoder="a", split="test", value=0.1),
        row(**mean, encoder="b", split="test", value=0.9),
    ]
    assert best_features.best_on_validation(
        metrics_table.Metrics(tuple(rows), ("b", "a"), ("untuned",)), "object"
    ) == (
        "a",
        "untuned",
    )


def test_features_that_read_the_prompt_alone_do_not_lead() -> None:
    mean = dict(metric="mean_average_precision", k=None, split="validation")
    rows = [
        row(**mean, encoder="words", value=0.6),
        row(**mean, encoder="words", value=0.6, condition="control"),
        row(**mean, encoder="pixel", value=0.2),
        row(**mean, encoder="pixel", value=0.1, condition="control"),
    ]
    assert (
        best_features.best_on_validation(
            metrics_table.Metrics(tuple(rows), ("words", "pixel"), ("untuned",)), "object"
        )[0]
        == "pixel"
    )


def test_the_mapper_of_a_kind_is_its_own_then_the_one_for_both() -> None:
    mean = dict(metric="mean_average_precision", k=None)
    names = ("untuned", "linear-both", "linear-object", "linear-style")
    rows = tuple(
        row(**mean, mapper=name, kind=kind, split=split, value=0.1 * place + 0.01 * (kind == "style"))
        for place, name in enumerate(names)
        for kind in ("object", "style")
        for split in ("validation", "test")
    )

    def run(*mappers: str) -> metrics_table.Metrics:
        return metrics_table.Metrics(rows, ("e",), mappers)

    def value(known: metrics_table.Metrics, kind: str) -> float | None:
        found = known.get("mean_average_precision", None, encoder="e", mapper="tuned", kind=kind)
        return found and found["value"]

    for mappers, heads in (
        (names, ("linear-object", "linear-style")),
        (names[:3], ("linear-object", "linear-both")),
        (names[::2], ("linear-object", None)),
        (names[:2], ("linear-both", "linear-both")),
        (names[:1], (None, None)),
    ):
        known = run(*mappers)
        assert (known.mapper_for("object"), known.mapper_for("style")) == heads
        assert known.tuned == (("tuned",) if len(mappers) > 1 else ())
        for kind, head in zip(("object", "style"), heads, strict=True):
            expected = head and 0.1 * names.index(head) + 0.01 * (kind == "style")
            assert value(known, kind) == expected
            assert best_features.best_on_validation(known, kind) == ("e", "tuned" if head else "untuned")
    assert feature_choice.calibrators(run(*names)) == [
        ("e", "linear-object", ["object"]),
        ("e", "linear-style", ["style"]),
    ]
    assert feature_choice.calibrators(run(*names[:2])) == [("e", "linear-both", ["object", "style"])]
    assert feature_choice.calibrators(run(*names[::2])) == [
        ("e", "linear-object", ["object"]),
        ("e", "untuned", ["object", "style"]),
    ]
    assert feature_choice.kept(run(*names[:3]), {("e", "linear-both")}) == [("e", "style")]


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        ((), ""),
        (("linear-object", "linear-style"), "of a kind of sets are those of the mapper .* of that kind"),
        (
            ("linear-object", "linear-both"),
            "object sets those .* object sets and for style sets .* both kinds",
        ),
        (("linear-style",), "none for object sets, which no mapper was trained on and for style sets those"),
    ],
)
def test_what_tuned_means_is_one_sentence(heads: tuple[str, ...], said: str) -> None:
    sentence = feature_choice.meaning(metrics(row(), row(kind="style"), mappers=("untuned", *heads)))
    assert re.search(said, sentence) and sentence.count(".") == (1 if heads else 0)


def test_each_mapper_is_shown_on_each_kind_where_there_are_several() -> None:
    names = ("untuned", "linear-object", "linear-style")
    rows = [
        row(mapper=name, kind=kind, metric=metric, k=k, value=0.1 * place + 0.05 * (kind == "style"))
        for place, name in enumerate(names)
        for kind in ("object", "style")
        for metric, k in (("recall_at_k", 10), ("mean_average_precision", None))
    ]
    lines = report_tables.across(metrics(*rows, mappers=names))
    assert [line["mapper"] for line in lines] == list(names)
    assert lines[1]["cells"]["recall_at_k style"].value == formatting.share(0.15)
    assert lines[2]["cells"]["mean_average_precision object"].value == formatting.share(0.2)
    assert report_tables.across(metrics(*rows, mappers=names[:2])) == []
    assert [formatting.mapper(name) for name in (*names, "linear-both", "tuned")] == [
        "untuned", "object mapper", "style mapper", "joint mapper", "tuned",
    ]  # fmt: skip


def test_calibrators_of_two_mappers_are_pooled_by_their_candidates() -> None:
    one, other = (
        bins((0.0, 0.02, 0.0, 30), (0.1, 0.2, 0.3, 10)),
        bins((0.0, 0.06, 0.04, 10), (0.1, None, None, 0)),
    )
    first, second = panels.pooled([*one, *other])
    assert first["mean_influence"] == pytest.approx((30 * 0.02 + 10 * 0.06) / 40)
    assert first["exemplar_share"] == pytest.approx(0.01) and first["n_candidates"] == 40
    assert (second["mean_influence"], second["exemplar_share"], second["n_candidates"]) == (0.2, 0.3, 10)
    assert panels.pooled(one) == one


def test_a_calibrator_for_one_kind_is_said_to_be_so() -> None:
    rows = [dict(one, mapper="linear-style") for one in bins((0.1, 0.2, 0.2, 50))]
    found = displayed_influence.claim(rows, [], "e", "linear-style", distractors=9, kinds=["style"])
    assert found is not None and found.question.endswith("at its word for style sets?")


@pytest.mark.parametrize(("models", "said"), [(5, True), (9, True), (10, False), (30, False)])
def test_few_models_are_said_to_make_too_much_of_an_interval(models: int, said: bool) -> None:
    known = metrics(
        row(), row(condition="control", value=0.2), row(seen="seen"), row(seen="unseen"),
        mappers=("untuned", "linear-object"),
    )  # fmt: skip
    pairs = [
        pair(0.1, 0.3, n_models=models),
        pair(0.1, 0.3, n_models=models, seen="unseen"),
        pair(
            0.1,
            0.3,
            n_models=models,
            comparison="mapper",
            mapper="linear-object",
            metric=findings.MAP,
            k=None,
        ),
    ]
    for found in (
        findings.trace(known, pairs, "object", "e"),
        findings.tuning(known, pairs, "object", ()),
        findings.unseen(known, pairs, [], "object", "e", "untuned"),
    ):
        assert found is not None and found.verdict == findings.SHOWN
        assert (f"An interval bootstrapped over {models} models claims more" in found.text) == said


def test_a_single_model_has_no_interval(tmp_path: Path) -> None:
    tables.write(
        tmp_path / "m.parquet", "metrics", [row(ci_low=float("nan"), ci_high=float("nan"), n_models=1)]
    )
    known = metrics_table.read_metrics(tmp_path / "m.parquet", ["e"], ["untuned"])
    assert known.rows[0]["ci_low"] is None
    drawing = figures.recall_dots(known, "object")
    assert "Recall@10" in drawing and "nan" not in drawing
