"""Locks of the operating system on the store: for jobs that use it, and for those that change what it holds.

    results/store/lock           shared by every process that uses the store, exclusive for garbage collection
    results/store/<kind>.moves   exclusive, for moments, for a job that moves or drops pieces or notes keys

A lock ends with the process that holds it. On a file system without locks nothing is locked.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrib_core.common.errors import InputError
from attrib_core.storage.store import layout

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
"""Errors of a file system that has no locks."""
LOCK = "lock"
MOVES = ".moves"


@contextmanager
def shared(run: Path) -> Iterator[None]:
    """Hold the shared lock on the store of a run: until it is released, nothing is removed from the store.

    Waits for garbage collection to end.
    """
    with lock_file(layout.root(run) / LOCK) as descriptor:
        _lock_or_ignore(descriptor, fcntl.LOCK_SH)
        yield


@contextmanager
def exclusive(store: Path) -> Iterator[None]:
    """Hold the exclusive lock on a store.

    Raises InputError where another process uses the store, or where nobody can tell because there are no locks.
    """
    with lock_file(store / LOCK) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise InputError(
                    f"{store}: a run is in progress, and may need what it has not yet noted; wait until it has ended"
                ) from None
            raise InputError(
                f"{store}: its file system takes no locks ({error.strerror}), so nobody can tell whether a run is"
                " in progress"
            ) from None
        yield


@contextmanager
def moving(folder: Path) -> Iterator[None]:
    """Hold the lock under which pieces of a folder of the store are moved or dropped.

    Without it a job could remove a file that another has just made part of its table, or a piece that another is
    about to use. Held for moments and never nested, so that nobody waits for long.
    """
    with lock_file(folder.with_name(folder.name + MOVES)) as descriptor:
        _lock_or_ignore(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def lock_file(path: Path) -> Iterator[int]:
    """Open a file to lock, which is created if it is not there; closing it ends all locks of the process on it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock_or_ignore(descriptor: int, kind: int) -> None:
    try:
        fcntl.flock(descriptor, kind)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
