"""Records that the pieces of a part share, so that few files are flushed and read."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.runtime import job_records
from attrib_core.storage import atomic, digests, tables
from attrib_core.storage.store import layout, pieces, references
from tests.storage.pieces_fixtures import SCHEMA, rows

KEYS = [f"{number:020x}" for number in range(70)]
SPANS = [(key, 1 + number % 3) for number, key in enumerate(KEYS)]


def expected(key: str, count: int) -> list[str]:
    return [f"{key}-{number}" for number in range(count)]


def ids(folder: Path, key: str) -> list[str]:
    found: list[str] = pieces.read(folder, key)["image_id"].to_pylist()
    return found


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """A part of many small pieces, in row groups cut elsewhere; with an old time, so that its digest is cached."""
    path = tmp_path / "results" / "run" / "part.parquet"
    all_rows = rows(name for key, count in SPANS for name in expected(key, count))
    with tables.writer(path, SCHEMA) as sink:
        for start in range(0, len(all_rows), 50):
            sink.write(all_rows[start : start + 50])
    os.utime(path, ns=(3, 3))
    return path


@pytest.fixture
def folder(part: Path) -> Path:
    return layout.folder(part.parent, "embeddings")


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was flushed to the disk."""
    names: list[str] = []
    real: Callable[[Path], None] = atomic.flush
    monkeypatch.setattr(atomic, "flush", lambda path: (names.append(path.name), real(path)))
    return names


def consolidate(part: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pieces.consolidate(part, folder, SPANS)
    for key, count in SPANS:
        assert ids(folder, key) == expected(key, count)


def test_dozens_of_pieces_share_one_record_that_is_flushed_once(
    part: Path, folder: Path, flushed: list[str]
) -> None:
    consolidate(part, folder)
    assert len({path.stat().st_ino for path in folder.glob("*.json")}) == 3, "70 pieces, 32 at most in each"
    assert len(flushed) == 1 + 3 + 1, "the note of keys, three records, the names in the folder"
    assert max(path.stat().st_size for path in folder.glob("*.json")) < 4096
    flushed.clear()
    consolidate(part, folder)
    assert not flushed, "what the part holds already is not moved again"


def test_a_plain_copy_has_all_pieces(part: Path, folder: Path, tmp_path: Path) -> None:
    consolidate(part, folder)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert len({path.stat().st_ino for path in copy.glob("*.json")}) == 70
    for key, count in SPANS:
        assert ids(copy, key) == expected(key, count)


@pytest.mark.parametrize("links", [0, 1, 40])
def test_without_links_each_piece_has_a_record_of_its_own(
    part: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, links: int
) -> None:
    """From the first on, or where a file system allows only so many names for a file."""
    real, calls = os.link, []

    def link(*given: Any) -> None:
        calls.append(given)
        if len(calls) > links:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        real(*given)

    monkeypatch.setattr(os, "link", link)
    consolidate(part, folder)
    assert not list(folder.glob(".*"))


def test_a_piece_of_a_shared_record_can_be_removed_alone(part: Path, folder: Path) -> None:
    consolidate(part, folder)
    (folder / f"{KEYS[5]}.json").unlink()
    assert pieces.finished(folder, KEYS[5]) is None
    (folder / f"{KEYS[6]}.json").write_text("{", "utf-8")  # and with it its other names
    lost = [key for key in KEYS if pieces.finished(folder, key) is None]
    assert lost == KEYS[:32]
    consolidate(part, folder)


def test_a_record_of_a_single_piece_is_read(folder: Path) -> None:
    """As older versions wrote them, and as for a piece with a file of its own."""
    pieces.write(folder, "one", rows("a"), SCHEMA)
    checksum = hashing.file_digest(folder / "one.parquet")
    record = {"checksum": checksum, "file": "one.parquet", "rows": [0, 1], "written": 5}
    tables.write_json(folder / "one.json", record)
    assert pieces.lookup(folder, "one") == pieces.Piece(folder / "one.parquet", 0, 1, checksum, 5)
    assert ids(folder, "one") == ["a"]


@pytest.mark.parametrize("order", [1, -1])
def test_pieces_are_read_in_any_order(part: Path, folder: Path, order: int) -> None:
    consolidate(part, folder)
    pieces.write(folder, "own", rows(["own"]), SCHEMA)
    pieces.write(folder, "none", [], SCHEMA)
    wanted = [*KEYS[::order], "own", KEYS[3], "none", KEYS[3], "own"]
    found = [table["image_id"].to_pylist() for table in pieces.read_all(folder, wanted, ["image_id"])]
    every = {key: expected(key, count) for key, count in SPANS} | {"own": ["own"], "none": []}
    assert found == [every[key] for key in wanted]
    with pytest.raises(InputError, match="gone: gone or damaged since it was made"):
        list(pieces.read_all(folder, [KEYS[0], "gone"]))


def test_a_part_is_read_once_for_its_checksums(
    part: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For its pieces, a check of each, and the record of the job; a change is noticed nevertheless."""
    reads: list[Path] = []
    real = hashing.file_digest
    monkeypatch.setattr(hashing, "file_digest", lambda path: (reads.append(path), real(path))[1])
    consolidate(part, folder)
    job: dict[str, Any] = {"rule": "r", "log": [str(part.parent / "logs/r.log")], "input": [], "params": {}}
    record = job_records.save(SimpleNamespace(**job, output=[str(part)], wildcards={}))
    assert reads == [part] and record is not None
    written = job_records.read(record)
    assert written is not None and written.outputs[str(part)].checksum == real(part)
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    os.utime(part, ns=(1, 1))
    assert digests.read_once(part) == real(part)
    assert pieces.finished(folder, KEYS[0]) is None


def test_an_equal_note_of_keys_is_not_written_again(part: Path, flushed: list[str]) -> None:
    references.note(part.parent, "embed/x", "embeddings", ["b", "a"])
    assert len(flushed) == 2
    references.note(part.parent, "embed/x", "embeddings", ["a", "b", "a"])
    assert len(flushed) == 2
    for note in ("", '{"kind": "embeddings"}'):
        (part.parent / "refers/embed/x.json").write_text(note, "utf-8")
        references.note(part.parent, "embed/x", "embeddings", ["a"])
        assert references.by_job(part.parent)["embed/x"] == ("embeddings", ["a"])
