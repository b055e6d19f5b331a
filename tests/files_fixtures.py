"""Files that are written anew."""

from __future__ import annotations

import os
from pathlib import Path

SECOND = 10**9


def rewrite(path: Path, content: bytes) -> None:
    """Other bytes for a file, at a later time than before.

    A file system's clock stands still for some milliseconds, on some for seconds; so a test that writes twice may
    leave one time twice, by which nobody can tell that the bytes changed.
    """
    later = path.stat().st_mtime_ns + SECOND
    path.write_bytes(content)
    os.utime(path, ns=(later, later))
