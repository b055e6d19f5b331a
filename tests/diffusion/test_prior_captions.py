"""Prior images by captions: ranked as by a plain BM25, independent of the size of parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.diffusion.customization.prior_protocol import PriorClass
from attrib_core.diffusion.priors import captions
from attrib_core.storage import tables
from attrib_core.storage.store import layout
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.priors_fixtures import (
    ANIMAL,
    ART,
    COUNT,
    FRUIT,
    World,
    pool_rows,
    row,
    write_pool,
)


@pytest.mark.parametrize("cut", [1, 7, 60])
def test_the_size_of_parts_changes_no_nearest_caption(world: World, tmp_path: Path, cut: int) -> None:
    whole = world.images("captions", [ANIMAL, FRUIT, ART])
    inputs = write_pool(tmp_path / "cut", pool_rows(), size=cut)
    assert (
        world.images("captions", [ANIMAL, FRUIT, ART], run=tmp_path / "other" / "run", inputs=inputs) == whole
    )
    # and the same images are under the same keys
    keys = [
        {path.name for path in run.glob("store/prior/*.parquet")} for run in (tmp_path, tmp_path / "other")
    ]
    assert len(keys[0]) == 3
    assert keys[0] == keys[1]


def bm25(texts: Sequence[str], query: str) -> np.ndarray:
    """BM25 scores of all texts, from scikit-learn's word counts."""
    vectorizer = CountVectorizer(token_pattern=r"\w+")
    counts = vectorizer.fit_transform(texts).toarray().astype(float)
    length = counts.sum(axis=1)
    total = np.zeros(len(texts))
    for term in set(query.lower().split()):
        column = vectorizer.vocabulary_.get(term)
        if column is not None:
            times, having = counts[:, column], (counts[:, column] > 0).sum()
            idf = np.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
            total += idf * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * length / length.mean()))
    return total


@pytest.mark.parametrize("query", ["animal", "small old art", "red red fruit", "animal nowhere"])
def test_the_nearest_captions_are_those_of_bm25(tmp_path: Path, query: str) -> None:
    rows = pool_rows()
    rows[5]["category"], rows[6]["category"] = "animal", "small thing"
    excluded = {entry["image_id"] for entry in rows[::7]}
    inputs = write_pool(tmp_path / "pool", rows, size=13, excluded=sorted(excluded))
    scores = bm25([f"{entry['caption']} {entry['category'] or ''}" for entry in rows], query)
    order = sorted(
        (
            number
            for number in range(len(rows))
            if scores[number] and rows[number]["image_id"] not in excluded
        ),
        key=lambda number: (-round(scores[number], 9), rows[number]["image_id"]),
    )
    assert len(order) > 12 and len({round(scores[number], 9) for number in order}) < len(order)  # ties
    source = families.load("priors", "captions", {"images": 12, "queries": {"thing": query}})
    found = source.plan([PriorClass("object", "thing")], inputs)[0]
    expected = [rows[number] for number in order[:12]]
    assert [one["image"]["path"] for one in found.rows] == [one["image_id"] for one in expected]
    assert [one["prompt"] for one in found.rows] == [one["caption"] for one in expected]
    assert list(source.encoded_images([found], inputs)) == [one["image"]["bytes"] for one in expected]
    assert found.content == [hashlib.sha256(one["image"]["bytes"]).hexdigest() for one in expected]


def test_no_exemplars_and_no_image_twice(tmp_path: Path) -> None:
    rows = [
        row("a", "a dog", 1),
        row("b", "dog", 1),  # the same image as a, and nearer
        row("c", "dog", 2),  # as near as b
        row("d", "dog dog", 3),  # an exemplar's near duplicate
        row("e", "a cat", 4),
        row("f", "the dog of a cat", 5),
    ]
    dog = PriorClass("object", "dog")
    found = {}
    for size in (1, 6):
        inputs = write_pool(tmp_path / str(size), rows, size=size, excluded=["d"])
        source = families.load("priors", "captions", {"images": 3})
        found[size] = [one["image"]["path"] for one in source.plan([dog], inputs)[0].rows]
        with pytest.raises(InputError, match=r"images: 4 asked, but 3 different .*'dog' \(class 'dog'\)"):
            families.load("priors", "captions", {"images": 4}).plan([dog], inputs)
    assert found == {1: ["b", "c", "f"], 6: ["b", "c", "f"]}


@pytest.mark.parametrize("seed", range(5))
def test_the_kept_rows_are_the_first_of_all_in_any_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    offered = [
        captions.Match(float(-rng.integers(5)), f"{number}", int(rng.integers(12)), "", (0, number))
        for number in range(80)
    ]
    kept = captions.TopMatches(6)
    for number in rng.permutation(80):
        kept.offer(offered[number])
    expected: dict[int, captions.Match] = {}
    for one in sorted(offered):
        expected.setdefault(one.perceptual_hash, one)
    assert kept.sorted() == list(expected.values())[:6]


def test_images_are_read_in_bounded_numbers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    source = world.source("captions")
    planned = source.plan([ANIMAL, FRUIT, ART], world.inputs)
    whole = list(source.encoded_images(planned, world.inputs))
    held: list[int] = []
    real = captions._images
    monkeypatch.setattr(
        captions, "_images", lambda pool, places: held.append(len(places)) or real(pool, places)
    )
    monkeypatch.setattr(captions, "IMAGES_IN_MEMORY", 2 * COUNT)
    assert list(source.encoded_images(planned, world.inputs)) == whole
    assert held == [2 * COUNT, COUNT]


def test_a_changed_image_of_the_pool_is_taken_anew(world: World, requested: list[str]) -> None:
    before = world.images("captions", [ANIMAL, FRUIT])
    nearest = before[0]["image"]["path"]
    changed = next(
        part
        for part in world.inputs.pool
        if nearest in tables.read(part, "pool", ["image_id"])["image_id"].to_pylist()
    )
    rows = tables.read(changed, "pool").to_pylist()
    for entry in rows:
        if entry["image_id"] == nearest:
            entry["image"]["bytes"] = fixtures.png(999)
    tables.write(changed, "pool", rows)
    requested.clear()
    after = world.images("captions", [ANIMAL, FRUIT])
    assert requested == ["animal"] and after[0]["image"]["bytes"] == fixtures.png(999)
    assert after[1:] == before[1:]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"images": 50}, r"^prior\.images: 50 asked, but \d+ different images of the pool .*'animal'"),
        (
            {"queries": {"animal": "zebra"}},
            r"^prior\.images: 3 asked, but 0 different .*'zebra' \(class 'animal'\)",
        ),
        ({"queries": {"animal": "..."}}, r"^prior\.queries: '\.\.\.' for 'animal' has no word"),
        ({"images": 0}, r"^prior\.images: 0"),
    ],
)
def test_what_is_wrong_with_captions(world: World, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        world.images("captions", [ANIMAL], **options)
    assert "\n" not in str(caught.value) and not layout.folder(world.run, "prior").exists()
