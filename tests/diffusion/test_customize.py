"""The stage `customize`: what is stored is not trained again, and what must not change a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.diffusion.customization import customize as part
from attrib_core.diffusion.customization import inputs, training_loop
from attrib_core.diffusion.customization.training_data import EncodedSet
from attrib_core.diffusion.deltas import delta_files
from attrib_core.diffusion.pipeline import description
from attrib_core.storage import tables
from attrib_core.storage.schemas.generation import MEASURED
from attrib_core.storage.store import claims, references
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.diffusion_fixtures import FEW_STEPS, TOKEN, stock_pipeline
from tests.diffusion.training_fixtures import stored_deltas
from tests.storage.claims_fixtures import Holder


def test_style_sets_have_steps_of_their_own(customize: Callable[..., list[dict[str, Any]]]) -> None:
    """And kinds do not share a stack, so the models are the same as in two separate parts."""
    sets = fixtures.exemplar_sets()[3:]
    assert [one.kind for one in sets] == ["object", "style"]
    rows = customize(sets, steps=2, style_steps=3)
    assert [row["steps"] for row in rows] == [2, 3]
    apart = [customize([one], store="apart", steps=2, style_steps=3)[0] for one in sets]
    assert [row["checksum"] for row in rows] == [row["checksum"] for row in apart]


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def test_a_killed_part_resumes_and_ends_the_same(
    customize: Callable[..., list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = fixtures.exemplar_sets()
    undisturbed = customize(sets, store="undisturbed")
    tables.write(tmp_path / "models.parquet", "models", undisturbed)

    trained: list[list[str]] = []
    real = training_loop.train

    def counted(ready: Sequence[EncodedSet], *rest: Any, **named: Any) -> list[training_loop.Trained]:
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append([one.name for one in ready])
        return real(ready, *rest, **named)

    monkeypatch.setattr(training_loop, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        customize(sets)
    assert len(stored_deltas(tmp_path / "run")) == 4
    monkeypatch.setattr(
        training_loop,
        "train",
        lambda ready, *rest, **named: trained.append([]) or real(ready, *rest, **named),
    )
    resumed = customize(sets)
    assert trained == [["object-0", "object-1"], [], []]
    assert stored_deltas(tmp_path / "run") == stored_deltas(tmp_path / "undisturbed")
    assert without_time(resumed) == without_time(undisturbed)
    # a process that has loaded torch needs more than 50 MB
    for row in undisturbed:
        assert row["seconds"] > 0 and row["threads"] == torch.get_num_threads()
        assert 50e6 < row["peak_memory"] < 50e9
        assert row["device"] == "cpu" and row["device_name"]

    # and if nothing is missing, nothing is trained, whatever the order of the sets
    turned = customize(sets[::-1])
    assert len(trained) == 3
    assert turned == resumed[::-1]


@pytest.mark.slow
def test_another_run_with_the_same_settings_trains_nothing(
    customize: Callable[..., list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one with an additional set trains only that; each run notes the models that it refers to."""
    sets = fixtures.exemplar_sets()
    first = customize(sets[:4])
    trained: list[str] = []
    real = training_loop.train

    def counted(ready: Sequence[EncodedSet], *rest: Any, **named: Any) -> Any:
        trained.extend(one.name for one in ready)
        return real(ready, *rest, **named)

    monkeypatch.setattr(training_loop, "train", counted)
    assert customize(sets[:4], run="other") == first and trained == []
    assert customize([sets[4], *sets[:4]], run="other")[1:] == first and trained == ["style-0"]
    for name, number in (("run", 4), ("other", 5)):
        kind, kept = references.by_job(tmp_path / "run" / name)["customize_part/whole"]
        assert kind == "deltas" and len(kept) == number
    for row in first:
        assert (tmp_path / "run" / "other" / row["delta_path"]).is_file()


