"""What a command says while it works: progress and messages as lines on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from attrib_core.jobs import LOGGER


@contextmanager
def progress(name: str) -> Iterator[None]:
    """Messages of the library on standard error, each headed by the name of the command."""
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
