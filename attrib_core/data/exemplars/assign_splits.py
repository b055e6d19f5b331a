"""Assign exemplar sets to the train, validation and test split, in exact numbers for each kind."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from attrib_core.common import hashing
from attrib_core.common.constants import KINDS, SPLITS
from attrib_core.common.errors import InputError
from attrib_core.data.exemplars.sampling import ExemplarSet


def counts(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Return the number of sets in each split, rounded by largest remainders to sum to `total`.

    Raises InputError for shares of other splits, negative ones, or ones that do not sum to 1.
    """
    if set(shares) != set(SPLITS):
        raise InputError(f"exemplars.splits: {sorted(shares)}; expected a share for each of {list(SPLITS)}")
    if any(share < 0 for share in shares.values()) or not math.isclose(sum(shares.values()), 1, abs_tol=1e-9):
        raise InputError(f"exemplars.splits: {dict(shares)}; expected shares of 0 or more that sum to 1")
    # Rounded to 9 digits, since 0.3 * 10 is a little above 3 in binary.
    exact = {split: round(shares[split] * total, 9) for split in SPLITS}
    numbers = {split: math.floor(exact[split]) for split in SPLITS}
    by_remainder = sorted(SPLITS, key=lambda split: (numbers[split] - exact[split], SPLITS.index(split)))
    for split in by_remainder[: total - sum(numbers.values())]:
        numbers[split] += 1
    return numbers


def assign(
    sets: Sequence[ExemplarSet], shares: Mapping[str, float], unseen_categories: Collection[str], *, seed: int
) -> dict[str, str]:
    """Return the split of each set, by name; the numbers are exact for each kind of set.

    All sets of unseen categories go to test. The others are ordered by hash, the first set of each
    category before all further ones, and fill train, then validation, then test. So, as long as
    train has room for every category, validation and test have no unseen category but the
    configured ones. With more sets, a set may move to another split; its model does not change
    and is not trained again.

    Raises InputError where unseen categories have more sets than the test split takes.
    """
    splits: dict[str, str] = {}
    for kind in KINDS:
        of_kind = [one for one in sets if one.kind == kind]
        numbers = counts(len(of_kind), shares)
        unseen = [one for one in of_kind if one.category in unseen_categories]
        if len(unseen) > numbers["test"]:
            raise InputError(
                f"exemplars.splits.test: {shares['test']} of {len(of_kind)} {kind} sets makes"
                f" {numbers['test']} test sets, but {len(unseen)} sets are of exemplars.unseen_categories"
                " and belong there; raise the share or name fewer categories"
            )
        splits |= {one.name: "test" for one in unseen}
        numbers["test"] -= len(unseen)
        seen = [one for one in of_kind if one.category not in unseen_categories]
        # By style or subject, not by name: the number in a name depends on other sets.
        seen.sort(
            key=lambda one: (not one.first_of_category, hashing.digest("split", seed, kind, _shown(one)))
        )
        in_order = [split for split in SPLITS for _ in range(numbers[split])]
        splits |= {one.name: split for one, split in zip(seen, in_order, strict=True)}
    return splits


def seen(sets: Sequence[ExemplarSet], splits: Mapping[str, str]) -> dict[str, bool]:
    """Return, for each set by name, whether its category also occurs in the train split."""
    trained = {(one.kind, one.category) for one in sets if splits[one.name] == "train"}
    return {one.name: (one.kind, one.category) in trained for one in sets}


def warnings(
    sets: Sequence[ExemplarSet], splits: Mapping[str, str], unseen_categories: Collection[str]
) -> list[str]:
    """Return warnings about categories without a set in train that are not configured as unseen."""
    known = seen(sets, splits)
    missing = {one.category for one in sets if not known[one.name]} - set(unseen_categories)
    if not missing:
        return []
    return [f"exemplars.splits: train has no set of {', '.join(sorted(missing))}; more sets would reach them"]


def _shown(one: ExemplarSet) -> str:
    return str(one.style) if one.kind == "style" else one.members[0].shown
