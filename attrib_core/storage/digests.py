"""Digests of the files that decide about results, remembered for large ones.

Weights of a base model are gigabytes, and every job of a cluster reads the rules anew. So the
digest of a large file is kept in a small file of its own, under the path, size, time of change and
inode for which it holds. What cannot be kept (a read-only home) is computed again.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from pathlib import Path

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.storage import atomic

REMEMBERED = 8_000_000
"""Bytes from which on a digest is worth a file; smaller ones take milliseconds."""
MEMORY = "ATTRIB_DIGESTS"
TICK, COARSE_TICK = 50_000_000, 2_500_000_000
"""Nanoseconds after which a file that is written has another time: by the system's clock, and where times are whole
seconds."""
_read: dict[tuple[int, int, int, int], str] = {}


def of_data(path: Path) -> str:
    """SHA-256 of a file's bytes, or of all files below a folder. Raises InputError where there is neither."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return hashing.digest([[file.relative_to(path).as_posix(), of_file(file)] for file in files])
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    return of_file(path)


def of_file(path: Path) -> str:
    """SHA-256 of a file's bytes; from memory where path, size, time of change and inode are the same."""
    status = path.stat()
    return _of_state(path.resolve(), status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=4096)
def _of_state(path: Path, size: int, modified: int, inode: int) -> str:
    if size < REMEMBERED:
        return hashing.file_digest(path)
    state = [str(path), size, modified, inode]
    note = memory() / f"{hashing.content_key(*state)}.json"
    try:
        kept = json.loads(note.read_text("utf-8"))
        if kept["state"] == state:
            return str(kept["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none, or one that a dying machine left half-written
    digest = hashing.file_digest(path)
    with contextlib.suppress(OSError, InputError):  # what cannot be kept is computed again
        atomic.write_text(note, json.dumps({"state": state, "digest": digest}))
    return digest


def once(path: Path) -> str:
    """SHA-256 of a file's bytes, read once in a process while nothing shows that they changed.

    Known again by device, inode, size and time of change, whatever its name: what was written, then given a
    second name and recorded, is read for all three once. Not so what was written just now: other bytes, in the file
    or in a new one of its inode, could have the same time.
    """
    status = path.stat()
    seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if seen in _read:
        return _read[seen]
    age = time.time_ns() - status.st_mtime_ns
    digest = hashing.file_digest(path)
    if age > (TICK if status.st_mtime_ns % 1_000_000_000 else COARSE_TICK):
        _read[seen] = digest
    return digest


def memory() -> Path:
    """The folder of remembered digests: ATTRIB_DIGESTS, or one below the user's cache."""
    chosen = os.environ.get(MEMORY)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attrib_core" / "digests"
