"""Claims on results of the store that are being made, so that jobs that lack the same result make it once.

A claim is a lock of the operating system on one byte of the file `results/store/<kind>.claims`, at an offset that
follows from the key. It ends with the process that holds it, however that ends, and leaves nothing behind. A process
that waits for a claim holds none, or has taken all before it in the order of their offsets: so no two processes wait
for each other.

Claims only save work. Results are written atomically, and two jobs that make the same result write the same bytes. That
is what happens where a file system has no locks, or where they do not reach another machine.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrib_core.storage.store.locks import NO_LOCKS, lock_file

LOGGER = logging.getLogger(__name__)
SUFFIX = ".claims"
SECONDS_BETWEEN_TRIES = 0.2
DIGITS = 15  # hexadecimal, of a key: the offset of its byte fits a signed 64-bit number


class Claims:
    """The claims of this process on results of one kind.

    A process opens the file of a kind once at a time: closing it ends all its locks on it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def take(self, key: str) -> bool:
        """Claim a key and return True, or return False while another process has claimed it."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(key))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            if error.errno not in NO_LOCKS:
                raise
        return True

    def wait(self, key: str) -> None:
        """Claim a key as soon as no other process has it."""
        while not self.take(key):
            time.sleep(SECONDS_BETWEEN_TRIES)

    def release(self, keys: Iterable[str]) -> None:
        """Release claims."""
        for key in keys:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _offset(key))
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise


def _offset(key: str) -> int:
    return int(key[:DIGITS], 16)


@contextmanager
def opened(folder: Path) -> Iterator[Claims]:
    """Open the claims on results of a folder of the store; all end with the block."""
    with lock_file(folder.with_name(folder.name + SUFFIX)) as descriptor:
        yield Claims(descriptor)


def turns(
    folder: Path, groups: Iterable[Sequence[str]], finished: Callable[[str], bool], *, what: str
) -> Iterator[list[str]]:
    """Yield lists of claimed keys that the caller makes before it asks for the next list.

    First, group by group, the keys that no other job has claimed; then, as other jobs end, what these left unmade.
    What is `finished` by then is in no list. `what` names the results in the log ("models").
    """
    with opened(folder) as claims:
        others: list[str] = []
        for group in groups:
            mine = [key for key in group if claims.take(key)]
            others += [key for key in group if key not in set(mine)]
            yield from _unfinished(mine, finished)
            claims.release(mine)
        if others:
            LOGGER.info("another job makes %d %s, which this one then uses", len(others), what)
        while others:
            claims.wait(others[0])
            mine = [others[0], *(key for key in others[1:] if claims.take(key))]
            others = [key for key in others if key not in set(mine)]
            yield from _unfinished(mine, finished)
            claims.release(mine)


def _unfinished(keys: Sequence[str], finished: Callable[[str], bool]) -> Iterator[list[str]]:
    if unfinished := [key for key in keys if not finished(key)]:
        yield unfinished


@contextmanager
def all_of(folder: Path, keys: Iterable[str], *, what: str) -> Iterator[None]:
    """Hold the claims on all keys, after waiting for jobs that have claimed some."""
    with opened(folder) as claims:
        logged = False
        for key in sorted(set(keys)):
            if not claims.take(key):
                if not logged:
                    LOGGER.info("another job makes %s, which this one then uses", what)
                logged = True
                claims.wait(key)
        yield
