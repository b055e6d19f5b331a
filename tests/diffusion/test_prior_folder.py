"""Prior images from a folder: which are chosen, and what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.config.load import load_config
from attrib_core.diffusion.customization.prior_protocol import PriorClass, PriorInputs
from attrib_core.storage.store import layout
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.priors_fixtures import (
    World,
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images below folders of nouns, some of them with captions."""
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
        file.write_bytes(fixtures.png(number))
        if caption:
            file.with_suffix(".txt").write_text(caption + "\n")
    return tmp_path / "mine"


def taken(images: Path, /, **options: Any) -> dict[str, str]:
    """Captions of the chosen images of class "dog", by file."""
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
    (images / "aaa.png").write_bytes(fixtures.png(50))
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
    assert re.match(r"prior: folder '.*mine': five\.png: 8 bytes are no image", said())
    Image.new("RGB", (64, 64), "white").save(images / "five.png")
    assert re.match(r"prior: folder '.*mine': five\.png: blank: every pixel is white", said())
    (images / "five.png").unlink()
    (images / "five.png").mkdir()
    (images / "cat" / "four.txt").write_bytes(b"\xff")
    assert re.match(r"prior: .*cat/four\.png: caption: four\.txt: not UTF-8 at byte 0", said())


def test_a_broken_image_leaves_the_other_classes(images: Path, world: World, requested: list[str]) -> None:
    classes = [PriorClass("object", "dog"), PriorClass("object", "cat")]
    options: dict[str, Any] = {"path": str(images), "choose": "subfolder", "images": 1}
    (images / "cat" / "four.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"four\.png: 8 bytes are no image"):
        world.images("folder", classes, **options)
    assert len(list(layout.folder(world.run, "prior").glob("*.parquet"))) == 1
    (images / "cat" / "four.png").write_bytes(fixtures.png(3))
    requested.clear()
    assert len(world.images("folder", classes, **options)) == 2 and requested == ["cat"]


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
