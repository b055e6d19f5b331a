"""Log the progress of a loop, a line every few seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


LOGGER = logging.getLogger("attrib_core")


SECONDS_BETWEEN_LINES = 5.0


def progress(iterable: Iterable[Item], *, total: int | None, what: str) -> Iterator[Item]:
    """Yield the items; log count, rate and remaining time every few seconds and at the end.

    `what` names the items ("images"). `total` may be None where it is not known.
    """
    started = last = time.monotonic()
    done = 0
    for item in iterable:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            LOGGER.info("%s", _progress_line(done, total, what, now - started))
    LOGGER.info("%d %s in %s", done, what, duration(time.monotonic() - started))


def _progress_line(done: int, total: int | None, what: str, seconds: float) -> str:
    rate = done / seconds
    speed = f"{rate:.3g}/s" if rate >= 1 else f"{1 / rate:.3g} s each"
    if total is None:
        return f"{done} {what}, {speed}"
    return f"{done} of {total} {what}, {speed}, {duration(max(0, total - done) / rate)} left"


def duration(seconds: float) -> str:
    """Seconds as one reads them: "0.8 s", "42 s", "3 min 5 s", "2 h 10 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
