"""Pieces: some rows of a stage's table in the store, each piece under a key of everything it depends on.

So a killed job continues at its first unfinished piece, and a run with one more exemplar set makes one more piece.
The record of a piece, `<key>.json`, is written last: it names a file of the folder, the rows of the piece in it, and
the checksum of its bytes. A piece is finished or not, and one that was damaged since is made again.

While a job is running, each piece has a file of its own. Once the table of the job's part is written, `consolidate`
gives that file a second name in the store by a hard link, points the records to it and removes the pieces' own files:
the disk has the bytes once, and they outlive the part, which Snakemake removes before its job runs again. A part may
hold hundreds of pieces, and flushing a new file to the disk takes as long as a cheap encoder needs for dozens of
images; so several pieces share one record, by hard links under each name.
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

PART_PREFIX = "part-"
KEYS_SUFFIX = ".keys"
PIECES_PER_RECORD = 32
"""At most: a record then fits a block of the disk, so that copies of it take no more space than single records."""
MAX_LOOKUPS = 10
"""Lookups of a piece that jobs of other runs move meanwhile; its record names an existing file at any time."""
NO_LINKS = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)


@dataclass(frozen=True)
class Piece:
    """Location of a finished piece: a file, and its rows from `start` up to but not including `stop`.

    checksum: SHA-256 of the file. written: nanoseconds since 1970; the same when the rows move to another file.
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
    _write_records(folder, {key: Piece(path, 0, len(rows), digests.read_once(path), time.time_ns())})


