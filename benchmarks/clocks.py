"""Clocks of the benchmarks: wall time, or processor time on a machine with other work."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

CLOCKS = ("wall", "cpu")


def now(clock: str, *, children: bool = False) -> float:
    """Return seconds on a clock; processor time is that of this process, or of its finished children."""
    if clock == "wall":
        return time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(run: Callable[[int], None], *, steps: int, repeats: int, clock: str) -> list[float]:
    """Measure the seconds of each repeat of a training, after a first step that initializes libraries."""
    run(1)
    times = []
    for _ in range(repeats):
        began = now(clock)
        run(steps)
        times.append(now(clock) - began)
    return times
