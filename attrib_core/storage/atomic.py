"""Write files atomically: a file is complete or absent, whatever ends the process.

A file is written under a temporary name, flushed to the disk and renamed; then its folder is flushed, so that the new
name outlives a power loss. `sweep` removes what killed processes left under temporary names.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrib_core.common.errors import InputError
from attrib_core.storage.disk_space import full, no_space


@contextmanager
def writing(path: Path, *, flush_folder: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to `path` when the body ends without an error.

    The folder is created. Without `flush_folder` the caller flushes it, once for several files. Raises InputError with
    the file and the remedy where the disk is full; after that, as after any error of the body, `path` is as before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        flush(temporary)
        temporary.replace(path)
        if flush_folder:
            flush(path.parent)
    except InputError:
        raise
    except Exception as error:
        if (what := full(error)) is None:
            raise
        temporary.unlink(missing_ok=True)
        raise InputError(no_space(path, what)) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with writing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write text atomically as UTF-8, with its line ends unchanged."""
    write_bytes(path, text.encode("utf-8"))


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk; where folders cannot be flushed, do nothing."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def sweep(folder: Path, *, older_than: float = 0.0) -> int:
    """Remove what killed processes left under temporary names below a folder; return the number of files and folders.

    Those of a process that is running on this machine stay. Where other machines may write, `older_than` is the number
    of seconds that must have passed since the last write.
    """
    removed = 0
    oldest = time.time() - older_than
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            leftover = re.fullmatch(r"\..+\.(\d+)\.tmp", name)
            if leftover is None or _is_running(int(leftover[1])):
                continue
            path = Path(parent, name)
            with suppress(FileNotFoundError):
                if path.stat().st_mtime <= oldest:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    removed += 1
    return removed


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
