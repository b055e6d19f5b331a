"""Draw exemplar sets: order the candidates by hash and take the first.

The order depends only on the seed, on names and on the list of unseen categories. So the sets are
the same for any part size and order of the pool; a larger number of object or style sets keeps
all earlier sets and appends to them; and images added to the pool change only the sets whose
position they take. The number in a set's name is its position.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attrib_core.common import hashing
from attrib_core.common.errors import InputError, close_matches
from attrib_core.data.naming import slug

STYLE_CATEGORY = "art"


@dataclass(frozen=True)
class Candidate:
    """A row of the pool, without its image, that may become an exemplar."""

    image_id: str
    caption: str
    subject: str | None
    category: str | None
    style: str | None
    perceptual_hash: int

    @property
    def shown(self) -> str:
        """The subject, or the image_id if it has none: distinct for all exemplars of a set."""
        return self.subject if self.subject is not None else self.image_id


@dataclass(frozen=True)
class ExemplarSet:
    """The exemplars of one customized model, without their images."""

    name: str
    kind: str
    category: str
    style: str | None
    members: tuple[Candidate, ...]
    first_of_category: bool


def candidates(
    rows: Iterable[Mapping[str, Any]], held_out: Mapping[str, Collection[str]] | None, *, held_out_only: bool
) -> tuple[list[Candidate], list[Candidate]]:
    """Return the candidates for object sets and for style sets.

    A candidate for an object set has a category and no style, one for a style set has a style.
    With `held_out_only`, and if the base model says what it was not trained on (`held_out` is not
    None), only those subjects and styles are candidates.
    """
    plain, styled = [], []
    for row in rows:
        name, kind = (row["subject"], "subjects") if row["style"] is None else (row["style"], "styles")
        if held_out is not None and held_out_only and name not in held_out[kind]:
            continue
        if row["style"] is not None:
            styled.append(Candidate(**row))
        elif row["category"] is not None:
            plain.append(Candidate(**row))
    return plain, styled


def check_enough(
    labels: Iterable[Mapping[str, Any]],
    held_out: Mapping[str, Any] | None,
    *,
    source: str,
    object_sets: int,
    style_sets: int,
    style_set_size: Sequence[int],
    unseen_categories: Sequence[str],
    held_out_only: bool,
) -> None:
    """Raise the error that `plan.plan` would raise for too few candidates, before the pool exists.

    `labels` has image_id, subject, category and style of each row. Images that the pool will reject
    are counted, so passing is no guarantee. `held_out`, `source` and the options are those of
    `plan.plan`.
    """
    only = held_out_only and held_out is not None and held_out.get("source") in (None, source)
    never_seen = {kind: frozenset((held_out or {}).get(kind, ())) for kind in ("subjects", "styles")}
    subjects: dict[str, str] = {}
    by_style: dict[str, set[str]] = defaultdict(set)
    for row in labels:
        style, category = row["style"], row["category"]
        shown = row["subject"] if row["subject"] is not None else row["image_id"]
        if style is not None:
            if not only or style in never_seen["styles"]:
                by_style[style].add(shown)
        elif category is not None and (not only or row["subject"] in never_seen["subjects"]):
            subjects[shown] = category
    _check_objects(object_sets, len(subjects), unseen_categories, set(subjects.values()))
    low = style_set_size[0]
    _check_styles(style_sets, sum(len(members) >= low for members in by_style.values()), low)


def _check_objects(
    count: int, subjects: int, unseen_categories: Sequence[str], categories: Collection[str]
) -> None:
    for category in unseen_categories if count else ():
        if category not in categories:
            raise InputError(
                f"exemplars.unseen_categories: {category!r} is the category of no plain candidate,"
                f" {close_matches(category, categories)}"
            )
    if subjects < count:
        raise InputError(
            f"exemplars.object_sets: {count} requested, but the pool has images of only {subjects} different"
            " subjects that may be exemplars: with a category, no style, and, where exemplars.held_out_only"
            " holds, never seen by the base model"
        )


def _check_styles(count: int, styles: int, low: int) -> None:
    if styles < count:
        raise InputError(
            f"exemplars.style_sets: {count} requested, but the pool has only {styles} styles that may be exemplars"
            f" and show {low} different objects (exemplars.style_set_size)"
        )


def object_sets(
    plain: Sequence[Candidate], *, count: int, unseen_categories: Sequence[str], seed: int
) -> list[ExemplarSet]:
    """Draw `count` sets of one plain image each, of different subjects, spread over categories.

    Categories take turns: each contributes its first subject before any contributes its second.
    Unseen categories are spaced evenly over each turn, so that a few sets already have both seen
    and unseen ones.

    Raises InputError for an unseen category that no candidate has, and for too few subjects.
    """
    subjects = _first_by_subject(plain, seed)
    by_category: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in subjects.values():
        by_category[str(candidate.category)].append(candidate)
    _check_objects(count, len(subjects), unseen_categories, by_category)
    turns = []
    for group in (sorted(set(by_category) - set(unseen_categories)), sorted(unseen_categories)):
        ordered = sorted(group, key=lambda category: _order(seed, "category", category))
        for position, category in enumerate(ordered):
            members = sorted(by_category[category], key=lambda one: _order(seed, "subject", one.shown))
            turns += [
                (turn, (position + 0.5) / len(ordered), category, one) for turn, one in enumerate(members)
            ]
    turns.sort(key=lambda turn: turn[:3])
    return [
        ExemplarSet(f"object-{number:03d}-{slug(one.shown)}", "object", category, None, (one,), turn == 0)
        for number, (turn, _, category, one) in enumerate(turns[:count])
    ]


def _first_by_subject(candidates: Iterable[Candidate], seed: int) -> dict[str, Candidate]:
    """Return one candidate for each subject, the first in the seeded order of images."""
    last_first = sorted(candidates, key=lambda one: _order(seed, "picture", one.image_id), reverse=True)
    return {one.shown: one for one in last_first}  # the first overwrites the others


def style_sets(
    styled: Sequence[Candidate], *, count: int, sizes: Sequence[int], seed: int
) -> list[ExemplarSet]:
    """Draw `count` sets of different styles, each of different objects in one style.

    A set's size is drawn uniformly from the first to the second of `sizes`, both included, or to
    the number of objects in the style if that is smaller. Raises InputError for too few styles.
    """
    if len(sizes) != 2 or not 1 <= sizes[0] <= sizes[1]:
        raise InputError(f"exemplars.style_set_size: {list(sizes)}; expected two numbers, 1 <= low <= high")
    low, high = sizes
    of_style: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in styled:
        of_style[str(candidate.style)].append(candidate)
    by_style = {style: _first_by_subject(members, seed) for style, members in of_style.items()}
    large_enough = [style for style, members in by_style.items() if len(members) >= low]
    _check_styles(count, len(large_enough), low)
    sets = []
    for number, style in enumerate(sorted(large_enough, key=lambda style: _order(seed, "style", style))):
        members = sorted(by_style[style].values(), key=lambda one: _order(seed, style, one.shown))
        size = hashing.generator("style set size", seed, style).integers(low, min(high, len(members)) + 1)
        name = f"style-{number:03d}-{slug(style)}"
        sets.append(ExemplarSet(name, "style", STYLE_CATEGORY, style, tuple(members[:size]), number == 0))
    return sets[:count]


def warnings(
    sets: Iterable[ExemplarSet], held_out: Mapping[str, Collection[str]] | None, *, held_out_only: bool
) -> list[str]:
    """Return warnings about exemplars that the base model may have been trained on."""
    if held_out is None:
        return ["the base model does not say what it held out: it may have been trained on some exemplars"]
    if held_out_only:
        return []
    known = [
        one.name
        for one in sets
        if (one.kind == "object" and one.members[0].subject not in held_out["subjects"])
        or (one.kind == "style" and one.style not in held_out["styles"])
    ]
    if not known:
        return []
    shown = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
    return [
        f"exemplars.held_out_only is false: the base model was trained on what {len(known)} sets show ({shown})"
    ]


def _order(seed: int, kind: str, name: str) -> str:
    return hashing.digest("exemplar order", seed, kind, name)
