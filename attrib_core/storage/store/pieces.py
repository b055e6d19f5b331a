"""Pieces of a stage's work: rows of a table, each piece under a key of all that it depends on.

So a killed job resumes at its first unfinished piece, and a run with one thing more makes one piece
more. The record of a piece, `<key>.json`, is written last: it names a file of the folder, the rows
in it, and the checksum of its bytes. A piece is finished or not, and one that was damaged since is
made again.

While a job works, a piece has a file of its own. Once the table of the job's part is written, `hold`
gives that file a second name in the store by a hard link, points the records to it and removes the
pieces' own files: the bytes stand once, and outlive the part, which Snakemake removes before its job
runs again. A part may hold hundreds of pieces, and a new file that is flushed to the disk takes as long as a
cheap encoder does for dozens of images; so some dozens of pieces have one record, by hard links under each name.
"""

from __future__ import annotations

import bisect
import errno
import functools
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.storage import atomic, digests, tables

HELD = "part-"
KEYS = ".keys"
TOGETHER = 32
"""Pieces of one record at most: it then fits a block of the disk, so that copies of it take no more than records."""
LOOKS = 10
"""Looks for a piece that jobs of other runs move meanwhile; a record names a file that is there at any time."""
NO_LINKS = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)


@dataclass(frozen=True)
class Piece:
    """Where a finished piece is: a file, its rows from `start` to before `stop`, and when it was made.

    written: nanoseconds since 1970; stays when the rows get another file.
    """

    file: Path
    start: int
    stop: int
    checksum: str
    written: int


def write(folder: Path, key: str, rows: pa.Table | Sequence[dict[str, Any]], expected: pa.Schema) -> None:
    """Write a piece to a file of its own, and then its record."""
    path = folder / f"{key}.parquet"
    with tables.writer(path, expected) as sink:
        sink.write(rows)
    _write_records(folder, {key: Piece(path, 0, len(rows), digests.once(path), time.time_ns())})


