"""Read text files from outside: what is no UTF-8 text is refused in one line that says what it is instead."""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from attrib_core.common.errors import InputError, cut, printable, reason, shown
from attrib_core.storage import file_kinds
from attrib_core.storage.file_kinds import Kind

LONGEST = 1 << 30
"""Bytes of the longest text that is read as a whole."""
BLOCK = 1 << 20
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_TEXTS = (Kind.TEXT, Kind.JSON, Kind.XML, Kind.EMPTY, Kind.UNKNOWN)
_SURROGATE = re.compile("[\ud800-\udfff]")


def read(path: Path, *, expected: str = "file", limit: int = LONGEST, mark: bool = True) -> str:
    """Return the text of a file, with its line ends; a byte order mark is dropped, or refused without `mark`.

    `expected` says what the file should be ("config file"). Raises InputError, one line with the path, for a file
    that is missing, cannot be read, is longer than `limit` bytes, or is no text in UTF-8. A pipe is read, too.
    """
    try:
        with open(path, "rb", opener=open_at_once) as stream:
            os.set_blocking(stream.fileno(), True)
            data = stream.read(limit + 1)
            is_pipe = stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except OSError as error:
        raise _unreadable(path, error, expected) from None
    except ValueError as error:  # NUL, or a surrogate that is no byte, in the path
        raise InputError(f"{printable(str(path))}: no such {expected} ({reason(error)})") from None
    if is_pipe and not data:
        raise InputError(f"{path}: a pipe that nothing is written to, expected a {expected}")
    if len(data) > limit:
        raise InputError(f"{path}: longer than {limit} bytes, expected a {expected}")
    if not mark and data.startswith(codecs.BOM_UTF8):
        raise InputError(f"{path}: begins with a byte order mark; save it as UTF-8 without one")
    return decode(data, printable(str(path)))


def open_at_once(path: str, flags: int) -> int:
    """Open a file for `open`, as its `opener`, without waiting for somebody who writes to a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def decode(data: bytes, where: str) -> str:
    """Return bytes as text, without a byte order mark; InputError, after `where`, for what is no text in UTF-8."""
    _check_kind(data, where)
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise _not_utf8(where, error.start, data[error.start]) from None


def check(path: Path, *, expected: str = "file") -> None:
    """Check like `read`, without keeping the text in memory, that a file of any length is text in UTF-8."""
    where = printable(str(path))
    try:
        with open(path, "rb") as stream:
            _check_stream(stream, where)
    except OSError as error:
        raise _unreadable(path, error, expected) from None


def _check_stream(stream: BinaryIO, where: str) -> None:
    decoder, read_before = codecs.getincrementaldecoder("utf-8")(), 0
    for block in iter(lambda: stream.read(BLOCK), b""):
        pending = len(decoder.getstate()[0])
        _check_kind(block, where, read_before)
        try:
            decoder.decode(block)
        except UnicodeDecodeError as error:
            raise _not_utf8(where, read_before - pending + error.start, error.object[error.start]) from None
        read_before += len(block)
    if unfinished := decoder.getstate()[0]:
        raise _not_utf8(where, read_before - len(unfinished), unfinished[0])


def parse_json(text: str) -> Any:
    """Parse JSON; InputError, with the reason alone, for what is no JSON, and what Python reads otherwise than meant.

    That is a key twice, of which Python keeps the last value, too deep nesting, and half of an emoji.
    """
    try:
        value = json.loads(text, object_pairs_hook=unique_keys)
    except InputError:
        raise
    except RecursionError:
        raise InputError("nested too deep") from None
    except ValueError as error:
        raise InputError(reason(error)) from None
    if "\\u" in text:
        for one in _texts(value):
            try:
                check_characters(one)
            except InputError as error:
                raise InputError(f"'{cut(printable(one))}': {error}") from None
    return value


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return keys and values of an object in JSON, as a hook of `json.loads`; InputError for a key that is twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise InputError(f"duplicate key {shown(max(names, key=names.count))}")
    return found


def check_characters(text: str) -> None:
    """Raise InputError, with the reason alone, for a text with NUL or with a lone surrogate.

    Neither can be stored in a table. JSON and YAML can write both, and Python reads bytes of file names that are not
    UTF-8 as surrogates.
    """
    if found := _SURROGATE.search(text):
        kind = "a byte that is not UTF-8" if "\udc80" <= found[0] <= "\udcff" else "half of an emoji"
        raise InputError(f"character {found.start() + 1} is {kind} ({printable(found[0])})")
    if "\0" in text:
        raise InputError(f"character {text.index(chr(0)) + 1} is NUL")


def check_path(path: Path, *, where: str = "") -> None:
    """Raise InputError, after `where` ("--out: "), for a path with bytes that are not UTF-8, which no table can store.

    Nor do the libraries that read and write tensors and Parquet files open it.
    """
    try:
        check_characters(str(path))
    except InputError as error:
        raise InputError(f"{where}{printable(str(path))}: {error}; expected a name in UTF-8") from None


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in a JSON value, and the keys."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one


def _check_kind(data: bytes, where: str, start: int = 0) -> None:
    """Raise InputError for bytes that begin like another kind of file, and for NUL; `start` is their place."""
    if not start:
        for mark, encoding in _MARKS:
            if data.startswith(mark):
                raise InputError(f"{where}: saved as {encoding}; save it as UTF-8")
        kind = file_kinds.of_bytes(data[: file_kinds.HEAD])
        if kind not in _TEXTS:
            raise InputError(f"{where}: is {kind}; expected text in UTF-8")
    if (at := data.find(b"\0")) >= 0:
        raise InputError(f"{where}: byte {start + at} is NUL; expected text in UTF-8, and no UTF-16")


def _not_utf8(where: str, position: int, byte: int) -> InputError:
    return InputError(
        f"{where}: not UTF-8 at byte {position} (0x{byte:02x}), perhaps Windows-1252; save it as UTF-8"
    )


def _unreadable(path: Path, error: OSError, expected: str) -> InputError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return InputError(f"{printable(str(path))}: no such {expected}")
    return InputError(f"{printable(str(path))}: {reason(error)}; expected a {expected}")
