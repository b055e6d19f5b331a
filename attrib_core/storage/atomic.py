"""Files that are whole or absent, whatever ends the process, and what a full disk says.

A file is written under a temporary name, flushed to the disk and renamed; then its folder is flushed,
so that the new name outlives a power loss. What killed processes left under temporary names
is for `sweep`.
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
def written(path: Path, *, name_too: bool = True) -> Iterator[Path]:
    """A temporary path to write; it becomes `path` when the body ends without an error.

    The folder is made. Without `name_too` the caller flushes it, once for several files. Raises InputError
    where the disk is full, with the file and the remedy; after that, as after every error of the body, what
    stood under `path` stands there as before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        flush(temporary)
        temporary.replace(path)
        if name_too:
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
    """Write a file whole or not at all."""
    with written(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, line ends as they are, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk; file systems that flush no folders are let be."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def sweep(folder: Path, *, older_than: float = 0.0) -> int:
    """Remove what killed processes left under temporary names below a folder; how many files and folders.

    Those of a living process stay, if it is one of this machine; where others may write,
    `older_than` says how many seconds must have passed since the last write.
    """
    removed = 0
    oldest = time.time() - older_than
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            left = re.fullmatch(r"\..+\.(\d+)\.tmp", name)
            if left is None or _lives(int(left[1])):
                continue
            path = Path(parent, name)
            with suppress(FileNotFoundError):
                if path.stat().st_mtime <= oldest:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    removed += 1
    return removed


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
