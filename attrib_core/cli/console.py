"""Progress and messages of a command as lines on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from attrib_core.runtime.job import LOGGER


@contextmanager
def told(name: str) -> Iterator[None]:
    """While the body runs, what it logs stands on standard error behind the command's name."""
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(logging.Formatter(f"[{name}] %(message)s"))
    level = LOGGER.level
    LOGGER.addHandler(terminal)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        LOGGER.removeHandler(terminal)
