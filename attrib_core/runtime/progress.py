"""Log the progress of a loop, a line every few seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from attrib_core.runtime.durations import duration

Item = TypeVar("Item")
LOGGER = logging.getLogger("attrib_core")
SECONDS_BETWEEN_LINES = 5.0


def progress(iterable: Iterable[Item], *, total: int | None, what: str) -> Iterator[Item]:
    """Yield the items; log count, rate and remaining time every few seconds and at the end.

    `what` names the items ("images"). `total` may be None if it is unknown.
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
