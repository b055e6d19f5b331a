"""Start, watch, kill and compare runs of the tiny workflow, each in its own process group."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from attrib_core.runtime import snakemake_metadata
from attrib_core.storage.schemas import generation
from attrib_core.storage.store import pieces
from tests.workflow_fixtures import ROOT, VARIABLES_REMOVED

RESULTS = Path("results/tiny")
OTHER_DISKS = """
from pathlib import Path
from attrib_core.runtime import run_lock
from snakemake.cli import main
run_lock.MOUNTS = Path({mounts!r})
main()
"""
MEASURED = generation.MEASURED  # columns and keys of measurements, which differ between runs
RULES = (
    "base_model exemplars prior customize_part synthesize_part sample_part pool_part embed_pool_part embed_queries_part"
    " embed_exemplars tune index rank calibrate measure report"
).split()


def start(
    folder: Path,
    config: Path,
    *arguments: str,
    cores: int = 2,
    out: str = "printed.txt",
    mounts: Path | None = None,
    modules: Path | None = None,
) -> subprocess.Popen[str]:
    """Start Snakemake as the leader of a process group, with its output in a file.

    `mounts` replaces the system's list of file systems; `modules` is a folder on the path of Snakemake and its jobs.
    """
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES_REMOVED}
    if modules is not None:
        environment["PYTHONPATH"] = str(modules)
    where = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--configfile", str(config)]
    program = ["-m", "snakemake"] if mounts is None else ["-c", OTHER_DISKS.format(mounts=str(mounts))]
    command = [sys.executable, *program, *where, "--cores", str(cores), "--nocolor", *arguments]
    with (folder / out).open("w") as printed:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=printed,
            stderr=printed,
            text=True,
            start_new_session=True,
        )


def printed(folder: Path, out: str = "printed.txt") -> str:
    """Return the output of a call so far."""
    return (folder / out).read_text("utf-8", "replace")


def finish(folder: Path, config: Path, *arguments: str) -> str:
    """Call Snakemake until it succeeds; return its output."""
    process = start(folder, config, *arguments)
    try:
        status = process.wait(timeout=1500)
    finally:
        kill_group(process)
    assert status == 0, printed(folder)[-4000:]
    return printed(folder)


def kill_group(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    """Send a signal to Snakemake and all its jobs."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    if number == signal.SIGKILL:
        process.wait(timeout=600)


def _files(folder: Path) -> list[Path]:
    """Return all files below a folder; unlike rglob, this ignores folders that a job removes meanwhile."""
    return [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]


def _stat(path: Path) -> os.stat_result | None:
    """Return the status of a file, None if Snakemake removed it meanwhile, like the log of a job that reruns."""
    with suppress(FileNotFoundError):
        return path.stat()
    return None


def jobs_begun(folder: Path, since: int) -> list[str]:
    """Return the rules of the jobs whose logs were written after a time in nanoseconds."""
    logs = folder / RESULTS / "logs"
    return [
        path.relative_to(logs).parts[0].removesuffix(".log")
        for path in _files(logs)
        if path.suffix == ".log" and (status := _stat(path)) is not None and status.st_mtime_ns > since
    ]


def wait_for(process: subprocess.Popen[str], wanted: Callable[[], Any]) -> Any:
    """Return the first true value of `wanted`; None if Snakemake ends before."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        if found := wanted():
            return found
        if ended:
            return None
        time.sleep(0.01)
    raise AssertionError("nothing happened in 900 s")


def done(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and modification time of all finished files, which change if a file is written again.

    These are models and stored results that have a record, and tables of jobs that Snakemake marked as complete.
    """
    results = folder / RESULTS
    kept = list((results.parent / "store/deltas").glob("*.json"))
    kept += [
        path
        for path in _files(results)
        if path.suffix in (".parquet", ".json", ".safetensors") and _complete(folder, path)
    ]
    statuses = {str(path): _stat(path) for path in kept}
    found = {
        name: (status.st_ino, status.st_mtime_ns) for name, status in statuses.items() if status is not None
    }
    # a piece moves from its own file into that of its part, but records when it was written
    for record in (results.parent / "store").glob("*/*.json"):
        if record.parent.name != "deltas" and (piece := pieces.lookup(record.parent, record.stem)):
            found[str(record)] = (0, piece.written)
    return found


def keyed(finished: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Return the finished models and pieces: no rerun of a rule writes them again while their key is the same."""
    return {path: at for path, at in finished.items() if "/store/" in path}


def _complete(folder: Path, path: Path) -> bool:
    """Return whether Snakemake has metadata of the job that wrote a file, and does not mark it as incomplete."""
    name = Path(*snakemake_metadata.file_parts(str(path.relative_to(folder))))
    complete, incomplete = snakemake_metadata.METADATA / name, snakemake_metadata.INCOMPLETE / name
    return (folder / complete).exists() and not (folder / incomplete).exists()


def contents(folder: Path, results: Path = RESULTS) -> dict[str, Any]:
    """Return the content of all files of a run by path, without measurements of time and memory."""
    found: dict[str, Any] = {}
    deltas = (folder / results.parent / "store/deltas").iterdir()
    for path in sorted([*(folder / results).rglob("*"), *deltas]):
        name = path.relative_to(folder / results.parent).as_posix().removeprefix(f"{results.name}/")
        if (
            path.is_dir()
            or name.startswith(("logs/", "benchmarks/", "records/"))
            or name == "report/stages.csv"
        ):
            continue
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            found[name] = table.drop_columns([name for name in MEASURED if name in table.column_names])
        elif path.suffix == ".json":
            found[name] = {
                key: value for key, value in json.loads(path.read_text()).items() if key not in MEASURED
            }
        elif path.suffix == ".html":
            found[name] = path.read_text().rstrip().endswith("</html>")  # its table of durations differs
        else:
            found[name] = path.read_bytes()
    return found


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Assert that both runs have the same files with the same content; NaN equals NaN."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if name.endswith(".parquet"):
            assert value.schema.equals(other[name].schema, check_metadata=True), name
            pd.testing.assert_frame_equal(
                value.to_pandas(), other[name].to_pandas(), check_exact=True, obj=name
            )
        else:
            assert value == other[name], name


def seconds_of(folder: Path) -> dict[str, float]:
    """Return the mean seconds of a job by rule, from the benchmark files of a run."""
    found: dict[str, list[float]] = {}
    for path in (folder / RESULTS / "benchmarks").rglob("*.tsv"):
        rule = path.relative_to(folder / RESULTS / "benchmarks").parts[0].removesuffix(".tsv")
        with path.open() as stream:
            found.setdefault(rule, []).append(float(next(csv.DictReader(stream, delimiter="\t"))["s"]))
    return {rule: sum(values) / len(values) for rule, values in found.items()}


def leftovers(folder: Path) -> list[Path]:
    """Return unfinished files, which have temporary names."""
    return [path for path in (folder / RESULTS.parent).rglob(".*") if re.fullmatch(r"\..*\.tmp", path.name)]
