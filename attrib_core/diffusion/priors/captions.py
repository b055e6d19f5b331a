"""Prior images from the pool: those whose captions are nearest to the noun of a class.

The published runs took images and their captions from LAION by a retrieval service that is
gone; this finds the like in the pool at hand. The caption becomes the prompt, as there.

How near a caption is, BM25 says (Robertson and Zaragoza, "The Probabilistic Relevance Framework:
BM25 and Beyond", 2009), with the idf of Lucene, which is never negative: the sum over the noun's
words of

    ln(1 + (rows - with + 0.5) / (with + 0.5)) * times * (K1 + 1) / (times + K1 * (1 - B + B * length / mean))

where `with` rows of all have the word, this one has it `times` times, and has `length` words, where
the mean is `mean`. The words of a row are those of its caption and, where the source knows it, of
its category; "fruits" is not "fruit". All rows count in these numbers; rows of the table `excluded`
(exemplars, their near duplicates, images of the same subject or style) are never taken, nor is one
image twice: of rows with the same perceptual hash the nearest stays. Equally near rows are in the
order of their image_id.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from attrib_core.diffusion.customization.prior_protocol import PriorClass, PriorInputs, PriorSet, row, wrong
from attrib_core.storage import tables

READS = ("pool", "excluded")
K1, B = 1.2, 0.75
ROWS_A_BATCH = 4096
HELD = 8192
"""Images held in memory at a time; the pool is read once for so many."""


class Found(NamedTuple):
    """A row of the pool, in the order of nearness; its place is the number of the part and the row in it."""

    distance: float
    image_id: str
    image: int
    caption: str
    place: tuple[int, int]


class Nearest:
    """The nearest `count` rows of those offered, one for each perceptual hash; the order of offers is free."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._kept: dict[int, Found] = {}
        self._last: Found | None = None

    def offer(self, one: Found) -> None:
        """Keep a row where it is nearer than the last of those kept."""
        before = self._kept.get(one.image)
        if before is not None and before <= one:
            return
        if before is None and len(self._kept) == self.count:
            if self._last is None:
                self._last = max(self._kept.values())
            if self._last <= one:
                return
            del self._kept[self._last.image]
        self._kept[one.image] = one
        self._last = None

    def sorted(self) -> list[Found]:
        """The rows kept, nearest first."""
        return sorted(self._kept.values())


@dataclass(frozen=True)
class Captions:
    """The options of `load`."""

    images: int
    queries: dict[str, str]

    def plan(self, classes: Sequence[PriorClass], inputs: PriorInputs) -> list[PriorSet]:
        """The nearest rows of each class: two passes over captions, one over the images found."""
        asked = {one: tuple(sorted(set(words(self._query(one))))) for one in classes}
        for one, terms in asked.items():
            if not terms:
                raise wrong("queries", f"{self._query(one)!r} for {one.category!r} holds no word")
        found = self._ranked(asked, inputs)
        for one in classes:
            if len(found[one]) < self.images:
                raise wrong(
                    "images",
                    f"{self.images} asked, but {len(found[one])} different images of the pool that are"
                    f" not excluded share a word with {self._query(one)!r} (class {one.category!r}); ask for fewer,"
                    " or say in prior.queries by what words to search for the class",
                )
        wanted = [row.place for one in classes for row in found[one]]
        digests = {place: hashlib.sha256(data).hexdigest() for place, data in _images(inputs.pool, wanted)}
        return [
            PriorSet(
                one.kind,
                one.category,
                rows=[
                    row(one, number, near.caption, path=near.image_id)
                    for number, near in enumerate(found[one])
                ],
                content=[digests[near.place] for near in found[one]],
                places=[near.place for near in found[one]],
            )
            for one in classes
        ]

    def _query(self, one: PriorClass) -> str:
        return self.queries.get(one.category, one.category)

    def _ranked(
        self, asked: Mapping[PriorClass, tuple[str, ...]], inputs: PriorInputs
    ) -> dict[PriorClass, list[Found]]:
        """The nearest rows of each class that are not excluded, nearest first, `images` at most."""
        vocabulary = frozenset(term for terms in asked.values() for term in terms)
        by_term: dict[str, list[PriorClass]] = {}
        for one, terms in asked.items():
            for term in terms:
                by_term.setdefault(term, []).append(one)
        counted = _statistics(inputs.pool, vocabulary)
        if inputs.excluded is None:
            raise TypeError("the family 'captions' reads the table of excluded rows, and the inputs has none")
        excluded = set(tables.read(inputs.excluded, "excluded", columns=["image_id"])["image_id"].to_pylist())
        nearest = {one: Nearest(self.images) for one in asked}
        columns = ("image_id", "caption", "category", "perceptual_hash")
        for number, part in enumerate(inputs.pool):
            place = 0
            for batch in tables.iterate([part], columns, ROWS_A_BATCH):
                for entry in batch.to_pylist():
                    own = _words_of(entry)
                    shared = vocabulary.intersection(own)
                    if shared and entry["image_id"] not in excluded:
                        times = {term: own.count(term) for term in shared}
                        for one in dict.fromkeys(one for term in shared for one in by_term[term]):
                            score = counted.score(asked[one], times, len(own))
                            nearest[one].offer(
                                Found(
                                    -score,
                                    entry["image_id"],
                                    entry["perceptual_hash"],
                                    entry["caption"],
                                    (number, place),
                                )
                            )
                    place += 1
        return {one: held.sorted() for one, held in nearest.items()}

    def encoded_images(self, sets: Sequence[PriorSet], inputs: PriorInputs) -> Iterator[bytes]:
        """The images as the pool has them; as many sets at a time as HELD allows."""
        waiting: list[PriorSet] = []
        for one in sets:
            if waiting and sum(len(held.places) for held in (*waiting, one)) > HELD:
                yield from _in_order(waiting, inputs.pool)
                waiting = []
            waiting.append(one)
        yield from _in_order(waiting, inputs.pool)


