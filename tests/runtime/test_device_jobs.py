"""Twelve jobs on four devices: never two on one, all four used, also after kills."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time

import pytest

from tests.runtime.device_fixtures import HOLD, STAYING, begun, fake_gpus, overlaps, sleepers, spans_of, start
from tests.workflow import kill_fixtures

CLAIM_AND_PRINT = """
import os, sys, time
from attrib_core.runtime import devices
assert "torch" not in sys.modules
name = devices.claim(patience=600)
assert os.environ["CUDA_VISIBLE_DEVICES"] == name
begin = time.time()
print(name, flush=True)
sys.stdin.readline()
print(name, begin, time.time(), flush=True)
"""


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Four fake GPUs, locks in a folder of the test."""
    yield from fake_gpus("0,1,2,3", tmp_path / "locks", monkeypatch)


def test_twelve_jobs_on_four_devices_never_share_one_even_when_some_are_killed(environment):
    """Four of the jobs hold their device until they are killed; the kernel releases it for the eight others.

    One device is released at a time, so a waiting job gets that one.
    """
    holders = [start(HOLD) for _ in range(4)]
    held = [holder.stdout.readline().strip() for holder in holders if holder.stdout is not None]
    assert sorted(held) == ["0", "1", "2", "3"]
    waiting = selectors.DefaultSelector()
    for process in [start(CLAIM_AND_PRINT) for _ in range(8)]:
        assert process.stdout is not None
        waiting.register(process.stdout, selectors.EVENT_READ, process)

    def next_one() -> tuple[str, subprocess.Popen[str]]:
        """Return the device of the next job that got one, and its process."""
        found = waiting.select(timeout=600)
        assert len(found) == 1, "one device was released"
        process = found[0][0].data
        waiting.unregister(process.stdout)
        return process.stdout.readline().strip(), process

    killed: dict[str, float] = {}
    working = []
    for name, holder in zip(held, holders, strict=True):
        killed[name] = time.time()
        holder.kill()
        holder.wait()
        got, process = next_one()
        assert got == name
        working.append(process)
    printed = ""
    for _ in range(8):
        process = working.pop(0)
        out, _ = process.communicate("\n", timeout=600)
        assert process.returncode == 0
        printed += out
        if waiting.get_map():
            got, process = next_one()
            assert out.split()[0] == got
            working.append(process)
    spans = spans_of(printed)
    assert {name: len(own) for name, own in spans.items()} == {"0": 2, "1": 2, "2": 2, "3": 2}
    assert not overlaps(spans)
    assert all(killed[name] <= spans[name][0][0] for name in spans), (killed, spans)


@pytest.mark.slow
def test_snakemake_with_four_devices_and_kills(environment, tmp_path):
    """Twelve real jobs, `--resources gpu=4`. Four that never end are killed, as if memory ran out."""
    command = [sys.executable, "-m", "snakemake", "--cores", "12", "--resources", "gpu=4", "--keep-going"]
    with sleepers(tmp_path):
        first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        killed = []
        for name in STAYING:  # finally they hold all four devices
            assert kill_fixtures.wait_for(first, lambda name=name: begun(tmp_path, name))
        for name in STAYING:
            [(process, held, begin)] = begun(tmp_path, name)
            killed.append(f"{held} {begin} {time.time()}\n")
            os.kill(process, signal.SIGKILL)
        assert first.wait(timeout=600) == 1
    assert len(list(tmp_path.glob("*.txt"))) == 8
    subprocess.run(
        [*command, "--rerun-incomplete"], cwd=tmp_path, capture_output=True, check=True, timeout=600
    )
    spans = spans_of((tmp_path / "spans").read_text() + "".join(killed))
    assert sum(map(len, spans.values())) == 12 + 4
    assert set(spans) == {"0", "1", "2", "3"}
    assert not overlaps(spans)
