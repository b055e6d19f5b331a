"""Prior images from the pool: those whose captions match the noun of a class best, by BM25.

The published runs took images and their captions from LAION, with a retrieval service that no longer exists; this
searches the pool in its place. As there, the caption becomes the prompt.

Captions are ranked by BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009),
with the idf of Lucene, which is never negative: the sum over the query's words of

    ln(1 + (rows - having + 0.5) / (having + 0.5)) * times * (K1 + 1) / (times + K1 * (1 - B + B * length / mean))

where `having` of all `rows` have the word, this row has it `times` times, and has `length` words; the mean of these is
`mean`. The words of a row are those of its caption and, where the source has one, of its category; there is no
stemming. All rows count in these statistics. Rows of the table `excluded` (exemplars, their near duplicates, images of
the same subject or style) are never taken, and of rows with the same perceptual hash only the best. Equal scores are
in the order of the image_id.
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

from attrib_core.diffusion.customization.prior_protocol import (
    PriorClass,
    PriorInputs,
    PriorSet,
    option_error,
    prior_row,
)
from attrib_core.storage import tables

READS = ("pool", "excluded")
K1, B = 1.2, 0.75
ROWS_A_BATCH = 4096
IMAGES_IN_MEMORY = 8192
"""Images kept in memory at a time; each time, the pool is read once."""


class Match(NamedTuple):
    """A matching row of the pool; sorts by rank. Its location is the number of the part and the row in it."""

    negative_score: float
    image_id: str
    perceptual_hash: int
    caption: str
    location: tuple[int, int]


class TopMatches:
    """The best `count` of the offered rows, one for each perceptual hash; the order of offers does not matter."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._kept: dict[int, Match] = {}
        self._last: Match | None = None

    def offer(self, match: Match) -> None:
        """Keep a row if it ranks before the last of those kept."""
        before = self._kept.get(match.perceptual_hash)
        if before is not None and before <= match:
            return
        if before is None and len(self._kept) == self.count:
            if self._last is None:
                self._last = max(self._kept.values())
            if self._last <= match:
                return
            del self._kept[self._last.perceptual_hash]
        self._kept[match.perceptual_hash] = match
        self._last = None

    def sorted(self) -> list[Match]:
        """Return the rows kept, best first."""
        return sorted(self._kept.values())


@dataclass(frozen=True)
class Captions:
    """A source of prior images that searches the captions of the pool, with the options of `load`."""

    images: int
    queries: dict[str, str]

    def plan(self, classes: Sequence[PriorClass], inputs: PriorInputs) -> list[PriorSet]:
        """Find the best rows of each class, in two passes over captions and one over the images found."""
        terms = {one: tuple(sorted(set(words(self._query(one))))) for one in classes}
        for one in classes:
            if not terms[one]:
                raise option_error("queries", f"{self._query(one)!r} for {one.category!r} has no word")
        found = self._search(terms, inputs)
        for one in classes:
            if len(found[one]) < self.images:
                raise option_error(
                    "images",
                    f"{self.images} asked, but {len(found[one])} different images of the pool that are"
                    f" not excluded share a word with {self._query(one)!r} (class {one.category!r}); ask for fewer,"
                    " or set other words to search for the class in prior.queries",
                )
        wanted = [match.location for one in classes for match in found[one]]
        digests = {
            location: hashlib.sha256(data).hexdigest() for location, data in _images(inputs.pool, wanted)
        }
        return [
            PriorSet(
                one.kind,
                one.category,
                rows=[
                    prior_row(one, number, match.caption, path=match.image_id)
                    for number, match in enumerate(found[one])
                ],
                content=[digests[match.location] for match in found[one]],
                locations=[match.location for match in found[one]],
            )
            for one in classes
        ]

    def _query(self, one: PriorClass) -> str:
        return self.queries.get(one.category, one.category)

    def _search(
        self, terms: Mapping[PriorClass, tuple[str, ...]], inputs: PriorInputs
    ) -> dict[PriorClass, list[Match]]:
        """Find the rows of each class that are not excluded, best first, at most `images`."""
        vocabulary = frozenset(term for of_class in terms.values() for term in of_class)
        by_term: dict[str, list[PriorClass]] = {}
        for one, of_class in terms.items():
            for term in of_class:
                by_term.setdefault(term, []).append(one)
        statistics = _statistics(inputs.pool, vocabulary)
        if inputs.excluded is None:
            raise TypeError("the family 'captions' needs the table of excluded rows as an input")
        table = tables.read(inputs.excluded, "excluded", columns=["image_id"])
        excluded = set(table["image_id"].to_pylist())
        top = {one: TopMatches(self.images) for one in terms}
        columns = ("image_id", "caption", "category", "perceptual_hash")
        for part_number, part in enumerate(inputs.pool):
            row_number = 0
            for batch in tables.iterate([part], columns, ROWS_A_BATCH):
                for row in batch.to_pylist():
                    row_words = _words_of(row)
                    shared = vocabulary.intersection(row_words)
                    if shared and row["image_id"] not in excluded:
                        times = {term: row_words.count(term) for term in shared}
                        for one in dict.fromkeys(one for term in shared for one in by_term[term]):
                            score = statistics.score(terms[one], times, len(row_words))
                            top[one].offer(
                                Match(
                                    -score,
                                    row["image_id"],
                                    row["perceptual_hash"],
                                    row["caption"],
                                    (part_number, row_number),
                                )
                            )
                    row_number += 1
        return {one: matches.sorted() for one, matches in top.items()}

    def encoded_images(self, sets: Sequence[PriorSet], inputs: PriorInputs) -> Iterator[bytes]:
        """Yield the images as they are in the pool; as many sets at a time as fit into IMAGES_IN_MEMORY."""
        waiting: list[PriorSet] = []
        for one in sets:
            if waiting and sum(len(each.locations) for each in (*waiting, one)) > IMAGES_IN_MEMORY:
                yield from _in_order(waiting, inputs.pool)
                waiting = []
            waiting.append(one)
        yield from _in_order(waiting, inputs.pool)