def test_what_another_job_trains_is_trained_here_only_if_that_was_killed(
    customize: Callable[..., list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = fixtures.exemplar_sets()[:4]
    expected = customize(sets, store="undisturbed")
    folder = tmp_path / "run" / "store" / "deltas"
    folder.mkdir(parents=True)
    held = [expected[0]["model_key"], expected[2]["model_key"]]
    other, trained = Holder(folder, *held), list[list[str]]()
    real = training_loop.train

    def counted(ready: Sequence[EncodedSet], *rest: Any, **named: Any) -> Any:
        trained.append([one.name for one in ready])
        return real(ready, *rest, **named)

    monkeypatch.setattr(training_loop, "train", counted)

    def slept(_: float) -> None:
        for name in (f"{held[1]}.safetensors", f"{held[1]}.token.safetensors", f"{held[1]}.json"):
            (folder / name).write_bytes((tmp_path / "undisturbed/store/deltas" / name).read_bytes())
        other.end()  # one of two is finished

    monkeypatch.setattr(claims.time, "sleep", slept)
    assert without_time(customize(sets)) == without_time(expected)
    assert sorted(trained[-1]) == [sets[0].name]
    assert sorted(name for names in trained for name in names) == sorted(
        one.name for one in sets if one.name != sets[2].name
    )
    assert stored_deltas(tmp_path / "run") == stored_deltas(tmp_path / "undisturbed")


def test_a_damaged_delta_is_made_again(
    customize: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    sets = fixtures.exemplar_sets()[:2]
    rows = customize(sets)
    before = stored_deltas(tmp_path / "run")
    path = tmp_path / "run" / "run" / rows[0]["delta_path"]
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    (tmp_path / "run" / "run" / rows[1]["token_path"]).unlink()
    assert without_time(customize(sets)) == without_time(rows)
    assert stored_deltas(tmp_path / "run") == before


@pytest.mark.slow
def test_part_size_changes_nothing(customize: Callable[..., list[dict[str, Any]]]) -> None:
    sets = fixtures.exemplar_sets()
    whole = customize(sets, store="whole")
    pieces = [
        row
        for start in (0, 1, 4)
        for row in customize(sets[start : {0: 1, 1: 4, 4: 5}[start]], store="pieces")
    ]
    assert without_time(whole) == without_time(pieces)


def test_the_key_holds_all_that_a_model_depends_on() -> None:
    one = fixtures.exemplar_sets()[0]
    base: dict[str, Any] = {
        "one": one,
        "base": "b",
        "conditions": {"x": 1},
        "prior_digests": {("object", "fruit"): "p"},
    }
    changes: list[dict[str, Any]] = [
        {"one": replace(one, images={"object-0.0": fixtures.png(77)})},
        {"one": replace(one, name="other")},
        {"one": replace(one, category="animal")},
        {"base": "c"},
        {"conditions": {"x": 2}},
        {"prior_digests": {("object", "fruit"): "q"}},
    ]
    found = {part.model_key(**base), *(part.model_key(**(base | change)) for change in changes)}
    assert len(found) == len(changes) + 1
    assert (
        part.model_key(**(base | {"prior_digests": {("object", "fruit"): "p", ("style", "art"): "z"}}))
        in found
    )


def test_without_prior_images(customize: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    rows = customize([replace(fixtures.exemplar_sets()[0], category="tool")], prior_batch=0)
    assert rows[0]["method"] == "custom_diffusion" and np.isfinite(rows[0]["loss"])


def test_stock_diffusers_loads_a_delta(
    customize: Callable[..., list[dict[str, Any]]], tiny_base: Path, tmp_path: Path
) -> None:
    row = customize(fixtures.exemplar_sets()[:1])[0]
    run = tmp_path / "run" / "run"
    files = run / row["delta_path"], run / row["token_path"]
    delta = delta_files.read(*files, TOKEN, row["checksum"])
    pipe = stock_pipeline(tiny_base)
    delta_files.load_into(pipe, *files, TOKEN)
    state = pipe.unet.state_dict()
    assert len(delta.weights) == 8 and all(
        torch.equal(state[key], value) for key, value in delta.weights.items()
    )
    with pytest.raises(InputError, match="no weight of the UNet has changed"):
        delta_files.load_into(pipe, *files, TOKEN)


def test_the_scripts(tiny_base: Path, tmp_path: Path, run_script: Callable[..., None]) -> None:
    sets = fixtures.exemplar_sets()
    exemplars = fixtures.write_exemplars(tmp_path / "exemplars.parquet", sets)
    base, images, models = (
        tmp_path / name for name in ("base_model.json", "prior.parquet", "models.parquet")
    )
    tables.write_json(base, description.describe(tiny_base).as_json())
    run_script(
        "prior",
        input={"exemplars": str(exemplars), "base_model": str(base), "pool": [], "excluded": []},
        output={"images": str(images)},
        params={
            "settings": {"family": "generated", "images": 2, "steps": 2, "guidance": 2.0},
            "run": str(tmp_path / "results" / "run"),
            "seed": 1,
            "image_code": "x",
        },
    )
    assert tables.read(images, "prior").num_rows == 6
    checked = families.check("customizers", "custom_diffusion", FEW_STEPS)
    run_script(
        "customize_part",
        input={"exemplars": str(exemplars), "prior": str(images), "base_model": str(base)},
        output={"models": str(models)},
        params={
            "run": str(tmp_path / "results" / "run"),
            "cut": {"exemplar_sets": 3},
            "settings": {"family": "custom_diffusion"} | checked,
            "seed": 1,
            "model_code": "x",
        },
        wildcards={"part": "0001"},
    )
    table = tables.read(models, "models")
    assert table["exemplar_set"].to_pylist() == ["object-3", "style-0"]
    assert all((tmp_path / "results" / "run" / path).exists() for path in table["token_path"].to_pylist())


def test_a_part_that_does_not_exist(tmp_path: Path) -> None:
    path = fixtures.write_exemplars(tmp_path / "exemplars.parquet", fixtures.exemplar_sets())
    assert [one.name for one in inputs.read_part(path, 2, 2)] == ["style-0"]
    assert len(inputs.read_part(path, 2, 2)[0].images) == 3
    with pytest.raises(InputError, match="part 3 of 2 sets asked, but it has 5 sets"):
        inputs.read_part(path, 3, 2)
