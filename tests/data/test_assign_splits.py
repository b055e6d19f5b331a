"""Exemplars: in which split the sets are, and what of the pool they exclude."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from attrib_core.common.errors import InputError
from attrib_core.data.exemplars import assign_splits, exclusion
from tests.data.exemplars_fixtures import (
    CATEGORIES,
    made,
    pool_row,
    pool_rows,
    write_pool,
)


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return write_pool(tmp_path, pool_rows(), 30)


def test_splits_are_exact_and_unseen_categories_only_in_test(parts: list[Path]) -> None:
    result = made(parts)
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
        result = made(
            parts, object_sets=objects, style_sets=0, splits={"train": 0.4, "validation": 0.3, "test": 0.3}
        )
        assert len(result.exemplars) == objects


def test_categories_without_training_are_a_warning(parts: list[Path]) -> None:
    warnings = made(parts, object_sets=4, style_sets=0).warnings
    assert len(warnings) == 1 and "train has no set of" in warnings[0]


def test_excluded_rows_and_their_reasons(parts: list[Path]) -> None:
    result = made(parts)
    reasons = {row["image_id"]: row["reason"] for row in result.excluded}
    assert len(reasons) == len(result.excluded), "a row of the pool is named once"
    subjects = {row["subject"] for row in result.exemplars if row["kind"] == "object"}
    styles = {row["style"] for row in result.exemplars if row["kind"] == "style"}
    chosen = {row["image_id"]: row["exemplar_id"] for row in result.exemplars}
    for row in pool_rows():
        expected = None
        if row["image_id"] in chosen:
            expected = "exemplar"
        elif row["subject"] in subjects:
            expected = "same_subject"
        elif row["style"] in styles:
            expected = "same_style"
        assert reasons.get(row["image_id"]) == expected
    for row in result.excluded:
        if row["reason"] == "exemplar":
            assert row["exemplar_id"] == chosen[row["image_id"]]
    assert result.pool_rows == len(pool_rows())
    counts = Counter(reasons.values())
    assert result.summary[1] == (
        f"{len(reasons)} of {len(pool_rows())} images of the pool are no distractors: {counts['exemplar']} exemplar,"
        f" {counts['same_subject']} same_subject, {counts['same_style']} same_style, 0 near_duplicate"
    )
    assert min(counts["exemplar"], counts["same_subject"], counts["same_style"]) > 0


def test_near_duplicates_are_excluded_by_distance(tmp_path: Path) -> None:
    rows = pool_rows()
    chosen = made(write_pool(tmp_path, rows)).exemplars[0]
    own = next(row["perceptual_hash"] for row in rows if row["image_id"] == chosen["image_id"])
    near, far = pool_row("near", None, None, None), pool_row("far", None, None, None)
    near["perceptual_hash"], far["perceptual_hash"] = own ^ 0b101, own ^ 0b111
    parts = write_pool(tmp_path, [*rows, near, far])

    def found(distance: int) -> set[str]:
        result = made(parts, near_duplicate_distance=distance)
        duplicates = [row for row in result.excluded if row["reason"] == "near_duplicate"]
        assert all(row["exemplar_id"] == chosen["exemplar_id"] for row in duplicates)
        return {row["image_id"] for row in duplicates}

    assert found(2) == {"near"}
    assert found(3) == {"near", "far"}
    assert found(1) == set()


def test_nearest_against_loops() -> None:
    rng = np.random.default_rng(0)
    references = rng.integers(-(2**63), 2**63, 9)
    hashes = np.concatenate([references ^ (1 << rng.integers(0, 62, 9)), rng.integers(-(2**63), 2**63, 50)])
    references = np.append(references, references[3])
    position, distance = exclusion.nearest(hashes, references)
    for number, value in enumerate(hashes):
        bits = [bin((int(value) ^ int(other)) & (2**64 - 1)).count("1") for other in references]
        assert distance[number] == min(bits)
        assert position[number] == bits.index(min(bits))
    assert (position[:9] == np.arange(9)).all() and (distance[:9] == 1).all()
    with pytest.raises(ValueError, match="no references"):
        exclusion.nearest(hashes, np.array([], dtype=np.int64))
