"""Pretended GPUs: names in CUDA_VISIBLE_DEVICES, locks in a folder of the test, processes that hold them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attrib_core import device

ROOT = Path(__file__).parent.parent
VARIABLES = (
    *(*device.SCHEDULERS, device.CHOICE, device.LOCKS, device.CLAIMED),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"),
)
HOLD = "from attrib_core import device; import time; print(device.claim(), flush=True); time.sleep(60)"


def pretended(devices: str, locks: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For a fixture: such GPUs until the test ends, and then what it claimed is let go."""
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
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
