"""Fake GPUs: names in CUDA_VISIBLE_DEVICES, locks in a folder of the test, and jobs that hold them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attrib_core.runtime import devices as device

ROOT = Path(__file__).parents[2]
VARIABLES = (
    *(*device.SCHEDULERS, device.CHOICE, device.LOCKS, device.CLAIMED),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"),
)
# It runs until it is killed or its parent has ended.
HOLD = "from attrib_core.runtime import devices; import sys; print(devices.claim(), flush=True); sys.stdin.read()"

# Four of twelve jobs hold their device in their first attempt until they are killed, or until the test ends and
# releases its lock on the file `test`.
STAYING = ("0", "3", "6", "9")
SLEEPERS = """
rule all:
    input: expand("{name}.txt", name=range(12))

rule sleep:
    output: "{name}.txt"
    log: "logs/{name}.log"
    threads: 1
    resources: gpu=1
    script: "sleep.py"
"""
SLEEP = """
from attrib_core.runtime.job import job
with job(snakemake):
    import fcntl, os, sys, time
    assert "torch" not in sys.modules
    begin = time.time()
    with open(f"begun-{snakemake.wildcards.name}", "a") as stream:
        stream.write(f"{os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']} {begin}\\n")
    first = len(open(f"begun-{snakemake.wildcards.name}").readlines()) == 1
    if first and int(snakemake.wildcards.name) % 3 == 0:
        fcntl.flock(open("test"), fcntl.LOCK_SH)
    time.sleep(0.3)
    with open("spans", "a") as stream:
        stream.write(f"{os.environ['CUDA_VISIBLE_DEVICES']} {begin} {time.time()}\\n")
    open(snakemake.output[0], "w").close()
"""


def fake_gpus(devices: str, locks: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For a fixture: provide fake GPUs for a test, and release what it claimed."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    monkeypatch.setenv(device.LOCKS, str(locks))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(device, "_held", [])
    yield
    for descriptor in device._held:
        os.close(descriptor)
    for name in (device.CLAIMED, "CUDA_DEVICE_ORDER"):  # set by a claim, unknown to monkeypatch
        os.environ.pop(name, None)


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@contextmanager
def sleepers(folder: Path) -> Iterator[None]:
    """Write the workflow SLEEPERS; within this context, the jobs of STAYING end only when they are killed."""
    (folder / "Snakefile").write_text(SLEEPERS)
    (folder / "sleep.py").write_text(SLEEP)
    with (folder / "test").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def begun(folder: Path, name: str) -> list[tuple[int, str, float]]:
    """Return the attempts at a job of SLEEPERS so far: process, device, start time."""
    path = folder / f"begun-{name}"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    complete = [line.split() for line in lines if line.endswith("\n")]
    return [(int(pid), device, float(begin)) for pid, device, begin in complete]


def spans_of(printed: str) -> dict[str, list[tuple[float, float]]]:
    """Return when each device was held, in order, from lines "device begin end"."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for line in printed.splitlines():
        name, begin, end = line.split()
        spans.setdefault(name, []).append((float(begin), float(end)))
    return {name: sorted(held) for name, held in spans.items()}


def overlaps(spans: dict[str, list[tuple[float, float]]]) -> list[tuple[str, float]]:
    """Return where two jobs held the same device at the same time."""
    return [
        (name, two[0])
        for name, held in spans.items()
        for one, two in zip(held, held[1:], strict=False)
        if one[1] > two[0]
    ]