def found(folder: Path, key: str) -> Piece | None:
    """A piece by its record, without a look at its bytes; None where there is none."""
    try:
        record = _parsed((folder / f"{key}.json").read_text("utf-8"))
        own = record["pieces"][key] if "pieces" in record else record
        (start, stop), file = own["rows"], folder / Path(record["file"]).name
        return Piece(file, int(start), int(stop), str(record["checksum"]), int(own["written"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


@functools.lru_cache(maxsize=16)
def _parsed(text: str) -> Any:
    """A record, which all pieces of a part may have in common."""
    return json.loads(text)


def finished(folder: Path, key: str) -> Piece | None:
    """A piece that is there and holds the bytes that were written; None where it must be made.

    Looked for again where its file was removed in favour of another between the looks at both.
    """
    for _ in range(LOOKS):
        piece = found(folder, key)
        if piece is None:
            return None
        try:
            return piece if digests.once(piece.file) == piece.checksum else None
        except FileNotFoundError:
            continue
    return None


def read(folder: Path, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a finished piece. Raises InputError where it is not there (any more)."""
    return next(read_all(folder, [key], columns))


def read_all(folder: Path, wanted: Iterable[str], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of finished pieces, one after the other; see `read`.

    Pieces that follow each other in a file are read from it together, a few row groups at most in memory.
    """
    opened: Path | None = None
    groups: range | None = None
    starts: list[int] = []
    for key in wanted:
        piece = finished(folder, key)
        while piece is not None and piece.file != opened:
            try:
                file = pq.ParquetFile(piece.file, pre_buffer=False)
            except FileNotFoundError:  # a job of another run has just given it another file
                piece = finished(folder, key)
                continue
            opened, groups = piece.file, None
            sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            starts = [0, *itertools.accumulate(sizes)]
        if piece is None:
            raise InputError(
                f"{folder / key}: gone or damaged since it was made; give the same command again"
            )
        first = bisect.bisect_right(starts, piece.start) - 1
        behind = min(max(first + 1, bisect.bisect_left(starts, piece.stop)), len(starts) - 1)
        if groups != (groups := range(first, behind)):
            table = file.read_row_groups(list(groups), columns=list(columns) if columns else None)
        yield table.slice(piece.start - starts[first], piece.stop - piece.start)


def hold(part: Path, folder: Path, spans: Iterable[tuple[str, int]]) -> None:
    """Let a written part hold its pieces: keys and their numbers of rows, in the order of the part's rows.

    A piece that another part holds stays with that while the other is there. Where the file
    system has no hard links, pieces keep their own files, and those without one get a copy.
    """
    places: dict[str, tuple[int, int]] = {}
    first = 0
    for key, rows in spans:
        places.setdefault(key, (first, first + rows))
        first += rows
    before = {key: found(folder, key) for key in places}
    moving = []
    for key, there in before.items():
        piece = there and finished(folder, key)
        if piece is None or _only_here(piece.file, key):
            moving.append(key)
    if moving:
        _move(part, folder, {key: places[key] for key in moving}, before)
    own = {folder / f"{key}.parquet" for key in places}  # with what a kill between record and removal left
    for file in own | {piece.file for piece in before.values() if piece is not None}:
        if file.exists():
            remove_unused(file)


def _move(
    part: Path, folder: Path, moving: Mapping[str, tuple[int, int]], before: Mapping[str, Piece | None]
) -> None:
    """Let a part hold some pieces: keys and rows; `before` says where they are now."""
    checksum = digests.once(part)
    target = folder / f"{HELD}{hashing.content_key(checksum, list(moving))}.parquet"
    with atomic.written(target.with_suffix(KEYS), name_too=False) as temporary:
        temporary.write_text(json.dumps({"keys": list(moving)}), "utf-8")
    if not _linked(part, target):
        moving = {key: rows for key, rows in moving.items() if finished(folder, key) is None}
        if not moving:
            if not target.exists():  # else a copy that pieces are in
                target.with_suffix(KEYS).unlink()
            return
        with atomic.written(target, name_too=False) as temporary:
            shutil.copyfile(part, temporary)
    records = {}
    for key, (start, stop) in moving.items():
        piece = before[key]
        records[key] = Piece(target, start, stop, checksum, piece.written if piece else time.time_ns())
    _write_records(folder, records)


def remove_unused(file: Path) -> bool:
    """Remove a file of the store that no record names any more; whether it was removed."""
    folder, note = file.parent, file.with_suffix(KEYS)
    held = [file.stem]
    if file.name.startswith(HELD):
        try:
            held = json.loads(note.read_text("utf-8"))["keys"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False
    if any((piece := found(folder, key)) is not None and piece.file.name == file.name for key in held):
        return False
    file.unlink(missing_ok=True)
    note.unlink(missing_ok=True)
    return True


def drop(folder: Path, dropped: Iterable[str]) -> None:
    """Remove pieces that have a file of their own, or one that a killed drop has left; those that a part holds stay."""
    for key in dropped:
        piece = found(folder, key)
        if piece is None or piece.file.stem == key:
            (folder / f"{key}.json").unlink(missing_ok=True)
            (folder / f"{key}.parquet").unlink(missing_ok=True)


def _only_here(file: Path, key: str) -> bool:
    """Whether a piece is in no part of a run: in a file of its own, one whose part is gone, or in none."""
    try:
        return file.stem == key or file.stat().st_nlink == 1
    except FileNotFoundError:
        return True


def _linked(part: Path, target: Path) -> bool:
    """Give a file a second name, in place of what has it; False where the file system has no links."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with suppress(FileNotFoundError):
            if target.samefile(part):
                return True
        temporary.unlink(missing_ok=True)
        os.link(part, temporary)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    temporary.replace(target)
    return True


def _write_records(folder: Path, records: Mapping[str, Piece]) -> None:
    """Records of pieces in one file, each whole or not at all, one for TOGETHER pieces where there are links.

    The names are flushed once for all, and before a file that they named goes.
    """
    names, pending = {key: folder / f"{key}.json" for key in records}, list(records)
    while pending:
        first, *others = pending[:TOGETHER]
        temporary = folder / f".{first}.json.{os.getpid()}.tmp"
        try:
            temporary.write_text(_record({key: records[key] for key in (first, *others)}), "utf-8")
            atomic.flush(temporary)
            linked = itertools.takewhile(
                functools.partial(_linked, temporary), map(names.__getitem__, others)
            )
            pending = pending[1 + sum(1 for _ in linked) :]
            temporary.replace(names[first])
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    atomic.flush(folder)


def _record(together: Mapping[str, Piece]) -> str:
    """What stands in the record of a piece, or of several that are in one file."""
    one = next(iter(together.values()))
    own = {
        key: {"rows": [piece.start, piece.stop], "written": piece.written} for key, piece in together.items()
    }
    (single,) = own.values() if len(own) == 1 else ({"pieces": own},)
    return json.dumps({"checksum": one.checksum, "file": one.file.name} | single)
