"""Selection of features, the meaning of "tuned", and mappers across kinds of sets."""

from __future__ import annotations

import re

import pytest

from attrib_core.attribution.metrics import best_features
from attrib_core.attribution.metrics.metrics_table import Metrics
from attrib_core.report import formatting
from attrib_core.report.sections import feature_choice, tables
from tests.report.metrics_fixtures import metrics_of, metrics_row


def test_features_are_selected_on_the_validation_split() -> None:
    mean = dict(metric="mean_average_precision", k=None)
    rows = [
        metrics_row(**mean, encoder="a", split="validation", value=0.5),
        metrics_row(**mean, encoder="b", split="validation", value=0.3),
        metrics_row(**mean, encoder="a", split="test", value=0.1),
        metrics_row(**mean, encoder="b", split="test", value=0.9),
    ]
    known = Metrics(tuple(rows), ("b", "a"), ("untuned",))
    assert best_features.best_on_validation(known, "object") == ("a", "untuned")


def test_features_that_only_read_the_prompt_are_not_selected() -> None:
    mean = dict(metric="mean_average_precision", k=None, split="validation")
    rows = [
        metrics_row(**mean, encoder="words", value=0.6),
        metrics_row(**mean, encoder="words", value=0.6, condition="control"),
        metrics_row(**mean, encoder="pixel", value=0.2),
        metrics_row(**mean, encoder="pixel", value=0.1, condition="control"),
    ]
    known = Metrics(tuple(rows), ("words", "pixel"), ("untuned",))
    assert best_features.best_on_validation(known, "object") == ("pixel", "untuned")


def test_the_mapper_of_a_kind_is_trained_on_it_or_on_both() -> None:
    mean = dict(metric="mean_average_precision", k=None)
    names = ("untuned", "linear-both", "linear-object", "linear-style")
    rows = tuple(
        metrics_row(**mean, mapper=name, kind=kind, split=split, value=0.1 * place + 0.01 * (kind == "style"))
        for place, name in enumerate(names)
        for kind in ("object", "style")
        for split in ("validation", "test")
    )

    def run(*mappers: str) -> Metrics:
        return Metrics(rows, ("e",), mappers)

    def value(known: Metrics, kind: str) -> float | None:
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
    ("mappers", "expected"),
    [
        ((), ""),
        (("linear-object", "linear-style"), "of a kind of sets are those of the mapper .* on this kind"),
        (
            ("linear-object", "linear-both"),
            "object sets those .* object sets and for style sets .* both kinds",
        ),
        (("linear-style",), "none for object sets, on which no mapper was trained and for style sets those"),
    ],
)
def test_the_meaning_of_tuned_is_one_sentence(mappers: tuple[str, ...], expected: str) -> None:
    sentence = feature_choice.meaning(
        metrics_of(metrics_row(), metrics_row(kind="style"), mappers=("untuned", *mappers))
    )
    assert re.search(expected, sentence) and sentence.count(".") == (1 if mappers else 0)


def test_several_mappers_are_evaluated_on_each_kind() -> None:
    names = ("untuned", "linear-object", "linear-style")
    rows = [
        metrics_row(mapper=name, kind=kind, metric=metric, k=k, value=0.1 * place + 0.05 * (kind == "style"))
        for place, name in enumerate(names)
        for kind in ("object", "style")
        for metric, k in (("recall_at_k", 10), ("mean_average_precision", None))
    ]
    lines = tables.across(metrics_of(*rows, mappers=names))
    assert [line["mapper"] for line in lines] == list(names)
    assert lines[1]["cells"]["recall_at_k style"].value == formatting.share(0.15)
    assert lines[2]["cells"]["mean_average_precision object"].value == formatting.share(0.2)
    assert tables.across(metrics_of(*rows, mappers=names[:2])) == []
    assert [formatting.mapper(name) for name in (*names, "linear-both", "tuned")] == [
        "untuned", "object mapper", "style mapper", "joint mapper", "tuned",
    ]  # fmt: skip
