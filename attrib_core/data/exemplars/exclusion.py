"""Find the rows of the pool that are no distractors: exemplars and images that match one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attrib_core.data.exemplars.sampling import ExemplarSet

REASONS = ("exemplar", "same_subject", "same_style", "near_duplicate")
BLOCK = 1024


def exemplar_ids(one: ExemplarSet) -> list[str]:
    """Return the ids of a set's exemplars: the set's name and the position."""
    return [f"{one.name}.{position}" for position in range(len(one.members))]


def nearest(hashes: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest reference of each hash by Hamming distance.

    `hashes` (rows,) and `references` (exemplars,) int64, 64 bits each. Returns positions in
    `references` (rows,) int64, the first of equally near ones, and distances in bits (rows,)
    int64. Blocks of rows bound the memory.
    """
    if not len(references):
        raise ValueError("no references: expected at least one hash")
    position = np.zeros(len(hashes), dtype=np.int64)
    distance = np.zeros(len(hashes), dtype=np.int64)
    right = references.astype(np.int64).view(np.uint64)[None, :]
    for start in range(0, len(hashes), BLOCK):
        left = hashes[start : start + BLOCK].astype(np.int64).view(np.uint64)[:, None]
        bits = np.bitwise_count(left ^ right)
        position[start : start + BLOCK] = bits.argmin(axis=1)
        distance[start : start + BLOCK] = bits.min(axis=1)
    return position, distance


def excluded(
    rows: Sequence[Mapping[str, Any]], sets: Sequence[ExemplarSet], *, near_duplicate_distance: int
) -> list[dict[str, str]]:
    """Return the rows of the table `excluded` for some rows of the pool, one for each excluded row.

    A row is excluded if it is an exemplar; another image of the subject of an object set (in
    another medium); another image in the style of a style set; or a near duplicate, whose
    perceptual hash is at most `near_duplicate_distance` bits from an exemplar's (a negative
    distance disables this). The first reason that applies is given, with its exemplar: the nearest
    one for a near duplicate, else the set's first. Rows need image_id, subject, style and
    perceptual_hash.
    """
    ids = [name for one in sets for name in exemplar_ids(one)]
    members = [member for one in sets for member in one.members]
    by_image = {member.image_id: name for member, name in zip(members, ids, strict=True)}
    by_subject = {one.members[0].subject: exemplar_ids(one)[0] for one in sets if one.kind == "object"}
    by_subject.pop(None, None)
    by_style = {one.style: exemplar_ids(one)[0] for one in sets if one.kind == "style"}
    position, distance = nearest(
        np.array([row["perceptual_hash"] for row in rows], dtype=np.int64),
        np.array([member.perceptual_hash for member in members], dtype=np.int64),
    )
    excluded_rows = []
    for row, near, bits in zip(rows, position, distance, strict=True):
        found = (
            by_image.get(row["image_id"]),
            by_subject.get(row["subject"]),
            by_style.get(row["style"]),
            ids[near] if bits <= near_duplicate_distance else None,
        )
        for reason, exemplar in zip(REASONS, found, strict=True):
            if exemplar is not None:
                excluded_rows.append({"image_id": row["image_id"], "reason": reason, "exemplar_id": exemplar})
                break
    return excluded_rows