@dataclass(frozen=True)
class Statistics:
    """Statistics of the pool: number of rows, mean number of words, and the number of rows that have a word."""

    rows: int
    mean: float
    having: dict[str, int]

    def score(self, terms: Sequence[str], times: Mapping[str, int], length: int) -> float:
        """Compute the BM25 score of a row of `length` words with `times` occurrences, summed in the terms' order."""
        total = 0.0
        for term in terms:
            if term in times:
                having = self.having[term]
                weight = math.log(1 + (self.rows - having + 0.5) / (having + 0.5))
                saturation = times[term] + K1 * (1 - B + B * length / self.mean)
                total += weight * times[term] * (K1 + 1) / saturation
        return total


def words(text: str) -> list[str]:
    """Split a text into words, in lower case."""
    return re.findall(r"\w+", text.casefold())


def _words_of(row: Mapping[str, Any]) -> list[str]:
    return words(row["caption"]) + words(row["category"] or "")


def _statistics(pool: Sequence[Path], vocabulary: frozenset[str]) -> Statistics:
    rows = total = 0
    having = dict.fromkeys(vocabulary, 0)
    for batch in tables.iterate(pool, ("caption", "category"), ROWS_A_BATCH):
        for row in batch.to_pylist():
            row_words = _words_of(row)
            rows += 1
            total += len(row_words)
            for term in vocabulary.intersection(row_words):
                having[term] += 1
    return Statistics(rows, total / max(rows, 1), having)


def _images(
    pool: Sequence[Path], locations: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield locations and the images there, in the order of the pool."""
    by_part: dict[int, set[int]] = {}
    for part, number in locations:
        by_part.setdefault(part, set()).add(number)
    for part, wanted in sorted(by_part.items()):
        for number, row in tables.rows_at(pool[part], ("image",), sorted(wanted)):
            yield (part, number), row["image"]["bytes"]


def _in_order(sets: Sequence[PriorSet], pool: Sequence[Path]) -> Iterator[bytes]:
    locations = [location for one in sets for location in one.locations]
    images = dict(_images(pool, locations))
    yield from (images[location] for location in locations)


def load(
    *,
    images: Annotated[int, Field(ge=1, description="prior images of each class")] = 16,
    queries: Annotated[
        dict[str, str],
        Field(description="search words by class noun, where captions use other words"),
    ] = {},  # noqa: B006 - read-only
) -> Captions:
    """Images of the pool whose captions match the noun of a class best (BM25).

    Their captions are the prompts. Exemplars, their near duplicates and images of the same subject or style are never
    taken.
    """
    return Captions(images, queries)
