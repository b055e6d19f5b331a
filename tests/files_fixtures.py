"""Files that tests change."""

from __future__ import annotations

import os
from pathlib import Path

SECOND = 10**9


def rewrite(path: Path, content: bytes) -> None:
    """Write other bytes to a file, with a later modification time.

    The clock of a file system advances in steps of milliseconds, on some of seconds; a test that writes twice in one
    step would leave the same time, by which nobody can tell that the bytes changed.
    """
    later = path.stat().st_mtime_ns + SECOND
    path.write_bytes(content)
    os.utime(path, ns=(later, later))
