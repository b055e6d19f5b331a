"""Measure what a job runs on and uses: device, threads, peak memory. Never part of a result."""

from __future__ import annotations

import contextlib
import platform
import resource
import sys
from pathlib import Path

STATUS, CLEAR, PROCESSORS = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/cpuinfo")
RESET_PEAK = "5"  # resets the peak of resident memory (man 5 proc)


def device_name(device: str) -> str:
    """Return the model of a device: "NVIDIA A100-SXM4-80GB" for a GPU, the processor's model for the CPU."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    if PROCESSORS.exists():
        for line in PROCESSORS.read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def threads() -> int:
    """Return the number of threads that torch uses on the CPU in this process."""
    import torch

    return torch.get_num_threads()


def reset_peak_memory(device: str) -> None:
    """Reset the peak that `peak_memory` reports; where the system does not allow that, it counts from process start."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        CLEAR.write_text(RESET_PEAK)


def peak_memory(device: str = "cpu") -> int:
    """Return the peak memory since `reset_peak_memory` in bytes: of torch on a GPU, resident memory on the CPU.

    On Linux the latter is VmHWM, which starts at exec; `ru_maxrss`, used on other systems, may start at the value
    of the parent process.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
