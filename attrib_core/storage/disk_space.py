"""Distinguish a full disk from other errors, and say what to do about it."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from attrib_core.common.errors import InputError

FULL = {errno.ENOSPC: "disk", errno.EDQUOT: "quota", errno.EFBIG: "limit on the size of a file (ulimit -f)"}
NEARLY_FULL = 1 << 20  # bytes


def full(error: BaseException | None) -> str | None:
    """Return what has no room left ("disk", "quota", ...) if an error was raised for that reason; None for others.

    The errors of libraries in C++ (FAISS, torch) have only the message.
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
    """Return an error message: which file had no room, and what to do."""
    where = "" if path is None else f"{path}: "
    of_snakemake = path is not None and ".snakemake" in path.parts
    larger = "run in a folder on" if of_snakemake else "let results/ be a link to"
    return (
        f"{where}no room left ({what}); make room, or {larger} a larger disk, and give the"
        " same command again: what is finished is kept"
    )


def check_room(folder: Path, size: int = 1 << 16) -> None:
    """Raise InputError where a folder, which is created, has no room for `size` bytes; they are written as a test.

    A folder that cannot be written for other reasons is left alone.
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
    """Return whether a disk has less than 1 MiB or no file left, as after a write that failed and was cleared away."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < NEARLY_FULL or (disk.f_files > 0 and disk.f_favail == 0)
