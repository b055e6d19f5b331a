"""The workflow on a real Slurm (tests/workflow/slurm/cluster.py): growing memory, one GPU per job, kills."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.device_fixtures import STAYING, begun, overlaps, sleepers, spans_of
from tests.workflow import kill_fixtures as run
from tests.workflow.slurm import cluster
from tests.workflow_fixtures import ROOT, VARIABLES_REMOVED, config_file

pytestmark = pytest.mark.slow
PATIENCE = 600.0
TOO_LITTLE, ENOUGH = 400, 4000  # MB: importing torch takes more than 400
# The plugin waits ten seconds longer after each check that found no finished job. A test checks every second.
IMPATIENT = """
from snakemake_executor_plugin_slurm import Executor
Executor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, seconds: None)
from snakemake.cli import main
main()
"""


@pytest.fixture(scope="module", autouse=True)
def slurm() -> Iterator[None]:
    """A Slurm with four fake GPUs, which ends with the tests even if these are killed."""
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("no snakemake-executor-plugin-slurm: pip install 'attrib-core[slurm]'")
    if (reason := cluster.unavailable()) is not None:
        pytest.skip(f"no Slurm: {reason}")
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:  # a short path, for sockets
        command = [sys.executable, cluster.__file__, f"{folder}/state"]
        keeper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert keeper.stdin is not None and keeper.stdout is not None and keeper.stderr is not None
        try:
            if keeper.stdout.readline() != "ready\n":
                pytest.skip(f"no Slurm: {keeper.stderr.read().strip()}")
            yield
        finally:
            keeper.stdin.close()
            keeper.wait(timeout=120)


def start(folder: Path, *arguments: str, snakefile: Path) -> subprocess.Popen[str]:
    """Start Snakemake with profiles/slurm, like `kill_fixtures.start`; its output is appended to printed.txt."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES_REMOVED}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    where = [
        "--snakefile",
        str(snakefile),
        "--directory",
        str(folder),
        "--profile",
        str(ROOT / "profiles/slurm"),
    ]
    command = [sys.executable, "-c", IMPATIENT, *where, "--nocolor", *arguments]
    with (folder / "printed.txt").open("a") as out:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=out, text=True, start_new_session=True
        )


def squeue(states: str = "running") -> list[list[str]]:
    """Return the jobs in some states: number, comment ("rule_tune_wildcards_pixel_..."), state, requested memory."""
    command = ["squeue", f"--states={states}", "--noheader", "--format=%i|%k|%T|%m"]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return [line.split("|") for line in output.splitlines()]


def test_the_tiny_workflow_survives_lack_of_memory_and_kills(tmp_path: Path) -> None:
    """The results are those of a local run to the byte.

    Training gets too little memory at first; Slurm ends it and the second attempt has more. Then Snakemake is
    killed. The same command continues, one of its jobs is cancelled, and it succeeds.
    """
    folder, local = tmp_path / "slurm", tmp_path / "local"
    folder.mkdir()
    local.mkdir()
    config = config_file(
        tmp_path / "tiny.yaml",
        parts={"exemplar_sets": 8},
        mapper={"trained_on": ["both"]},
    )
    arguments = ["--configfile", str(config), "--jobs", "4"]
    grown = f"customize_part:mem_mb={TOO_LITTLE} * {ENOUGH // TOO_LITTLE} ** (attempt - 1)"
    arguments += ["--set-resources", grown]

    def call() -> subprocess.Popen[str]:
        return start(folder, *arguments, snakefile=ROOT / "Snakefile")

    def running(rule: str) -> str | None:
        return next((number for number, job, *_ in squeue() if job.startswith(f"rule_{rule}")), None)

    process = call()
    try:
        assert run.wait_for(process, lambda: running("synthesize_part")), run.printed(folder)[-4000:]
        process.kill()
        process.wait()
        trained = [
            (state, memory) for _, job, state, memory in squeue("all") if job.startswith("rule_customize")
        ]
        assert sorted(trained) == [("COMPLETED", f"{ENOUGH}M"), ("FAILED", f"{TOO_LITTLE}M")]
        [log] = (folder / ".snakemake/slurm_logs/rule_customize_part").rglob("*.log")
        assert "exceeded memory limit" in log.read_text()
        kept = run.keyed(run.done(folder))
        assert kept

        process = call()
        cancelled = run.wait_for(process, lambda: running("rank"))
        assert cancelled, run.printed(folder)[-4000:]
        subprocess.run(["scancel", cancelled], check=True, timeout=60)
        assert process.wait(timeout=PATIENCE) == 0, run.printed(folder)[-4000:]
        assert [job[2] for job in squeue("all") if job[0] == cancelled] == ["CANCELLED"]
    finally:
        run.kill_group(process)
    assert kept.items() <= run.done(folder).items()
    assert not run.leftovers(folder)
    run.finish(local, config)
    run.same(run.contents(folder), run.contents(local))


def test_twelve_jobs_on_four_devices_never_share_one_even_when_some_are_killed(tmp_path: Path) -> None:
    """Slurm assigns the devices, no job claims one. Two jobs are cancelled, two are killed, and all are retried."""
    killed = []
    with sleepers(tmp_path):
        process = start(tmp_path, snakefile=tmp_path / "Snakefile")
        try:
            for name in STAYING:  # finally they hold all four devices
                found = run.wait_for(process, lambda name=name: begun(tmp_path, name))
                assert found, run.printed(tmp_path)[-4000:]
            for name in STAYING:
                [(number, held, begin)] = begun(tmp_path, name)
                killed.append(f"{held} {begin} {time.time()}\n")
                if name in "03":
                    job = next(
                        job for job, comment, *_ in squeue() if comment == f"rule_sleep_wildcards_{name}"
                    )
                    subprocess.run(["scancel", job], check=True, timeout=60)
                else:
                    os.kill(number, signal.SIGKILL)
            assert process.wait(timeout=PATIENCE) == 0, run.printed(tmp_path)[-4000:]
        finally:
            run.kill_group(process)
    spans = spans_of((tmp_path / "spans").read_text() + "".join(killed))
    assert set(spans) == {"0", "1", "2", "3"}
    assert sum(map(len, spans.values())) == 12 + len(killed)
    assert not overlaps(spans)
    assert not any("holding GPU" in path.read_text() for path in (tmp_path / "logs").glob("*.log"))
