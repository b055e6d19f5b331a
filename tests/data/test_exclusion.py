"""Exclusion: which rows of the pool are no distractors, and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from attrib_core.data.exemplars import exclusion
from tests.data.exemplars_fixtures import make_plan, pool_row, pool_rows, write_pool


def test_excluded_rows_and_their_reasons(parts: list[Path]) -> None:
    result = make_plan(parts)
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
    chosen = make_plan(write_pool(tmp_path, rows)).exemplars[0]
    own = next(row["perceptual_hash"] for row in rows if row["image_id"] == chosen["image_id"])
    near, far = pool_row("near", None, None, None), pool_row("far", None, None, None)
    near["perceptual_hash"], far["perceptual_hash"] = own ^ 0b101, own ^ 0b111
    parts = write_pool(tmp_path, [*rows, near, far])

    def found(distance: int) -> set[str]:
        result = make_plan(parts, near_duplicate_distance=distance)
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
