"""Subgroups of models: matched lines, notes on few models, strata."""

from __future__ import annotations

from typing import Any

from attrib_core.attribution.metrics import metrics_table
from attrib_core.report.sections import subgroups


def match(**changes: Any) -> dict[str, Any]:
    """A row of the matched comparison."""
    base = dict(
        encoder="e", mapper="untuned", condition="customized", split="test", kind="object", prompt_kind="all",
        metric="recall_at_k", k=10, value=0.3, against_value=0.4, difference=-0.1, ci_low=-0.3, ci_high=0.1,
        p_value=0.4, n_models=12, n_against=11, n_strata=3,
    )  # fmt: skip
    return base | changes


def known(*rows: dict[str, Any]) -> metrics_table.Metrics:
    same = dict(
        encoder="e", mapper="untuned", condition="customized", split="test", kind="object", prompt_kind="all",
        metric="recall_at_k", k=10, value=0.4,
    )  # fmt: skip
    return metrics_table.Metrics(tuple(same | row for row in ({"seen": "all"}, *rows)), ("e",), ("untuned",))


def test_notes_on_matched_groups_have_the_number_of_models() -> None:
    metrics = known({"seen": "seen"}, {"seen": "unseen"})
    (note,) = subgroups.match_notes([match()], metrics)
    assert "12 models of unseen categories and 11 models of seen ones, in 3 groups" in note
    assert "nothing is decided" not in note
    (note,) = subgroups.match_notes([match(n_models=3)], metrics)
    assert "3 models" in note and "fewer than 5 models on a side nothing is decided" in note
    (note,) = subgroups.match_notes([match(n_models=1, ci_low=None, ci_high=None, p_value=None)], metrics)
    assert "no interval" in note
    (note,) = subgroups.match_notes([], known({"seen": "seen"}))
    assert "has no unseen categories" in note
    (note,) = subgroups.match_notes([match(split="train")], metrics)
    assert "no like categories" in note


def test_matched_lines_have_the_values_of_the_table() -> None:
    other = match(condition="control", value=0.9)
    (line,) = subgroups.matches([match(), other], known({"seen": "seen"}))
    assert (line["encoder"], line["mapper"]) == ("e", "untuned")
    assert line["cells"] == [("30.0", "40.0", "\u221210.0", "[\u221230.0, +10.0]", "0.400")]
    assert subgroups.one_match([other, match()], "object", "e", "untuned", 10) == match()


def test_strata_have_each_group_and_a_note_on_small_ones() -> None:
    def stratum(by: str, group: str, models: int, value: float) -> dict[str, Any]:
        same = match(group_by=by, group=group, value=value, ceiling=0.5, chance=0.01, n_queries=4 * models)
        return same | dict(n_models=models, ci_low=None if models == 1 else 0.1, ci_high=0.6)

    rows = [
        stratum("category", "bird", 1, 0.25),
        stratum("category", "fish", 12, 0.5),
        stratum("n_exemplars", "1", 40, 0.5),
        stratum("n_exemplars", "2-4", 30, 0.5),
    ]
    birds, sizes = subgroups.strata(rows, known())
    assert [(line.group, line.n_models, line.ceiling) for line in birds.lines] == [
        ("bird", 1, "50.0"), ("fish", 12, "50.0"),
    ]  # fmt: skip
    assert [line.cells["e untuned"].interval for line in birds.lines] == ["", "[10.0, 60.0]"]
    assert "1 of 2 groups have fewer than 5 models, 1 of them only one" in birds.note
    assert [line.group for line in sizes.lines] == ["1", "2\u20134"] and "at least 5 models" in sizes.note
