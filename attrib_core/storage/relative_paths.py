"""Check paths that tables and lists give relative to a folder, and read the files: only regular ones.

A link in the folder may lead anywhere, since it was made by whoever owns the folder; a name in a table may not leave
the folder by `..`.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attrib_core.common.errors import InputError, printable, reason, shown
from attrib_core.storage import text_files

LONGEST_NAME = 255
LONGEST_PATH = 4095
"""Bytes of the longest name of a file, and of the longest path, on Linux."""
MOST_LINKS = 40
"""Links in a row that Linux follows."""
_ODD_SPELLING = r"^/|//|(^|/)\.\.?(/|$)|/$"


def check(name: str, folder: Path) -> None:
    """Check a path that is given relative to a folder; the file itself need not exist.

    Raises InputError, with the reason alone, for a path that is empty, absolute, ends in "/", leads out of the folder
    by `..` (also by way of links), is longer than a path can be, or has characters that no table can store.
    """
    if not name:
        raise InputError("no file is named")
    try:
        text_files.check_characters(name)
    except InputError as error:
        raise InputError(f"'{printable(name)}': {error}") from None
    if name.startswith("/"):
        raise InputError(f"{shown(name)} is absolute, expected a path relative to the folder")
    if ".." in name.split("/") and not _stays_below(name, folder):
        raise InputError(f"{shown(name)} leads out of the folder, expected a file below it")
    if (
        name.endswith(("/", "/.")) or name == "."
    ):  # `Path` would drop it, and so read the file "a.png" for "a.png/"
        raise InputError(f"{shown(name)} names a folder, expected a file")
    check_length(folder / name)


def check_all(names: pa.ChunkedArray, folder: Path) -> dict[int, str]:
    """Return why names fail `check`, by their positions; a million names take a fraction of a second."""
    lengths = pc.binary_length(names)
    doubtful = pc.or_(pc.match_substring_regex(names, _ODD_SPELLING), pc.greater(lengths, LONGEST_NAME))
    found = {}
    for position in np.flatnonzero(pc.or_(doubtful, pc.equal(lengths, 0)).to_numpy()).tolist():
        try:
            check(names[position].as_py(), folder)
        except InputError as error:
            found[position] = str(error)
    return found


def check_length(path: Path) -> None:
    """Raise InputError, with the reason alone, for a path that is longer than one can be."""
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > LONGEST_NAME:
        raise InputError(
            f"no such file: the name is {longest} bytes long, at most {LONGEST_NAME} are possible"
        )
    if (length := len(os.fsencode(path))) > LONGEST_PATH:
        raise InputError(
            f"no such file: the path is {length} bytes long, at most {LONGEST_PATH} are possible"
        )


def same_files(names: pa.ChunkedArray, folder: Path, *, but: Collection[int] = ()) -> dict[int, int]:
    """Find names of files that an earlier name has already: the position of each, and of the earlier one.

    Names have the same file if they are equal, are two spellings of a path (`a.png`, `./a.png`), or lead to it by
    links; two hard links are two files. Names at the positions `but`, which have failed `check`, are left out. Folders
    of the names are listed once for links, so that only names that are links, or spelled oddly, take time.
    """
    positions: Collection[int] = range(len(names))
    if but:
        positions = [position for position in positions if position not in but]
        names = names.take(pa.array(positions, pa.int64()))
    real = cache(lambda parent: os.path.realpath(os.path.join(folder, parent)))
    parents = pc.unique(pc.replace_substring_regex(names, "[^/]*$", "")).to_pylist()
    links = [parent + name for parent in parents for name in _links(folder, parent)]
    if (
        pc.count_distinct(names).as_py() == len(names)
        and not pc.any(pc.match_substring_regex(names, _ODD_SPELLING)).as_py()
        and all(real(parent) == posixpath.join(real(""), parent).rstrip("/") for parent in parents)
        and not pc.any(pc.is_in(names, value_set=pa.array(links, pa.string()))).as_py()
    ):
        return {}
    named_by_links, first, found = set(links), dict[str, int](), dict[int, int]()
    for position, name in zip(positions, names.to_pylist(), strict=True):
        parent, slash, last = name.rpartition("/")
        path = f"{real(parent + slash)}/{last}"
        if name in named_by_links or last in ("", ".", ".."):
            path = _end_of_links(path, real)
        if (earlier := first.setdefault(path, position)) != position:
            found[position] = earlier
    return found


def read_file(path: Path, name: str) -> bytes:
    """Return the bytes of a regular file; a pipe or device is never opened for reading, since that may not end.

    Raises InputError, with the reason alone, in which the file is called `name`.
    """
    name = printable(name)
    try:
        with open(path, "rb", opener=text_files.open_at_once) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise InputError(f"{name} is a pipe or device, expected a file")
            return stream.read()
    except IsADirectoryError:
        raise InputError(f"{name} is a folder, expected a file") from None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise InputError(f"no file {name}") from None
        raise InputError(f"{name}: {reason(error)}") from None
    except InputError:
        raise
    except ValueError as error:  # NUL, or a surrogate that is no byte
        raise InputError(f"no file {name} ({reason(error)})") from None


def _stays_below(name: str, folder: Path) -> bool:
    """Return whether the folder of a name with `..` is the one that the name without `..` has, or is below `folder`."""
    parent, root = name if name.endswith("..") else os.path.dirname(name), os.path.realpath(folder)
    plain, real = os.path.normpath(parent), os.path.realpath(folder / parent)
    if not plain.startswith("..") and os.path.realpath(folder / plain) == real:
        return True
    return os.path.commonpath([root, real]) == root


def _links(folder: Path, parent: str) -> list[str]:
    """Return the names of the links in a folder; none where it cannot be listed."""
    try:
        with os.scandir(os.path.join(folder, parent)) as entries:
            return [entry.name for entry in entries if entry.is_symlink()]
    except (OSError, ValueError):
        return []


def _end_of_links(path: str, real: Callable[[str], str]) -> str:
    """Return what a link leads to, at the end of all links; `real` resolves folders, and is asked once for each."""
    for _ in range(MOST_LINKS):
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except OSError:  # no link
            break
        parent, last = os.path.split(path)
        path = os.path.realpath(path) if last in ("", ".", "..") else f"{real(parent)}/{last}"
    return path