def lookup(folder: Path, key: str) -> Piece | None:
    """Return a piece by its record, without checking the bytes; None where there is no readable record."""
    try:
        record = _parsed((folder / f"{key}.json").read_text("utf-8"))
        own = record["pieces"][key] if "pieces" in record else record
        (start, stop), file = own["rows"], folder / Path(record["file"]).name
        return Piece(file, int(start), int(stop), str(record["checksum"]), int(own["written"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


@functools.lru_cache(maxsize=16)
def _parsed(text: str) -> Any:
    """Parse a record, which several pieces of a part may share."""
    return json.loads(text)


def finished(folder: Path, key: str) -> Piece | None:
    """Return a piece whose file has the bytes that were written; None for one that must be made.

    Looks again where another job has moved the piece between reading the record and the file.
    """
    for _ in range(MAX_LOOKUPS):
        piece = lookup(folder, key)
        if piece is None:
            return None
        try:
            return piece if digests.read_once(piece.file) == piece.checksum else None
        except FileNotFoundError:
            continue
    return None


def read(folder: Path, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a finished piece. Raises InputError for one that is missing or damaged."""
    return next(read_all(folder, [key], columns))


def read_all(folder: Path, wanted: Iterable[str], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of finished pieces, one piece after the other; see `read`.

    Pieces that follow each other in a file are read from it together, with a few row groups at most in memory.
    """
    opened: Path | None = None
    groups: range | None = None
    starts: list[int] = []
    for key in wanted:
        piece = finished(folder, key)
        while piece is not None and piece.file != opened:
            try:
                file = pq.ParquetFile(piece.file, pre_buffer=False)
            except FileNotFoundError:  # a job of another run has just moved it to another file
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
        end = min(max(first + 1, bisect.bisect_left(starts, piece.stop)), len(starts) - 1)
        if groups != (groups := range(first, end)):
            table = file.read_row_groups(list(groups), columns=list(columns) if columns else None)
        yield table.slice(piece.start - starts[first], piece.stop - piece.start)


def consolidate(part: Path, folder: Path, spans: Iterable[tuple[str, int]]) -> None:
    """Let a written part hold its pieces: keys and numbers of rows, in the order of the part's rows.

    A piece that another part holds stays there while that part exists. Where the file system has no hard links, pieces
    keep their own files, and those without one get a copy. The caller holds `locks.moving`.
    """
    rows_of: dict[str, tuple[int, int]] = {}
    first = 0
    for key, rows in spans:
        rows_of.setdefault(key, (first, first + rows))
        first += rows
    before = {key: lookup(folder, key) for key in rows_of}
    moving = {}
    for key, known in before.items():
        piece = known and finished(folder, key)
        if piece is None or _is_in_no_part(piece.file, key):
            moving[key] = rows_of[key]
    if moving:
        _move(part, folder, moving, before)
    own = {
        folder / f"{key}.parquet" for key in rows_of
    }  # including leftovers of a kill between record and removal
    for file in own | {piece.file for piece in before.values() if piece is not None}:
        if file.exists():
            remove_unused(file)


def _move(
    part: Path, folder: Path, moving: Mapping[str, tuple[int, int]], before: Mapping[str, Piece | None]
) -> None:
    """Let a part hold some pieces: keys and rows; `before` says where they are so far."""
    checksum = digests.read_once(part)
    target = folder / f"{PART_PREFIX}{hashing.content_key(checksum, list(moving))}.parquet"
    with atomic.writing(target.with_suffix(KEYS_SUFFIX), flush_folder=False) as temporary:
        temporary.write_text(json.dumps({"keys": list(moving)}), "utf-8")
    if not _linked(part, target):
        moving = {key: rows for key, rows in moving.items() if finished(folder, key) is None}
        if not moving:
            if not target.exists():  # otherwise it is a copy that holds pieces
                target.with_suffix(KEYS_SUFFIX).unlink()
            return
        with atomic.writing(target, flush_folder=False) as temporary:
            shutil.copyfile(part, temporary)
    records = {}
    for key, (start, stop) in moving.items():
        piece = before[key]
        records[key] = Piece(target, start, stop, checksum, piece.written if piece else time.time_ns())
    _write_records(folder, records)


def remove_unused(file: Path) -> bool:
    """Remove a file of the store unless a record names it; return whether it was removed."""
    folder, note = file.parent, file.with_suffix(KEYS_SUFFIX)
    keys = [file.stem]
    if file.name.startswith(PART_PREFIX):
        try:
            keys = json.loads(note.read_text("utf-8"))["keys"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False
    if any((piece := lookup(folder, key)) is not None and piece.file.name == file.name for key in keys):
        return False
    file.unlink(missing_ok=True)
    note.unlink(missing_ok=True)
    return True


def drop(folder: Path, keys: Iterable[str]) -> None:
    """Remove pieces with a file of their own, or with one that a killed drop left; pieces that a part holds stay."""
    for key in keys:
        piece = lookup(folder, key)
        if piece is None or piece.file.stem == key:
            (folder / f"{key}.json").unlink(missing_ok=True)
            (folder / f"{key}.parquet").unlink(missing_ok=True)


def _is_in_no_part(file: Path, key: str) -> bool:
    """Return whether no part of a run holds a piece: it has a file of its own, one whose part is gone, or none."""
    try:
        return file.stem == key or file.stat().st_nlink == 1
    except FileNotFoundError:
        return True


def _linked(part: Path, target: Path) -> bool:
    """Give a file a second name, replacing what has that name; return False where there are no hard links."""
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
    """Write records of pieces that are in one file, each atomically; where there are hard links, pieces share records.

    The folder is flushed once for all, and before files that earlier records named are removed.
    """
    names, pending = {key: folder / f"{key}.json" for key in records}, list(records)
    while pending:
        first, *others = pending[:PIECES_PER_RECORD]
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
    """Return the content of the record of a piece, or of several that are in one file."""
    one = next(iter(together.values()))
    own = {
        key: {"rows": [piece.start, piece.stop], "written": piece.written} for key, piece in together.items()
    }
    (single,) = own.values() if len(own) == 1 else ({"pieces": own},)
    return json.dumps({"checksum": one.checksum, "file": one.file.name} | single)
