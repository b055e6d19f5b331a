"""Files that tests change, and a pickle that runs code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

SECOND = 10**9


def rewrite(path: Path, content: bytes) -> None:
    """Write other bytes to a file, with a later modification time.

    The clock of a file system advances in steps of milliseconds, on some of seconds; a test that writes twice in one
    step would leave the same time, by which nobody can tell that the bytes changed.
    """
    later = path.stat().st_mtime_ns + SECOND
    path.write_bytes(content)
    os.utime(path, ns=(later, later))


class NeedsCode:
    """Something that runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code was run",))
