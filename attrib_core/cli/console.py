"""Show the log of a command on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from attrib_core.runtime.job import LOGGER


@contextmanager
def log_to_stderr(name: str) -> Iterator[None]:
    """Write log lines of the body to standard error, each after the command's name."""
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
