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

from attrib_core.errors import InputError

FULL = {errno.ENOSPC: "disk", errno.EDQUOT: "quota", errno.EFBIG: "limit on the size of a file (ulimit -f)"}


NEARLY_FULL = 1 << 20  # bytes


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


def full(error: BaseException | None) -> str | None:
    """What has no room left ("disk", "quota", ...), if that is why an error was raised; None for others.

    Libraries in C++ (FAISS, torch) tell it by their message alone.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return FULL[error.errno]
        for number, what in FULL.items():
            if os.strerror(number) in str(error):
                return what
        error = error.__cause__ or error.__context__
    return None


def no_space(path: Path | None, what: str) -> str:
    """One line for a person: which file had no room, and what to do."""
    where = "" if path is None else f"{path}: "
    of_snakemake = path is not None and ".snakemake" in path.parts
    larger = "run in a folder on" if of_snakemake else "let results/ be a link to"
    return (
        f"{where}no room left ({what}); make room, or {larger} a larger disk, and give the"
        " same command again: what is finished is kept"
    )


def check_room(folder: Path, size: int = 1 << 16) -> None:
    """Raise InputError where a folder, which is made, has no room for so many bytes: they are written to see.

    A folder that cannot be written for other reasons is let be.
    """
    probe = folder / f".room.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * size)
    except OSError as error:
        if (what := full(error)) is not None:
            raise InputError(no_space(folder.absolute(), what)) from None
    finally:
        with suppress(OSError):
            probe.unlink()


def nearly_full(folder: Path) -> bool:
    """Whether a disk has no megabyte or no file left, as when a write has failed and been cleared away."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < NEARLY_FULL or (disk.f_files > 0 and disk.f_favail == 0)


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
