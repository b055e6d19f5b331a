"""Memory, threads and device names of a job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from attrib_core.runtime import hardware


def test_peak_memory_counts_what_was_freed_and_can_be_reset() -> None:
    held = np.ones(200_000_000, dtype=np.uint8)
    with_it = hardware.peak_memory()
    del held
    assert hardware.peak_memory() > with_it - 5e6 > 200e6, "the kernel counts in units of some hundred KB"
    hardware.reset_peak_memory("cpu")
    if hardware.CLEAR.exists():
        assert hardware.peak_memory() < with_it - 150e6
    again = np.ones(100_000_000, dtype=np.uint8)
    assert hardware.peak_memory() > 100e6 and again.any()


def test_peak_memory_of_a_child_does_not_count_its_parent() -> None:
    held = np.ones(300_000_000, dtype=np.uint8)
    words = "from attrib_core.runtime import hardware; print(hardware.peak_memory())"
    found = subprocess.run([sys.executable, "-c", words], check=True, capture_output=True, text=True)
    assert 1e6 < int(found.stdout) < 200e6 and held.any()


def test_device_name_and_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware.threads() == torch.get_num_threads()
    assert hardware.device_name("cpu")
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Plain CPU 9000 @ 3GHz\nflags\t: fpu\n")
    monkeypatch.setattr(hardware, "PROCESSORS", file)
    assert hardware.device_name("cpu") == "Plain CPU 9000 @ 3GHz"
    file.write_text("processor\t: 0\n")
    assert hardware.device_name("cpu"), "the architecture at least"


def test_without_the_files_of_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "STATUS", tmp_path / "status")
    monkeypatch.setattr(hardware, "CLEAR", tmp_path / "nowhere" / "clear_refs")
    hardware.reset_peak_memory("cpu")
    assert 50e6 < hardware.peak_memory() < 100e9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu() -> None:
    hardware.reset_peak_memory("cuda")
    held = torch.ones(100_000_000, device="cuda")
    del held
    assert hardware.peak_memory("cuda") >= 400e6 and "NVIDIA" in hardware.device_name("cuda")
