"""Which sets are for training, validation and test: whole sets, in exact numbers of each kind."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.data.exemplars.sampling import ExemplarSet

SPLITS = ("train", "validation", "test")


def counts(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """How many of `total` each split gets: shares rounded so that they add up (largest remainders).

    Raises InputError for shares that are not of the three splits, negative, or not 1 together.
    """
    if set(shares) != set(SPLITS):
        raise InputError(f"exemplars.splits: {sorted(shares)}; expected a share for each of {list(SPLITS)}")
    if any(share < 0 for share in shares.values()) or not math.isclose(sum(shares.values()), 1, abs_tol=1e-9):
        raise InputError(f"exemplars.splits: {dict(shares)}; expected shares of 0 or more that add up to 1")
    # Rounded to 9 digits, since 0.3 * 10 is a little above 3 in binary.
    exact = {split: round(shares[split] * total, 9) for split in SPLITS}
    whole = {split: math.floor(exact[split]) for split in SPLITS}
    rest = sorted(SPLITS, key=lambda split: (whole[split] - exact[split], SPLITS.index(split)))
    for split in rest[: total - sum(whole.values())]:
        whole[split] += 1
    return whole


def assign(
    sets: Sequence[ExemplarSet], shares: Mapping[str, float], unseen_categories: Collection[str], *, seed: int
) -> dict[str, str]:
    """Split of each set, by name; the numbers are exact for each kind of set by itself.

    Sets of unseen categories are all for test. Of the others, the first of each category come
    first and the rest follow, both in an order by keys; from the front they fill train, then
    validation, then test. So the categories of validation and test are seen ones, except those
    that shall not be, as long as train has a place for each. With more sets, a set may move to
    another split; its model stays the same and is not trained again.

    Raises InputError where unseen categories have more sets than test has places.
    """
    splits: dict[str, str] = {}
    for kind in ("object", "style"):
        of_kind = [one for one in sets if one.kind == kind]
        places = counts(len(of_kind), shares)
        unseen = [one for one in of_kind if one.category in unseen_categories]
        if len(unseen) > places["test"]:
            raise InputError(
                f"exemplars.splits.test: {shares['test']} of {len(of_kind)} {kind} sets makes"
                f" {places['test']} test sets, but {len(unseen)} sets are of exemplars.unseen_categories"
                " and belong there; raise the share or name fewer categories"
            )
        splits |= {one.name: "test" for one in unseen}
        places["test"] -= len(unseen)
        seen = [one for one in of_kind if one.category not in unseen_categories]
        # By what a set shows, not by its name: the number in a name depends on other sets.
        seen.sort(
            key=lambda one: (not one.first_of_category, hashing.digest("split", seed, kind, _shown(one)))
        )
        filled = [split for split in SPLITS for _ in range(places[split])]
        splits |= {one.name: split for one, split in zip(seen, filled, strict=True)}
    return splits


def seen(sets: Sequence[ExemplarSet], splits: Mapping[str, str]) -> dict[str, bool]:
    """Whether a set's category also occurs in the train split, by the set's name."""
    trained = {(one.kind, one.category) for one in sets if splits[one.name] == "train"}
    return {one.name: (one.kind, one.category) in trained for one in sets}


def untrained(
    sets: Sequence[ExemplarSet], splits: Mapping[str, str], unseen_categories: Collection[str]
) -> list[str]:
    """Warnings about categories that nobody named unseen and that yet have no set in train."""
    known = seen(sets, splits)
    missing = {one.category for one in sets if not known[one.name]} - set(unseen_categories)
    if not missing:
        return []
    return [f"exemplars.splits: train has no set of {', '.join(sorted(missing))}; more sets would reach them"]


def _shown(one: ExemplarSet) -> str:
    return str(one.style) if one.kind == "style" else one.members[0].shown
