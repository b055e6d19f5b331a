"""The contract of a family of prior images, held against every family there is; and each family's own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.config.load import load_config
from attrib_core.diffusion.customization import prior_images
from attrib_core.diffusion.customization.inputs import read_classes, read_prior_inputs
from attrib_core.diffusion.customization.prior_protocol import PriorClass, PriorInputs, PriorSource
from attrib_core.diffusion.pipeline import description
from attrib_core.diffusion.priors import captions
from attrib_core.storage import tables
from attrib_core.storage.store import layout, pieces
from tests.diffusion import diffusion_fixtures as made
from tests.files_fixtures import rewrite

ANIMAL, FRUIT, ART = PriorClass("object", "animal"), PriorClass("object", "fruit"), PriorClass("style", "art")
NOUNS = ("animal", "fruit", "art")
COUNT = 3
COLOURS = ("red", "green", "blue", "large", "small", "old", "new")


def pool_rows(count: int = 60) -> list[dict[str, Any]]:
    """Rows of a pool whose captions name the classes, some of them twice, in no order."""
    rng = np.random.default_rng(5)
    rows = []
    for number in range(count):
        said = rng.choice(COLOURS, rng.integers(1, 5)).tolist()
        if number % 4:
            said.insert(rng.integers(0, len(said) + 1), NOUNS[number % 3])
        if number % 8 == 1:
            said.append(NOUNS[number % 3].upper())
        rows.append(row(f"row-{rng.integers(10**9):09d}", " ".join(said), number))
    return rows


def row(image_id: str, caption: str, number: int, **changes: Any) -> dict[str, Any]:
    """A row of a pool; its image and perceptual hash are of its number."""
    plain: dict[str, Any] = {
        "image_id": image_id, "image": {"bytes": made.png(number), "path": None}, "caption": caption,
        "subject": None, "category": None, "style": None, "width": 32, "height": 32,
        "perceptual_hash": number, "licence": "CC0-1.0", "attribution": "nobody",
    }  # fmt: skip
    return plain | changes


def write_pool(
    folder: Path, rows: Sequence[dict[str, Any]], *, size: int, excluded: Sequence[str] = ()
) -> PriorInputs:
    parts = []
    for start in range(0, len(rows), size):
        parts.append(folder / f"part-{start}.parquet")
        tables.write(parts[-1], "pool", list(rows[start : start + size]))
    out = [{"image_id": name, "reason": "near_duplicate", "exemplar_id": "x.0"} for name in excluded]
    tables.write(folder / "excluded.parquet", "excluded", out)
    return PriorInputs(pool=parts, excluded=folder / "excluded.parquet")


@dataclass
class World:
    """What the families take images from, in a folder of the test, and their options."""

    material: PriorInputs
    options: dict[str, dict[str, Any]]
    run: Path

    def source(self, family: str, **changes: Any) -> PriorSource:
        found: PriorSource = families.load(
            "priors", family, self.options[family] | changes, where="prior", device="cpu", seed=3
        )
        return found

    def images(self, family: str, classes: Sequence[PriorClass], **changes: Any) -> list[dict[str, Any]]:
        where, material = changes.pop("run", self.run), changes.pop("material", self.material)
        settings = {"family": family} | self.options[family] | changes
        given = {"run": where, "seed": 3, "code": "code", "device": "cpu"}
        return [
            row
            for _, table in prior_images.images(classes, settings, material, **given)
            for row in table.to_pylist()
        ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> description.BaseModel:
    return description.describe(made.save_base(tmp_path_factory.mktemp("base") / "tiny"))


@pytest.fixture
def world(base: description.BaseModel, tmp_path: Path) -> World:
    images = tmp_path / "images"
    for number in range(15):
        file = images / f"{number % 5}" / f"{NOUNS[number % 3]} {number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(made.png(number))
    (tmp_path / "style.txt").write_text("red {category}\nblue {category}\n{category}\n")
    material = write_pool(tmp_path / "pool", pool_rows(), size=25)
    options: dict[str, dict[str, Any]] = {
        "generated": {"images": COUNT, "steps": 2, "style_prompts": str(tmp_path / "style.txt")},
        "folder": {"images": COUNT, "path": str(images)},
        "captions": {"images": COUNT},
    }
    return World(replace(material, base=base), options, tmp_path / "run")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The classes whose images families were asked to make, in order; a test may read and clear it."""
    found: list[str] = []
    real = families.load

    class Counted:
        def __init__(self, source: PriorSource) -> None:
            self.source, self.plan = source, source.plan

        def encoded_images(self, sets: Any, material: PriorInputs) -> Iterator[bytes]:
            found.extend(one.category for one in sets)
            return self.source.encoded_images(sets, material)

    def load(kind: str, *given: Any, **named: Any) -> Any:
        loaded = real(kind, *given, **named)
        return Counted(loaded) if kind == "priors" else loaded

    monkeypatch.setattr(families, "load", load)
    return found


