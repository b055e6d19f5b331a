"""A job of `customize_part` in its own process, which a test may kill."""

from __future__ import annotations

import multiprocessing
import os
import runpy
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SCRIPT = Path(__file__).parents[2] / "workflow_scripts" / "customize_part.py"
HEAVY = [
    "torch",
    "diffusers",
    "transformers",
    "attrib_core.diffusion.customization.customize",
    "attrib_core.storage.tables",
]


def start(given: Mapping[str, Any], output: Path, log: Path, most: int | None = None) -> BaseProcess:
    """Start the script as Snakemake would; libraries are imported once, in the server that forks the jobs.

    With `most` it waits, once that many files are in the folder of deltas, until it is killed or the test ends.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*HEAVY, __name__])
    process = context.Process(target=_job, args=(dict(given), str(output), str(log), most))
    process.start()
    return process


class Named(list[str]):
    """Snakemake's wildcards: a list whose entries have names."""

    def __init__(self, **named: str) -> None:
        super().__init__(named.values())
        self.__dict__.update(named)


def _halt_at(deltas: Path, most: int) -> None:
    """Make `Path.replace`, by which every file appears (attrib_core.storage.atomic), wait at a number of files."""
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        found = real(path, target)
        if target.parent == deltas and sum(one.suffix != ".tmp" for one in deltas.iterdir()) >= most:
            parent = multiprocessing.parent_process()
            assert parent is not None
            parent.join()
            os._exit(1)
        return found

    Path.replace = replace  # type: ignore[method-assign]


def _job(given: dict[str, Any], output: str, log: str, most: int | None) -> None:
    if most is not None:
        _halt_at(Path(given["params"]["run"]).parent / "store/deltas", most)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)  # what a job prints is in its log too
    snakemake = SimpleNamespace(
        rule="customize_part",
        input=SimpleNamespace(**given["input"]),
        output=SimpleNamespace(models=output),
        params=SimpleNamespace(**given["params"]),
        wildcards=Named(part="0000"),
        resources={},
        log=[log],
        threads=1,
    )
    runpy.run_path(str(SCRIPT), init_globals={"snakemake": snakemake})
