"""The contract of a family of prior images, tested with every family; generated images; the script."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attrib_core.common import families
from attrib_core.diffusion.customization import prior_images
from attrib_core.diffusion.customization.inputs import read_classes, read_prior_inputs
from attrib_core.diffusion.customization.prior_protocol import PriorInputs
from attrib_core.diffusion.pipeline import description
from attrib_core.storage import tables
from attrib_core.storage.store import layout, pieces
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.priors_fixtures import (
    ANIMAL,
    ART,
    COUNT,
    FRUIT,
    NOUNS,
    World,
    pixels,
)
from tests.files_fixtures import rewrite


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

    def test_other_classes_order_and_run_change_nothing(
        self, family: str, world: World, tmp_path: Path
    ) -> None:
        whole = pixels(world.images(family, [ANIMAL, FRUIT, ART]))
        turned = pixels(world.images(family, [ART, ANIMAL], run=tmp_path / "turned" / "run"))
        alone = pixels(world.images(family, [FRUIT], run=tmp_path / "alone" / "run"))
        assert turned == whole[2 * COUNT :] + whole[:COUNT]
        assert alone == whole[COUNT : 2 * COUNT]

    def test_stored_classes_are_kept_and_only_an_additional_class_is_made(
        self, family: str, world: World, requested: list[str]
    ) -> None:
        first = world.images(family, [ANIMAL, FRUIT])
        assert requested == ["animal", "fruit"]
        more = world.images(family, [ANIMAL, ART, FRUIT])
        assert requested == ["animal", "fruit", "art"]
        assert more[:COUNT] + more[2 * COUNT :] == first
        assert world.images(family, [ANIMAL, ART, FRUIT]) == more and len(requested) == 3

    def test_a_damaged_class_is_made_again(self, family: str, world: World, requested: list[str]) -> None:
        whole = world.images(family, [ANIMAL, FRUIT])
        pieces = sorted(layout.folder(world.run, "prior").glob("*.parquet"))
        assert len(pieces) == 2
        damaged = bytearray(pieces[0].read_bytes())
        damaged[len(damaged) // 2] ^= 1
        rewrite(pieces[0], damaged)
        pieces[1].with_suffix(".json").unlink()  # as after a kill between the two
        requested.clear()
        assert world.images(family, [ANIMAL, FRUIT]) == whole
        assert sorted(requested) == ["animal", "fruit"]

    def test_a_killed_job_resumes(
        self, family: str, world: World, requested: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        whole = world.images(family, [ANIMAL, FRUIT, ART])
        requested.clear()
        settings = {"family": family} | world.options[family]
        given: dict[str, Any] = {
            "run": tmp_path / "killed" / "run",
            "seed": 3,
            "code": "code",
            "device": "cpu",
        }
        real = pieces.write

        def killed(*written: Any) -> None:
            if requested == ["killed"]:
                raise KeyboardInterrupt
            requested[:] = ["killed"]
            real(*written)

        with monkeypatch.context() as patched:
            patched.setattr(pieces, "write", killed)
            with pytest.raises(KeyboardInterrupt):  # after the first class
                list(prior_images.images([ANIMAL, FRUIT, ART], settings, world.inputs, **given))
        requested.clear()
        assert world.images(family, [ANIMAL, FRUIT, ART], run=tmp_path / "killed" / "run") == whole
        assert requested == ["fruit", "art"]

    def test_settings_seed_of_code_and_content_are_in_the_key(
        self, family: str, world: World, requested: list[str]
    ) -> None:
        world.images(family, [ANIMAL])
        world.images(family, [ANIMAL], images=2)
        settings = {"family": family} | world.options[family]
        given: dict[str, Any] = {"run": world.run, "seed": 3, "device": "cpu"}
        assert len(list(prior_images.images([ANIMAL], settings, world.inputs, code="other", **given))) == 1
        assert requested == ["animal"] * 3

    def test_without_prior_images_nothing_is_opened(self, family: str, tmp_path: Path) -> None:
        nothing = prior_images.images(
            [ANIMAL], None, PriorInputs(), run=tmp_path / "run", seed=3, code="x", device="cpu"
        )
        assert list(nothing) == [] and not list(tmp_path.iterdir())


def test_generated_images_do_not_depend_on_their_batch(world: World) -> None:
    source = world.source("generated")
    planned = source.plan([ANIMAL, FRUIT, ART], world.inputs)
    assert len({one["prompt"] for one in planned[0].rows}) == 3
    assert len({one["seed"] for planned_one in planned for one in planned_one.rows}) == 9
    longer = world.source("generated", images=30).plan([FRUIT], world.inputs)[0]
    assert longer.rows[:3] == planned[1].rows
    in_fours = replace(source, batch=4)  # type: ignore[type-var]
    whole = list(in_fours.encoded_images(planned, world.inputs))
    assert list(in_fours.encoded_images(planned[1:], world.inputs)) == whole[3:]


def test_generated_images_depend_on_the_base(world: World, tiny_base: Path) -> None:
    base = description.describe(tiny_base)
    one = world.source("generated").plan([ANIMAL], world.inputs)[0]
    other = replace(world.inputs, base=replace(base, fingerprint="other"))
    assert world.source("generated").plan([ANIMAL], other)[0].content != one.content
    assert world.source("generated", eta=0.5).plan([ANIMAL], world.inputs)[0].content != one.content


@pytest.mark.parametrize("family", ["folder", "captions"])
def test_the_script(family: str, world: World, tmp_path: Path, run_script: Callable[..., None]) -> None:
    exemplars = fixtures.write_exemplars(tmp_path / "exemplars.parquet", fixtures.exemplar_sets())
    captioned = family == "captions"
    run_script(
        "prior",
        input={
            "exemplars": str(exemplars),
            "base_model": [],
            "pool": [str(part) for part in world.inputs.pool] if captioned else [],
            "excluded": str(world.inputs.excluded) if captioned else [],
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