@dataclass(frozen=True)
class Statistics:
    """Of all rows of the pool: how many there are, the mean of their words, and how many have a word."""

    rows: int
    mean: float
    having: dict[str, int]

    def score(self, terms: Sequence[str], times: Mapping[str, int], length: int) -> float:
        """BM25 of a row of `length` words that has the terms so many `times`, summed in the terms' order."""
        total = 0.0
        for term in terms:
            if term in times:
                having = self.having[term]
                weight = math.log(1 + (self.rows - having + 0.5) / (having + 0.5))
                saturation = times[term] + K1 * (1 - B + B * length / self.mean)
                total += weight * times[term] * (K1 + 1) / saturation
        return total


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"\w+", text.casefold())


def _words_of(entry: Mapping[str, Any]) -> list[str]:
    return words(entry["caption"]) + words(entry["category"] or "")


def _statistics(pool: Sequence[Path], vocabulary: frozenset[str]) -> Statistics:
    rows = total = 0
    having = dict.fromkeys(vocabulary, 0)
    for batch in tables.iterate(pool, ("caption", "category"), ROWS_A_BATCH):
        for entry in batch.to_pylist():
            own = _words_of(entry)
            rows += 1
            total += len(own)
            for term in vocabulary.intersection(own):
                having[term] += 1
    return Statistics(rows, total / max(rows, 1), having)


def _images(
    pool: Sequence[Path], places: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Places and the images there, in the order of the pool."""
    by_part: dict[int, set[int]] = {}
    for part, place in places:
        by_part.setdefault(part, set()).add(place)
    for part, wanted in sorted(by_part.items()):
        for place, entry in tables.rows_at(pool[part], ("image",), sorted(wanted)):
            yield (part, place), entry["image"]["bytes"]


def _in_order(sets: Sequence[PriorSet], pool: Sequence[Path]) -> Iterator[bytes]:
    places = [place for one in sets for place in one.places]
    held = dict(_images(pool, places))
    yield from (held[place] for place in places)


def load(
    *,
    images: Annotated[int, Field(ge=1, description="prior images of each class")] = 16,
    queries: Annotated[
        dict[str, str],
        Field(description="words to search for a class by, where its noun is not what captions say"),
    ] = {},  # noqa: B006 - read alone
) -> Captions:
    """Images of the pool whose captions are nearest to the noun of a class, by their words (BM25).

    The captions are their prompts. Exemplars and what answers for them are never taken.
    """
    return Captions(images, queries)
