"""A full disk of Snakemake or of the results is one line, and finished work is kept."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.workflow import kill_fixtures as run
from tests.workflow_fixtures import TINY, own_lines, snakemake, tail


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of 32 MB, at the path of the parameter."""
    folder = tmp_path / request.param
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk could be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Write a file that takes all remaining space."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    return filler


@contextmanager
def kept_full(disk: Path) -> Iterator[None]:
    """Take all space that becomes free: the space of a removed script would be enough for the next one."""
    ended = threading.Event()

    def take() -> None:
        with (disk / "filler").open("ab", buffering=0) as stream:
            while not ended.is_set():
                with suppress(OSError):
                    stream.write(bytes(4096))

    taker = threading.Thread(target=take)
    taker.start()
    try:
        yield
    finally:
        ended.set()
        taker.join()


@pytest.mark.slow
@pytest.mark.parametrize("small_disk", ["results", ".snakemake"], indirect=True)
def test_a_disk_that_is_full_at_the_start_is_one_line(small_disk: Path, tmp_path: Path) -> None:
    filler = fill(small_disk)
    refused = snakemake(tmp_path, TINY, "base_model", "--quiet", "all")
    assert refused.returncode == 1
    (line,) = own_lines(refused)
    place = rf"({re.escape(str(tmp_path))}/)?{re.escape(small_disk.name)}/\S+"
    assert re.match(rf"Error: {place}: no room left \(disk\); make room, or ", line), line
    filler.unlink()
    again = snakemake(tmp_path, TINY, "base_model")
    assert again.returncode == 0, tail(again)
    assert (tmp_path / "results/tiny/base_model.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("small_disk", ["results/.metadata"], indirect=True)
def test_a_full_disk_of_snakemakes_metadata_is_the_last_line(small_disk: Path, tmp_path: Path) -> None:
    """Snakemake then ends with an error of its own, which no job logs."""
    process = run.start(tmp_path, TINY, "base_model", cores=1)
    try:
        assert run.wait_for(process, lambda: any(tmp_path.glob("results/tiny/logs/*.log")))
        filler = fill(small_disk)
        assert process.wait(timeout=300) == 1
    finally:
        run.kill_group(process)
    words = [line for line in run.printed(tmp_path).splitlines() if line.strip()][-1]
    assert re.fullmatch(
        rf"error: {re.escape(str(small_disk))}: no room left \(disk\); make room, .*", words
    ), words
    filler.unlink()
    run.finish(tmp_path, TINY, "base_model")


@pytest.mark.slow
@pytest.mark.parametrize("small_disk", [".snakemake"], indirect=True)
def test_a_disk_of_snakemake_that_fills_during_a_job_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    target = "results/tiny/exemplars.parquet"
    process = run.start(tmp_path, TINY, target, cores=1)
    try:
        results = tmp_path / "results/tiny"
        assert run.wait_for(
            process, lambda: any(results.rglob("*.tsv"))
        )  # the first of four jobs is finished
        filler = fill(small_disk)
        with kept_full(small_disk):
            assert process.wait(timeout=600) == 1
    finally:
        run.kill_group(process)
    words = [line for line in run.printed(tmp_path).splitlines() if line.strip()][-1]
    assert re.match(
        rf"\[\w+.*\] error: {re.escape(str(small_disk))}: no room left \(disk\); make room", words
    ), words
    kept = {path: path.stat().st_mtime_ns for path in results.rglob("*.parquet")}
    filler.unlink()
    run.finish(tmp_path, TINY, target)
    finished = {path: path.stat().st_mtime_ns for path in results.rglob("*.parquet")}
    assert results.joinpath("exemplars.parquet") in finished
    assert kept.items() <= finished.items()
