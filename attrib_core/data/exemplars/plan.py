"""Stage `exemplars`: plan the experiment from the pool's parts: exemplars, splits, exclusions."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from attrib_core.common.errors import InputError
from attrib_core.data.exemplars import assign_splits, exclusion, sampling
from attrib_core.data.exemplars.sampling import ExemplarSet
from attrib_core.storage import tables

LOGGER = logging.getLogger(__name__)
ROWS_PER_BATCH = 4096
IMAGES_PER_BATCH = 512
COLUMNS = ("image_id", "caption", "subject", "category", "style", "perceptual_hash")


@dataclass(frozen=True)
class Plan:
    """The result of the stage; `exemplars` and `excluded` are rows of the tables of these names."""

    exemplars: list[dict[str, Any]]
    excluded: list[dict[str, str]]
    captions: dict[str, str]
    """Caption of each exemplar, by image_id."""
    pool_rows: int
    warnings: list[str]

    @property
    def summary(self) -> list[str]:
        """Numbers of sets by kind and split, and of excluded rows by reason, as lines of text."""
        one_each = {row["exemplar_set"]: row for row in self.exemplars}.values()
        sets = Counter((row["kind"], row["split"]) for row in one_each)
        parts = [f"{sets[kind, split]} {kind} {split}" for kind, split in sorted(sets)]
        reasons = Counter(row["reason"] for row in self.excluded)
        by_reason = ", ".join(f"{reasons[reason]} {reason}" for reason in exclusion.REASONS)
        return [
            f"{len(one_each)} exemplar sets of {len(self.exemplars)} images: {', '.join(parts)}",
            f"{len(self.excluded)} of {self.pool_rows} images of the pool are no distractors: {by_reason}",
        ]


def plan(
    parts: Sequence[Path],
    *,
    object_sets: int,
    style_sets: int,
    style_set_size: Sequence[int],
    splits: Mapping[str, float],
    unseen_categories: Sequence[str],
    near_duplicate_distance: int,
    held_out_only: bool,
    held_out: Mapping[str, Any] | None,
    source: str,
    seed: int,
) -> Plan:
    """Draw exemplar sets from the pool's parts, assign splits, and find the rows they exclude.

    The options are the config section `exemplars`. `held_out` lists the `subjects` and `styles` of
    its `source` that the base model was not trained on; None if the base model does not say. If
    the pool comes from another `source`, the base model has seen none of it, and every image may
    be an exemplar. The parts are streamed; only the candidates' rows without images and the
    exemplars' images are in memory.

    Raises InputError with the config key and both numbers where the pool has too few candidates
    or no distractor remains, and for an image_id that occurs twice in the pool.
    """
    held = None if held_out is None else {kind: frozenset(held_out[kind]) for kind in ("subjects", "styles")}
    other_source = held_out is not None and held_out.get("source") not in (None, source)
    if other_source:
        LOGGER.info("the base model was trained on other images than those of source %r", source)
    held_out_only &= not other_source
    plain, styled = sampling.candidates(
        _check_unique(_rows_without_images(parts)), held, held_out_only=held_out_only
    )
    sets = sampling.object_sets(plain, count=object_sets, unseen_categories=unseen_categories, seed=seed)
    sets += sampling.style_sets(styled, count=style_sets, sizes=style_set_size, seed=seed)
    if not sets:
        raise InputError("exemplars.object_sets, exemplars.style_sets: both are 0; at least 1 set is needed")
    split_of = assign_splits.assign(sets, splits, unseen_categories, seed=seed)

    pool_rows, excluded = 0, []
    for batch in _batches(_rows_without_images(parts)):
        pool_rows += len(batch)
        excluded += exclusion.excluded(batch, sets, near_duplicate_distance=near_duplicate_distance)
    if len(excluded) == pool_rows:
        raise InputError(
            f"pool.images: the pool has {pool_rows} images, and the exemplars leave none of them as a"
            " distractor; ask for more images or for fewer sets"
        )
    chosen = {member.image_id for one in sets for member in one.members}
    result = Plan(
        exemplars=_exemplar_rows(sets, split_of, _images(parts, chosen)),
        excluded=excluded,
        captions={member.image_id: member.caption for one in sets for member in one.members},
        pool_rows=pool_rows,
        warnings=[
            *([] if other_source else sampling.warnings(sets, held, held_out_only=held_out_only)),
            *assign_splits.warnings(sets, split_of, unseen_categories),
        ],
    )
    for line in result.summary:
        LOGGER.info("%s", line)
    for line in result.warnings:
        LOGGER.warning("warning: %s", line)
    return result


def _exemplar_rows(
    sets: Sequence[ExemplarSet], split_of: Mapping[str, str], images: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the rows of the table `exemplars`, set after set."""
    seen = assign_splits.seen(sets, split_of)
    return [
        {
            "exemplar_id": exemplar_id,
            "exemplar_set": one.name,
            "image_id": member.image_id,
            "image": images[member.image_id],
            "caption": member.caption,
            "kind": one.kind,
            "category": one.category,
            "subject": member.subject,
            "style": one.style,
            "split": split_of[one.name],
            "seen": seen[one.name],
        }
        for one in sets
        for exemplar_id, member in zip(exclusion.exemplar_ids(one), one.members, strict=True)
    ]


def _rows_without_images(parts: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for batch in tables.iterate(parts, COLUMNS, ROWS_PER_BATCH):
        yield from batch.to_pylist()


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    remaining = iter(rows)
    while batch := list(itertools.islice(remaining, ROWS_PER_BATCH)):
        yield batch


def _check_unique(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows unchanged; InputError for a repeated image_id."""
    seen: set[str] = set()
    for row in rows:
        if row["image_id"] in seen:
            raise InputError(f"pool: image_id {row['image_id']!r} occurs twice; ids must be unique")
        seen.add(row["image_id"])
        yield row


def _images(parts: Sequence[Path], chosen: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the encoded images of the chosen rows, by image_id."""
    wanted = pa.array(sorted(chosen), pa.string())
    found: dict[str, dict[str, Any]] = {}
    for batch in tables.iterate(parts, ("image_id", "image"), IMAGES_PER_BATCH):
        rows = batch.filter(pc.is_in(batch.column("image_id"), value_set=wanted)).to_pylist()
        found |= {row["image_id"]: row["image"] for row in rows}
    return found
