"""SIGKILL at random moments of a part of 24 sets: the deltas are the same, and no finished one is trained again."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attrib_core.common import families
from attrib_core.diffusion.customization import train_stack
from attrib_core.diffusion.customization.training_data import ExemplarSet
from attrib_core.diffusion.pipeline import description
from attrib_core.storage import tables
from attrib_core.storage.schemas.generation import MEASURED
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.kill_job_fixtures import start

SETS, STACK, KILLS = 24, 4, 10
FILES_A_SET = 3  # delta, token, record
PATIENCE = 600.0  # seconds until a job that makes no progress is a failure


def sets() -> list[ExemplarSet]:
    """Twenty object sets and four style sets, each with different images."""
    objects, styles = fixtures.exemplar_sets()[:4], fixtures.exemplar_sets()[4]
    found = [
        replace(
            objects[number % 4],
            name=f"object-{number}",
            images={f"object-{number}.0": fixtures.png(200 + number)},
        )
        for number in range(SETS - 4)
    ]
    for number in range(4):
        images = {
            f"style-{number}.{position}": fixtures.png(300 + 2 * number + position) for position in (0, 1)
        }
        found.append(replace(styles, name=f"style-{number}", images=images))
    return found


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Inputs and params of the part, except for the folder of the run."""
    folder = tmp_path_factory.mktemp("kill")
    exemplars = fixtures.write_exemplars(folder / "exemplars.parquet", sets())
    classes = sorted({(one.kind, one.category) for one in sets()})
    prior = fixtures.write_prior(folder / "prior.parquet", classes)
    base = folder / "base_model.json"
    tables.write_json(base, description.describe(fixtures.save_base(folder / "tiny")).as_json())
    options = {
        "steps": 4,
        "style_steps": 5,
        "exemplar_batch": 1,
        "prior_batch": 1,
        "views": 2,
        "stack": STACK,
    }
    settings = {"family": "custom_diffusion"} | families.check("customizers", "custom_diffusion", options)
    return {
        "input": {"exemplars": str(exemplars), "prior": str(prior), "base_model": str(base)},
        "params": {"cut": {"exemplar_sets": SETS}, "settings": settings, "seed": 1, "model_code": "x"},
    }


class Run:
    """The folder of a run in which the part is started, once or repeatedly; each start has its own log."""

    def __init__(self, folder: Path, given: Mapping[str, Any]) -> None:
        self.folder, self.deltas, self.models = folder, folder / "store/deltas", folder / "models.parquet"
        self.given = {"input": given["input"], "params": given["params"] | {"run": str(folder / "run")}}
        self.starts = 0

    def start(self, most: int | None = None) -> Any:
        self.starts += 1
        self.folder.mkdir(exist_ok=True)
        return start(self.given, self.models, self.log, most)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.starts}.log"

    def visible(self) -> int:
        """The number of files under their final names."""
        return sum(path.suffix != ".tmp" for path in self.deltas.iterdir()) if self.deltas.exists() else 0

    def finished(self) -> dict[str, tuple[tuple[int, int, int], ...]]:
        """Inode, size and modification time of the files of each finished model, by its key."""
        keys = [path.stem for path in self.deltas.glob("*.json")] if self.deltas.exists() else []
        return {
            key: tuple(
                (status.st_ino, status.st_size, status.st_mtime_ns)
                for status in (path.stat() for path in sorted(self.deltas.glob(f"{key}.*")))
            )
            for key in keys
            if train_stack.finished(self.deltas, key)
        }

    def trained(self) -> int:
        """The number of sets in the stacks that the last start finished training, from its log."""
        text = self.log.read_text() if self.log.exists() else ""
        return sum(int(sets) for sets in re.findall(r"\d+ steps of (\d+) sets in ", text))

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.deltas.glob("*.safetensors")}

    def rows(self) -> list[dict[str, Any]]:
        table = tables.read(self.models, "models")
        return table.drop_columns(list(MEASURED)).to_pylist()


@pytest.mark.slow
def test_ten_kills_change_no_delta_and_train_nothing_twice(tmp_path: Path, given: dict[str, Any]) -> None:
    undisturbed = Run(tmp_path / "undisturbed", given)
    process = undisturbed.start()
    while not undisturbed.visible():
        assert process.is_alive(), undisturbed.log.read_text()
        time.sleep(0.001)
    began = time.monotonic()
    process.join(PATIENCE)
    assert process.exitcode == 0 and undisturbed.trained() == SETS == len(undisturbed.finished())
    stack_seconds = (time.monotonic() - began) / (SETS / STACK - 1)

    # A moment is given by a number of files and some time after it. A job waits before the last stack, so that
    # none ends before it is killed, however late that is.
    rng = np.random.default_rng(2306)
    counts = np.sort(rng.integers(0, (SETS - STACK) * FILES_A_SET, KILLS)).tolist()
    delays = np.where(rng.uniform(size=KILLS) < 0.5, 0, rng.uniform(0, 0.5 * stack_seconds, KILLS)).tolist()
    killed = Run(tmp_path / "killed", given)
    kept: dict[str, tuple[tuple[int, int, int], ...]] = {}
    trained = lost = 0
    for count, delay in zip(counts, delays, strict=True):
        process = killed.start(most=(SETS - STACK) * FILES_A_SET)
        began = time.monotonic()
        while killed.visible() < max(count, 1):
            assert process.is_alive() and time.monotonic() - began < PATIENCE, killed.log.read_text()
            time.sleep(0.0005)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not killed.models.exists()
        now = killed.finished()
        # what was finished before is the very same file: it was not written, so not trained, again
        assert {key: now[key] for key in kept} == kept
        # a start loses at most the stack that it was writing
        assert 0 <= killed.trained() - (len(now) - len(kept)) <= STACK
        trained += killed.trained()
        lost += killed.trained() - (len(now) - len(kept))
        kept = now
    assert 0 < len(kept) < SETS

    process = killed.start()
    process.join(PATIENCE)
    assert process.exitcode == 0, killed.log.read_text()
    assert killed.trained() == SETS - len(kept)
    assert trained + killed.trained() == SETS + lost
    now = killed.finished()
    assert len(now) == SETS and {key: now[key] for key in kept} == kept
    assert killed.contents() == undisturbed.contents() and len(killed.contents()) == 2 * SETS
    assert killed.rows() == undisturbed.rows()

    # and a start with nothing to do trains nothing
    process = killed.start()
    process.join(PATIENCE)
    assert process.exitcode == 0 and killed.trained() == 0 and killed.finished() == now
