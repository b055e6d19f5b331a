"""Twelve jobs on four devices: never two on one, all four used, also after kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.device_fixtures import HOLD, SLEEP, SLEEPERS, begun, overlaps, pretended, spans_of, start

CLAIM_AND_TELL = """
import os, sys, time
from attrib_core import device
assert "torch" not in sys.modules
name = device.claim(patience=30)
assert os.environ["CUDA_VISIBLE_DEVICES"] == name
begin = time.time()
time.sleep(float(sys.argv[1]))
print(name, begin, time.time(), flush=True)
"""


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Four pretended GPUs, locks in a folder of the test."""
    yield from pretended("0,1,2,3", tmp_path / "locks", monkeypatch)


def test_twelve_jobs_on_four_devices_never_share_one_even_when_some_are_killed(environment):
    """Four of the jobs hold their device until they are killed; the kernel frees it for the eight others."""
    holders = [start(HOLD) for _ in range(4)]
    held = [holder.stdout.readline().strip() for holder in holders if holder.stdout is not None]
    assert sorted(held) == ["0", "1", "2", "3"]
    running = [start(CLAIM_AND_TELL, "0.3") for _ in range(8)]
    killed: dict[str, float] = {}
    for name, holder in zip(held, holders, strict=True):
        time.sleep(0.1)
        killed[name] = time.time()
        holder.kill()
        holder.wait()
    printed = ""
    for process in running:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        printed += out
    spans = spans_of(printed)
    assert set(spans) == {"0", "1", "2", "3"}
    assert not overlaps(spans)
    assert all(killed[name] <= spans[name][0][0] for name in spans), (killed, spans)


@pytest.mark.slow
def test_snakemake_with_four_devices_and_kills(environment, tmp_path):
    """Twelve real jobs, `--resources gpu=4`. Four that never end are killed, as if memory ran out."""
    (tmp_path / "Snakefile").write_text(SLEEPERS)
    (tmp_path / "sleep.py").write_text(SLEEP)
    command = [sys.executable, "-m", "snakemake", "--cores", "12", "--resources", "gpu=4", "--keep-going"]
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    killed = []
    for name in ("0", "3", "6", "9"):
        while not begun(tmp_path, name):
            assert first.poll() is None
            time.sleep(0.05)
        [(process, held, begin)] = begun(tmp_path, name)
        killed.append(f"{held} {begin} {time.time()}\n")
        os.kill(process, signal.SIGKILL)
    assert first.wait(timeout=300) == 1
    assert len(list(tmp_path.glob("*.txt"))) == 8
    subprocess.run(
        [*command, "--rerun-incomplete"], cwd=tmp_path, capture_output=True, check=True, timeout=300
    )
    spans = spans_of((tmp_path / "spans").read_text() + "".join(killed))
    assert sum(map(len, spans.values())) == 12 + 4
    assert set(spans) == {"0", "1", "2", "3"}
    assert not overlaps(spans)
