"""Who makes a thing of the store now: jobs that lack the same thing make it once.

A claim is a lock of the operating system on one byte of the file `results/store/<kind>.claims`, at a place
that follows from the key. It ends with the process that holds it, however that ends, and leaves nothing behind.
Who waits holds no claim, or has taken all before in the order of their places: so no two wait for each other.

Claims spare work and decide nothing: pieces are written whole, and two that make the same thing write the same.
Where a file system has no locks, or they do not reach the other machine, both make it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LOGGER = logging.getLogger(__name__)
SUFFIX = ".claims"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
SECONDS_BETWEEN_LOOKS = 0.2
DIGITS = 15  # of a key, hexadecimal: the place of its byte fits a signed number of 64 bits


class Claims:
    """The claims of this process on things of one kind. A process opens a kind's file once at a time:

    where it closes the file, all its locks on it end.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def take(self, key: str) -> bool:
        """Whether this process may make what a key means; False while another makes it."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(key))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            if error.errno not in NO_LOCKS:
                raise
        return True

    def wait(self, key: str) -> None:
        """Take a key as soon as nobody else has it."""
        while not self.take(key):
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def release(self, keys: Iterable[str]) -> None:
        """Let others make them."""
        for key in keys:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _place(key))
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise


def _place(key: str) -> int:
    return int(key[:DIGITS], 16)


@contextmanager
def opened(folder: Path) -> Iterator[Claims]:
    """Claims on what a folder of the store is to hold; all end with the block."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder.with_name(folder.name + SUFFIX), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield Claims(descriptor)
    finally:
        os.close(descriptor)


def turns(
    folder: Path, groups: Iterable[Sequence[str]], finished: Callable[[str], bool], *, what: str
) -> Iterator[list[str]]:
    """Lists of keys that the caller is to make, each before it asks for the next list.

    Of each group those that nobody else makes; then, as others end, what these have left unmade. What has
    been `finished` meanwhile is in no list. `what` names the things in the log ("models").
    """
    with opened(folder) as claims:
        others: list[str] = []
        for group in groups:
            mine = [key for key in group if claims.take(key)]
            others += [key for key in group if key not in set(mine)]
            yield from _lacking(mine, finished)
            claims.release(mine)
        if others:
            LOGGER.info("another job makes %d %s, which this one then uses", len(others), what)
        while others:
            claims.wait(others[0])
            mine = [others[0], *(key for key in others[1:] if claims.take(key))]
            others = [key for key in others if key not in set(mine)]
            yield from _lacking(mine, finished)
            claims.release(mine)


def _lacking(mine: Sequence[str], finished: Callable[[str], bool]) -> Iterator[list[str]]:
    if lacking := [key for key in mine if not finished(key)]:
        yield lacking


@contextmanager
def all_of(folder: Path, keys: Iterable[str], *, what: str) -> Iterator[None]:
    """Inside, nobody else makes these; waits for who does. For work whose pieces are there at its end alone."""
    with opened(folder) as claims:
        told = False
        for key in sorted(set(keys)):
            if not claims.take(key):
                if not told:
                    LOGGER.info("another job makes %s, which this one then uses", what)
                told = True
                claims.wait(key)
        yield
