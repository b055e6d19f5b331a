"""What a job ran on and what it took: device, threads, peak memory. Measured, and never part of a result."""

from __future__ import annotations

import contextlib
import platform
import resource
import sys
from pathlib import Path

STATUS, CLEAR, PROCESSORS = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/cpuinfo")
RESET_PEAK = "5"  # what the kernel takes for "resident memory was never larger than now" (man 5 proc)


def name(device: str) -> str:
    """What a device calls itself: "NVIDIA A100-SXM4-80GB" for a GPU, the processor's model for the CPU."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    if PROCESSORS.exists():
        for line in PROCESSORS.read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def threads() -> int:
    """Threads that arithmetic on the CPU runs on in this process."""
    import torch

    return torch.get_num_threads()


def restart_peak(device: str) -> None:
    """From here on `peak_memory` counts anew, where the system allows that; else from the process's start."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        CLEAR.write_text(RESET_PEAK)


def peak_memory(device: str = "cpu") -> int:
    """Largest memory held since `restart_peak`, bytes: of torch on a GPU, resident of this process on the CPU.

    Linux counts the latter from exec on in VmHWM; `ru_maxrss`, taken elsewhere, may begin at that of
    the parent process.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
