"""Compute digests of the files that results depend on, and cache those of large files.

Weights of a base model are gigabytes, and every job of a cluster evaluates the rules again. So the digest of a large
file is cached in a small file, under the path, size, modification time and inode for which it holds. What cannot be
cached (in a read-only home) is computed again.
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

CACHED_FROM = 8_000_000
"""Bytes from which a digest is worth a file; smaller files take milliseconds."""
CACHE = "ATTRIB_DIGESTS"
TICK, COARSE_TICK = 50_000_000, 2_500_000_000
"""Nanoseconds after which a write changes the modification time: by the system's clock, and on file systems that keep
full seconds."""
_read: dict[tuple[int, int, int, int], str] = {}


def of_file_or_folder(path: Path) -> str:
    """Return the SHA-256 of a file, or a digest of all files below a folder; InputError where there is neither."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return hashing.digest([[file.relative_to(path).as_posix(), of_file(file)] for file in files])
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    return of_file(path)


def of_file(path: Path) -> str:
    """Return the SHA-256 of a file, from the cache if path, size, modification time and inode are the same."""
    status = path.stat()
    return _of_state(path.resolve(), status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=4096)
def _of_state(path: Path, size: int, modified: int, inode: int) -> str:
    if size < CACHED_FROM:
        return hashing.file_digest(path)
    state = [str(path), size, modified, inode]
    note = cache_folder() / f"{hashing.content_key(*state)}.json"
    try:
        kept = json.loads(note.read_text("utf-8"))
        if kept["state"] == state:
            return str(kept["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # missing, or incomplete since a power loss
    digest = hashing.file_digest(path)
    with contextlib.suppress(OSError, InputError):  # what cannot be cached is computed again
        atomic.write_text(note, json.dumps({"state": state, "digest": digest}))
    return digest


def read_once(path: Path) -> str:
    """Return the SHA-256 of a file, which a process reads once while nothing shows that it changed.

    A file is recognised by device, inode, size and modification time, whatever its name: one that was written, got a
    second name and was recorded is read once for all three. This does not hold for a file that was written just now:
    other bytes, in it or in a new file with its inode, could have the same time.
    """
    status = path.stat()
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if state in _read:
        return _read[state]
    age = time.time_ns() - status.st_mtime_ns
    digest = hashing.file_digest(path)
    if age > (TICK if status.st_mtime_ns % 1_000_000_000 else COARSE_TICK):
        _read[state] = digest
    return digest


def cache_folder() -> Path:
    """Return the folder of cached digests: ATTRIB_DIGESTS, or one below the user's cache."""
    chosen = os.environ.get(CACHE)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attrib_core" / "digests"
