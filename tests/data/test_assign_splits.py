"""Splits: exact numbers, unseen categories in test only, warnings and errors."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from attrib_core.common.errors import InputError
from attrib_core.data.exemplars import assign_splits
from tests.data.exemplars_fixtures import CATEGORIES, make_plan


def test_splits_are_exact_and_unseen_categories_only_in_test(parts: list[Path]) -> None:
    result = make_plan(parts)
    one_each = {row["exemplar_set"]: row for row in result.exemplars}.values()
    assert Counter(row["split"] for row in one_each if row["kind"] == "object") == {
        "train": 6,
        "validation": 2,
        "test": 4,
    }
    assert Counter(row["split"] for row in one_each if row["kind"] == "style") == {
        "train": 1,
        "validation": 1,
        "test": 1,
    }
    trained = {row["category"] for row in one_each if row["split"] == "train"}
    for row in one_each:
        assert row["seen"] == (row["category"] in trained)
        if row["category"] == "bird":
            assert row["split"] == "test" and not row["seen"]
    assert trained == set(CATEGORIES) - {"bird"} | {"art"}


@pytest.mark.parametrize("total", range(0, 40))
def test_counts_against_fractions(total: int) -> None:
    shares = {"train": 0.5, "validation": 0.2, "test": 0.3}
    exact = {"train": Fraction(1, 2), "validation": Fraction(1, 5), "test": Fraction(3, 10)}
    found = assign_splits.counts(total, shares)
    assert sum(found.values()) == total
    for split, number in found.items():
        assert abs(number - exact[split] * total) < 1
    left = sorted((exact[split] * total % 1 for split in found), reverse=True)
    raised = sorted(
        (exact[split] * total % 1 for split in found if found[split] > exact[split] * total), reverse=True
    )
    assert raised == left[: len(raised)], "the largest remainders are rounded up"


def test_counts_where_binary_fractions_mislead() -> None:
    shares = {"train": 0.1, "validation": 0.6, "test": 0.3}
    assert assign_splits.counts(10, shares) == {"train": 1, "validation": 6, "test": 3}


@pytest.mark.parametrize(
    "shares",
    [
        {"train": 0.5, "validation": 0.5},
        {"train": 0.5, "validation": 0.5, "test": 0.5},
        {"train": 1.5, "validation": -0.5, "test": 0.0},
    ],
)
def test_wrong_shares_are_named(shares: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"exemplars\.splits"):
        assign_splits.counts(10, shares)


def test_few_sets_have_unseen_categories_only_in_their_share(parts: list[Path]) -> None:
    for objects in (1, 2, 3, 4, 5, 7, 10, 16, 23):
        result = make_plan(
            parts, object_sets=objects, style_sets=0, splits={"train": 0.4, "validation": 0.3, "test": 0.3}
        )
        assert len(result.exemplars) == objects


def test_categories_without_training_are_a_warning(parts: list[Path]) -> None:
    warnings = make_plan(parts, object_sets=4, style_sets=0).warnings
    assert len(warnings) == 1 and "train has no set of" in warnings[0]