def pixels(rows: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (one["kind"], one["category"], one["prior_index"], one["prompt"], one["seed"], one["image"]["bytes"])
        for one in rows
    ]


@pytest.mark.parametrize("family", families.names("priors"))
class TestContract:
    def test_each_class_has_its_images(self, family: str, world: World) -> None:
        module = families.module("priors", family)
        assert set(module.READS) <= {"base_model", "pool", "excluded"}
        rows = world.images(family, [ANIMAL, FRUIT, ART])
        assert [(one["kind"], one["category"]) for one in rows] == [
            tuple(one) for one in (ANIMAL, FRUIT, ART) for _ in range(COUNT)
        ]
        assert [one["prior_index"] for one in rows] == [0, 1, 2] * 3
        for number, one in enumerate(rows):
            assert NOUNS[number // COUNT] in one["prompt"].lower()
        assert len({one["image"]["bytes"] for one in rows}) == len(rows)

    def test_company_order_and_run_change_nothing(self, family: str, world: World, tmp_path: Path) -> None:
        whole = pixels(world.images(family, [ANIMAL, FRUIT, ART]))
        turned = pixels(world.images(family, [ART, ANIMAL], run=tmp_path / "turned" / "run"))
        alone = pixels(world.images(family, [FRUIT], run=tmp_path / "alone" / "run"))
        assert turned == whole[2 * COUNT :] + whole[:COUNT]
        assert alone == whole[COUNT : 2 * COUNT]

    def test_what_is_there_is_kept_and_a_class_more_makes_a_class_more(
        self, family: str, world: World, asked: list[str]
    ) -> None:
        first = world.images(family, [ANIMAL, FRUIT])
        assert asked == ["animal", "fruit"]
        more = world.images(family, [ANIMAL, ART, FRUIT])
        assert asked == ["animal", "fruit", "art"]
        assert more[:COUNT] + more[2 * COUNT :] == first
        assert world.images(family, [ANIMAL, ART, FRUIT]) == more and len(asked) == 3

    def test_a_damaged_class_is_made_again(self, family: str, world: World, asked: list[str]) -> None:
        whole = world.images(family, [ANIMAL, FRUIT])
        pieces = sorted(layout.folder(world.run, "prior").glob("*.parquet"))
        assert len(pieces) == 2
        damaged = bytearray(pieces[0].read_bytes())
        damaged[len(damaged) // 2] ^= 1
        rewrite(pieces[0], damaged)
        pieces[1].with_suffix(".json").unlink()  # as a kill between the two would leave it
        asked.clear()
        assert world.images(family, [ANIMAL, FRUIT]) == whole
        assert sorted(asked) == ["animal", "fruit"]

    def test_a_killed_job_resumes(
        self, family: str, world: World, asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        whole = world.images(family, [ANIMAL, FRUIT, ART])
        asked.clear()
        settings = {"family": family} | world.options[family]
        given: dict[str, Any] = {
            "run": tmp_path / "killed" / "run",
            "seed": 3,
            "code": "code",
            "device": "cpu",
        }
        real = pieces.write

        def killed(*written: Any) -> None:
            if asked == ["killed"]:
                raise KeyboardInterrupt
            asked[:] = ["killed"]
            real(*written)

        with monkeypatch.context() as patched:
            patched.setattr(pieces, "write", killed)
            with pytest.raises(KeyboardInterrupt):  # after the first class
                list(prior_images.images([ANIMAL, FRUIT, ART], settings, world.material, **given))
        asked.clear()
        assert world.images(family, [ANIMAL, FRUIT, ART], run=tmp_path / "killed" / "run") == whole
        assert asked == ["fruit", "art"]

    def test_settings_seed_of_code_and_content_are_in_the_key(
        self, family: str, world: World, asked: list[str]
    ) -> None:
        world.images(family, [ANIMAL])
        world.images(family, [ANIMAL], images=2)
        settings = {"family": family} | world.options[family]
        given: dict[str, Any] = {"run": world.run, "seed": 3, "device": "cpu"}
        assert len(list(prior_images.images([ANIMAL], settings, world.material, code="other", **given))) == 1
        assert asked == ["animal"] * 3

    def test_without_prior_images_nothing_is_opened(self, family: str, tmp_path: Path) -> None:
        nothing = prior_images.images(
            [ANIMAL], None, PriorInputs(), run=tmp_path / "run", seed=3, code="x", device="cpu"
        )
        assert list(nothing) == [] and not list(tmp_path.iterdir())


def test_generated_images_do_not_depend_on_their_batch(world: World) -> None:
    source = world.source("generated")
    planned = source.plan([ANIMAL, FRUIT, ART], world.material)
    assert len({one["prompt"] for one in planned[0].rows}) == 3
    assert len({one["seed"] for planned_one in planned for one in planned_one.rows}) == 9
    longer = world.source("generated", images=30).plan([FRUIT], world.material)[0]
    assert longer.rows[:3] == planned[1].rows
    in_fours = replace(source, batch=4)  # type: ignore[type-var]
    whole = list(in_fours.encoded_images(planned, world.material))
    assert list(in_fours.encoded_images(planned[1:], world.material)) == whole[3:]


def test_generated_images_hang_on_the_base(world: World, base: description.BaseModel) -> None:
    one = world.source("generated").plan([ANIMAL], world.material)[0]
    other = replace(world.material, base=replace(base, fingerprint="other"))
    assert world.source("generated").plan([ANIMAL], other)[0].content != one.content
    assert world.source("generated", eta=0.5).plan([ANIMAL], world.material)[0].content != one.content


@pytest.mark.parametrize("cut", [1, 7, 60])
def test_the_size_of_parts_changes_no_nearest_caption(world: World, tmp_path: Path, cut: int) -> None:
    whole = world.images("captions", [ANIMAL, FRUIT, ART])
    material = write_pool(tmp_path / "cut", pool_rows(), size=cut)
    assert (
        world.images("captions", [ANIMAL, FRUIT, ART], run=tmp_path / "other" / "run", material=material)
        == whole
    )
    # and the same images are under the same keys
    keys = [
        {path.name for path in run.glob("store/prior/*.parquet")} for run in (tmp_path, tmp_path / "other")
    ]
    assert len(keys[0]) == 3
    assert keys[0] == keys[1]


def bm25(texts: Sequence[str], query: str) -> np.ndarray:
    """Scores of all texts at once, from scikit-learn's word counts."""
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
    material = write_pool(tmp_path / "pool", rows, size=13, excluded=sorted(excluded))
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
    found = source.plan([PriorClass("object", "thing")], material)[0]
    expected = [rows[number] for number in order[:12]]
    assert [one["image"]["path"] for one in found.rows] == [one["image_id"] for one in expected]
    assert [one["prompt"] for one in found.rows] == [one["caption"] for one in expected]
    assert list(source.encoded_images([found], material)) == [one["image"]["bytes"] for one in expected]
    assert found.content == [hashlib.sha256(one["image"]["bytes"]).hexdigest() for one in expected]


def test_neither_exemplars_nor_a_image_twice(tmp_path: Path) -> None:
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
        material = write_pool(tmp_path / str(size), rows, size=size, excluded=["d"])
        source = families.load("priors", "captions", {"images": 3})
        found[size] = [one["image"]["path"] for one in source.plan([dog], material)[0].rows]
        with pytest.raises(InputError, match=r"images: 4 asked, but 3 different .*'dog' \(class 'dog'\)"):
            families.load("priors", "captions", {"images": 4}).plan([dog], material)
    assert found == {1: ["b", "c", "f"], 6: ["b", "c", "f"]}


@pytest.mark.parametrize("seed", range(5))
def test_the_kept_rows_are_the_first_of_all_in_any_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    offered = [
        captions.Found(float(-rng.integers(5)), f"{number}", int(rng.integers(12)), "", (0, number))
        for number in range(80)
    ]
    kept = captions.Nearest(6)
    for number in rng.permutation(80):
        kept.offer(offered[number])
    expected: dict[int, captions.Found] = {}
    for one in sorted(offered):
        expected.setdefault(one.image, one)
    assert kept.sorted() == list(expected.values())[:6]


def test_images_are_read_in_bounded_numbers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    source = world.source("captions")
    planned = source.plan([ANIMAL, FRUIT, ART], world.material)
    whole = list(source.encoded_images(planned, world.material))
    held: list[int] = []
    real = captions._images
    monkeypatch.setattr(
        captions, "_images", lambda pool, places: held.append(len(places)) or real(pool, places)
    )
    monkeypatch.setattr(captions, "HELD", 2 * COUNT)
    assert list(source.encoded_images(planned, world.material)) == whole
    assert held == [2 * COUNT, COUNT]


def test_a_changed_image_of_the_pool_is_taken_anew(world: World, asked: list[str]) -> None:
    before = world.images("captions", [ANIMAL, FRUIT])
    nearest = before[0]["image"]["path"]
    changed = next(
        part
        for part in world.material.pool
        if nearest in tables.read(part, "pool", ["image_id"])["image_id"].to_pylist()
    )
    rows = tables.read(changed, "pool").to_pylist()
    for entry in rows:
        if entry["image_id"] == nearest:
            entry["image"]["bytes"] = made.png(999)
    tables.write(changed, "pool", rows)
    asked.clear()
    after = world.images("captions", [ANIMAL, FRUIT])
    assert asked == ["animal"] and after[0]["image"]["bytes"] == made.png(999)
    assert after[1:] == before[1:]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"images": 50}, r"^prior\.images: 50 asked, but \d+ different images of the pool .*'animal'"),
        (
            {"queries": {"animal": "zebra"}},
            r"^prior\.images: 3 asked, but 0 different .*'zebra' \(class 'animal'\)",
        ),
        ({"queries": {"animal": "..."}}, r"^prior\.queries: '\.\.\.' for 'animal' holds no word"),
        ({"images": 0}, r"^prior\.images: 0"),
    ],
)
def test_what_is_wrong_with_captions(world: World, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        world.images("captions", [ANIMAL], **options)
    assert "\n" not in str(caught.value) and not layout.folder(world.run, "prior").exists()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images below folders of nouns, with captions beside some."""
    for number, (name, caption) in enumerate(
        [
            ("dog/one.png", "a Dog that sleeps"),
            ("dog/two.png", "nobody"),
            ("dog/three.png", "hotdogs"),
            ("cat/four.png", "a dog and a cat"),
            ("five.png", None),
        ]
    ):
        file = tmp_path / "mine" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(made.png(number))
        if caption:
            file.with_suffix(".txt").write_text(caption + "\n")
    return tmp_path / "mine"


def taken(images: Path, **options: Any) -> dict[str, str]:
    """Captions of the images of class "dog", by file."""
    source = families.load("priors", "folder", {"path": str(images)} | options, seed=1)
    found = source.plan([PriorClass("object", "dog")], PriorInputs())[0]
    assert list(source.encoded_images([found], PriorInputs())) == [
        (images / one["image"]["path"]).read_bytes() for one in found.rows
    ]
    return {one["image"]["path"]: one["prompt"] for one in found.rows}


def test_a_folder_gives_by_subfolder_caption_or_all(images: Path, tmp_path: Path) -> None:
    assert taken(images, choose="subfolder", images=3) == {
        "dog/one.png": "a Dog that sleeps", "dog/two.png": "nobody", "dog/three.png": "hotdogs",
    }  # fmt: skip
    by_caption = {"dog/one.png": "a Dog that sleeps", "cat/four.png": "a dog and a cat"}
    assert taken(images, choose="caption", images=2) == taken(images, images=2) == by_caption
    assert len(taken(images, choose="all", images=5)) == 5
    assert taken(images, choose="all", images=5)["five.png"] == "five"
    table = tmp_path / "words.csv"
    table.write_text("file_name,text,category\nfive.png,barking,dog\ndog/two.png,,\n")
    assert taken(images, metadata=str(table), images=1) == {"five.png": "barking"}
    lines = tmp_path / "words.jsonl"
    lines.write_text('{"file_name": "cat/four.png", "text": "dog"}\n')
    assert taken(images, metadata=str(lines), images=1) == {"cat/four.png": "dog"}


def test_some_of_many_are_taken_by_key(images: Path) -> None:
    two = taken(images, choose="all", images=2)
    assert set(two) < set(taken(images, choose="all", images=3)) and len(two) == 2
    (images / "aaa.png").write_bytes(made.png(50))
    assert len(set(two) & set(taken(images, choose="all", images=3))) == 2


def test_what_is_wrong_with_a_folder(images: Path, world: World) -> None:
    dog = PriorClass("object", "dog")

    def said(**options: Any) -> str:
        with pytest.raises(InputError) as caught:
            world.images("folder", [dog], **({"path": str(images), "choose": "all", "images": 5} | options))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert said(path="nowhere") == "prior.path: 'nowhere' is no folder"
    (images / "empty").mkdir()
    assert said(path=str(images / "empty")).startswith("prior.path: 0 images in folder")
    assert said(metadata="gone.csv") == "prior.metadata: 'gone.csv' is no file"
    assert re.match(
        r"prior\.images: 3 asked, but folder '.*mine' has 2 images for class 'dog' by caption",
        said(choose="caption", images=3),
    )
    assert "has 3 images for class 'dog' by subfolder (dog/)" in said(choose="subfolder", images=4)
    (images / "five.png").write_bytes(b"no image")
    assert re.match(r"prior: folder '.*mine': five\.png: 10 bytes are no image", said())
    (images / "five.png").unlink()
    (images / "five.png").mkdir()
    (images / "cat" / "four.txt").write_bytes(b"\xff\xfe")
    assert re.match(r"prior: .*four\.txt: not UTF-8 at byte 0", said())


def test_a_broken_image_leaves_the_other_classes(images: Path, world: World, asked: list[str]) -> None:
    classes = [PriorClass("object", "dog"), PriorClass("object", "cat")]
    options: dict[str, Any] = {"path": str(images), "choose": "subfolder", "images": 1}
    (images / "cat" / "four.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"four\.png: 10 bytes are no image"):
        world.images("folder", classes, **options)
    assert len(list(layout.folder(world.run, "prior").glob("*.parquet"))) == 1
    (images / "cat" / "four.png").write_bytes(made.png(3))
    asked.clear()
    assert len(world.images("folder", classes, **options)) == 2 and asked == ["cat"]


def test_the_config_looks_into_the_folder(images: Path) -> None:
    section: dict[str, Any] = {"family": "folder", "path": str(images)}
    assert load_config({"prior": section}).prior.model_dump()["choose"] == "caption"
    for changes, said in [
        ({"path": "nowhere"}, r"^prior\.path: 'nowhere' is no folder"),
        ({"choose": "some"}, r"^prior\.choose: 'some'"),
        ({"family": "foldr"}, r"^prior\.family: no family 'foldr', did you mean 'folder'"),
        ({"family": "generated"}, r"^prior\.path: no option of family 'generated'"),
    ]:
        with pytest.raises(InputError, match=said):
            load_config({"prior": section | changes})
    with pytest.raises(InputError, match=r"^prior\.style_prompts: no list 'style_priors', did you mean"):
        load_config({"prior": {"family": "generated", "style_prompts": "style_priors"}})


def test_a_folder_is_noticed_to_have_changed(images: Path) -> None:
    module = families.module("priors", "folder")
    options = families.check("priors", "folder", {"path": str(images)})
    before = module.state(**options)
    assert module.state(**options) == before
    (images / "five.txt").write_text("five dogs")
    assert module.state(**options) != before


@pytest.mark.parametrize("family", ["folder", "captions"])
def test_the_script(family: str, world: World, tmp_path: Path, run_script: Callable[..., None]) -> None:
    exemplars = made.write_exemplars(tmp_path / "exemplars.parquet", made.exemplar_sets())
    captioned = family == "captions"
    run_script(
        "prior",
        input={
            "exemplars": str(exemplars),
            "base_model": [],
            "pool": [str(part) for part in world.material.pool] if captioned else [],
            "excluded": str(world.material.excluded) if captioned else [],
        },
        output={"images": str(tmp_path / "prior.parquet")},
        params={
            "settings": {"family": family} | world.options[family], "run": str(world.run), "seed": 3,
            "image_code": "code",
        },
    )  # fmt: skip
    found = tables.read(tmp_path / "prior.parquet", "prior").to_pylist()
    assert pixels(found) == pixels(world.images(family, read_classes(exemplars)))
    assert {one["seed"] for one in found} == {None}
    assert read_prior_inputs([], [], []) == PriorInputs(pool=[])
