"""Fixtures of the tests of diffusion: a tiny base model, encoded sets, and what the stages read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from attrib_core.common import families
from attrib_core.diffusion.customization import customize as stage
from attrib_core.diffusion.customization.prior_protocol import PriorInputs, PriorSource
from attrib_core.diffusion.customization.training_data import EncodedSet, ExemplarSet
from attrib_core.diffusion.deltas import delta_files
from attrib_core.diffusion.pipeline import components, description
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.diffusion.synthesis import synthesize as synthesis
from tests.diffusion.diffusion_fixtures import (
    FEW_STEPS,
    TOKEN,
    exemplar_sets,
    png,
    prompt_rows,
    random_delta,
    save_base,
    write_prior,
)
from tests.diffusion.priors_fixtures import COUNT, NOUNS, World, pool_rows, write_pool
from tests.diffusion.synthesis_fixtures import OPTIONS, SETS
from tests.diffusion.training_fixtures import encode_sets


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained base model; tests only read it."""
    return save_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def loaded(tiny_base: Path) -> Components:
    """The components of the base model, with the modifier token; for one module, since tests replace its layers."""
    return components.with_token(components.load(description.describe(tiny_base), "cpu"), TOKEN)


@pytest.fixture(scope="session")
def prior_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table `prior` of random images for the classes of `exemplar_sets`."""
    classes = sorted({(one.kind, one.category) for one in exemplar_sets()})
    return write_prior(tmp_path_factory.mktemp("prior") / "images.parquet", classes)


@pytest.fixture(scope="module")
def encoded_sets(loaded: Components, prior_file: Path) -> list[EncodedSet]:
    """All of `exemplar_sets`, ready for training."""
    return encode_sets(loaded, prior_file, exemplar_sets())


@pytest.fixture
def customize(tiny_base: Path, prior_file: Path, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Runs the stage on given sets in `tmp_path/<store>/<run>`, with few steps unless options say otherwise."""

    def run(
        sets: Sequence[ExemplarSet],
        store: str = "run",
        run: str = "run",
        *,
        family: str = "custom_diffusion",
        base: Path = tiny_base,
        token: str = TOKEN,
        **options: Any,
    ) -> list[dict[str, Any]]:
        return stage.customize(
            sets,
            prior_file,
            description.describe(base),
            settings={"family": family} | FEW_STEPS | options,
            modifier_token=token,
            run=tmp_path / store / run,
            seed=4,
            code="code",
            device="cpu",
        )

    return run


@pytest.fixture
def world(tiny_base: Path, tmp_path: Path) -> World:
    """A pool, a folder of images and a base model, and options of every family of prior images."""
    images = tmp_path / "images"
    for number in range(15):
        file = images / f"{number % 5}" / f"{NOUNS[number % 3]} {number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number))
    (tmp_path / "style.txt").write_text("red {category}\nblue {category}\n{category}\n")
    inputs = write_pool(tmp_path / "pool", pool_rows(), size=25)
    options: dict[str, dict[str, Any]] = {
        "generated": {"images": COUNT, "steps": 2, "style_prompts": str(tmp_path / "style.txt")},
        "folder": {"images": COUNT, "path": str(images)},
        "captions": {"images": COUNT},
    }
    return World(replace(inputs, base=description.describe(tiny_base)), options, tmp_path / "run")


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The classes whose images families were asked for, in order; a test may read and clear it."""
    found: list[str] = []
    real = families.load

    class Counted:
        def __init__(self, source: PriorSource) -> None:
            self.source, self.plan = source, source.plan

        def encoded_images(self, sets: Any, inputs: PriorInputs) -> Iterator[bytes]:
            found.extend(one.category for one in sets)
            return self.source.encoded_images(sets, inputs)

    def load(kind: str, *given: Any, **named: Any) -> Any:
        loaded = real(kind, *given, **named)
        return Counted(loaded) if kind == "priors" else loaded

    monkeypatch.setattr(families, "load", load)
    return found


@pytest.fixture
def models(loaded: Components, tmp_path: Path) -> list[dict[str, Any]]:
    """Rows of the table `models` for three sets, with their files in `tmp_path`."""
    (tmp_path / "run").mkdir()
    rows = []
    for number, one in enumerate(SETS):
        checksum = delta_files.write(
            tmp_path / "store" / "deltas", f"key-{number}", random_delta(loaded, number), TOKEN
        )
        delta_path, token_path = delta_files.paths(Path("../store/deltas"), f"key-{number}")
        rows.append(
            {
                "model_key": f"key-{number}",
                "exemplar_set": one.name,
                "method": "custom_diffusion",
                "base_model": loaded.base.fingerprint,
                "modifier_token": TOKEN,
                "delta_path": str(delta_path),
                "token_path": str(token_path),
                "checksum": checksum,
                "steps": 1,
                "loss": 0.0,
                "seconds": 0.0,
                "peak_memory": 1,
                "threads": 1,
                "device": "cpu",
                "device_name": "AMD EPYC",
            }
        )
    return rows


@pytest.fixture
def synthesize(loaded: Components, tmp_path: Path) -> Callable[..., pa.Table]:
    """Runs the stage in a folder of the test and returns one table; images are not kept unless `keep` is True."""

    def run(models: Sequence[dict[str, Any]], keep: bool = False, **changes: Any) -> pa.Table:
        prompts = changes.pop("prompts", prompt_rows(SETS))
        base = changes.pop("base", loaded.base)
        given = {**OPTIONS, "run": tmp_path / "run", **changes}
        made_tables = synthesis.synthesize(models, prompts, base, **given, seed=9, code="code", device="cpu")
        found = pa.concat_tables(table for _, table in made_tables)
        if not keep:
            for piece in tmp_path.glob("store/synthesized/*"):
                piece.unlink()
        return found

    return run
