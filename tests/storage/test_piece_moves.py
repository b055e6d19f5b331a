"""Pieces that jobs of several runs move and drop at the same time, and what a kill or a full disk leaves."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from attrib_core.storage import atomic, digests, tables
from attrib_core.storage.store import claims, garbage_collection, layout, locks, parts, pieces, references
from tests.storage.claims_fixtures import ROOT
from tests.storage.pieces_fixtures import write_part, write_pieces

KIND = "synthesized"
JOBS = """
import sys
from pathlib import Path
from attrib_core.storage import tables
from attrib_core.storage.store import claims, layout, parts, pieces, references
schema, run, size, made = tables.schema("rejects"), Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
keys, folder = [f"{number * 0x1234567:020x}" for number in range(12)], layout.folder(run, "synthesized")
finished = lambda key: pieces.finished(folder, key) is not None
for start in [*range(0, 12, size)] * 20:
    path, cut = run / f"part-{start}.parquet", keys[start : start + size]
    path.unlink(missing_ok=True)  # as Snakemake does before a job runs again
    references.note(run, f"synthesize_part/{start}", "synthesized", cut)
    for mine in claims.turns(folder, [[key for key in cut if not finished(key)]], finished, what="things"):
        for key in mine:
            with made.open("a") as lines:
                lines.write(key + "\\n")
            pieces.write(folder, key, [{"image_id": key, "reason": "x"}], schema)
    spans = parts.write(path, "rejects", ((key, pieces.read(folder, key)) for key in cut))
    parts.consolidate(path, "synthesized", spans, run=run)
"""


def consolidate(part: Path, folder: Path, *keys: str) -> None:
    pieces.consolidate(part, folder, [(key, 1) for key in keys])


def test_runs_whose_jobs_run_again_and_again_lose_nothing(tmp_path: Path) -> None:
    """Parts of two sizes take over each other's pieces; each is made once, and at the end all are intact."""
    results = tmp_path / "results"
    command = [sys.executable, "-c", JOBS]
    jobs = [
        subprocess.Popen([*command, str(results / f"of {size}"), str(size), str(tmp_path / "made")], cwd=ROOT)
        for size in (12, 6)
    ]
    assert [job.wait(timeout=600) for job in jobs] == [0, 0]
    assert set(Counter((tmp_path / "made").read_text().split()).values()) == {1}
    assert not list(garbage_collection.find_damaged(results / layout.STORE)) and not list(
        results.rglob(".*.tmp")
    )


def test_moves_drops_and_notes_happen_under_the_lock(
    run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a decision is based on stays as it is until the decision is carried out."""
    locked: list[tuple[str, bool]] = []

    def watched(module: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(module, name)

        def work(*given: Any, **named: Any) -> Any:
            with (folder.parent / f"{KIND}.moves").open("w") as other:
                try:
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    locked.append((name, False))
                except BlockingIOError:
                    locked.append((name, True))
            return real(*given, **named)

        monkeypatch.setattr(module, name, work)

    write_pieces(folder, one=["one"])
    part = write_part(run / "part.parquet", ["one"])
    for module, name in (
        (pieces, "consolidate"),
        (pieces, "drop"),
        (references, "by_kind"),
        (tables, "write_json"),
    ):
        watched(module, name)
    references.note(run, "synthesize_part/0000", KIND, ["one"])
    parts.consolidate(part, KIND, [("one", 1)], run=run)
    parts.release(KIND, run=run, job="synthesize_part/0000")
    names = ["write_json", "consolidate", "by_kind", "drop", "write_json"]
    assert locked == [(name, True) for name in names]
    with locks.moving(folder):
        pass  # all have released it


@pytest.mark.parametrize("number", claims.NO_LOCKS, ids=errno.errorcode.__getitem__)
def test_without_locks_pieces_move_all_the_same(
    run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    write_pieces(folder, one=["one"])
    parts.consolidate(write_part(run / "part.parquet", ["one"]), KIND, [("one", 1)], run=run)
    assert pieces.read(folder, "one")["image_id"].to_pylist() == ["one"]


def test_a_piece_that_is_moved_again_and_again_is_found(
    run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading its record and reading its file, three times."""
    write_pieces(folder, one=["one"], two=["two"])
    cuts = [("one",), ("two", "one"), ("one", "two")]
    left, real = [write_part(run / f"{len(cut)}{cut[0]}.parquet", cut) for cut in cuts], digests.read_once

    def late(path: Path) -> str:
        if left:
            with monkeypatch.context() as quiet:
                quiet.setattr(digests, "read_once", real)
                part = left.pop(0)
                consolidate(part, folder, *cuts[-1 - len(left)])
            part.unlink()  # as before the next job with that piece
        return real(path)

    monkeypatch.setattr(digests, "read_once", late)
    piece = pieces.finished(folder, "one")
    assert not left and piece is not None and piece.file.exists()


def test_the_next_drop_removes_what_a_killed_one_left(run: Path, folder: Path) -> None:
    write_pieces(folder, one=["one"])
    references.note(run, "synthesize_part/0000", KIND, ["one"])
    (folder / "one.json").unlink()  # the kill came between record and file
    parts.release(KIND, run=run, job="synthesize_part/0000")
    assert not list(folder.iterdir())


@pytest.fixture
def without_links(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    yield


@pytest.mark.usefixtures("without_links")
def test_a_copy_that_holds_pieces_twice_can_be_removed(run: Path, folder: Path) -> None:
    part = write_part(run / "part.parquet", ["one"], ["two"])
    folder.mkdir(parents=True)
    consolidate(part, folder, "one", "two")
    consolidate(part, folder, "one", "two")
    (copy,) = folder.glob("part-*.parquet")
    assert copy.with_suffix(pieces.KEYS_SUFFIX).exists()
    for key in ("one", "two"):
        (folder / f"{key}.json").unlink()
    assert pieces.remove_unused(copy) and not list(folder.iterdir())


def test_a_full_disk_leaves_no_incomplete_record(
    run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pieces(folder, one=["one"], two=["two"])
    part, real = write_part(run / "part.parquet", ["one"], ["two"]), atomic.flush

    def full(path: Path) -> None:
        if path.name.startswith(".one.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path)

    monkeypatch.setattr(atomic, "flush", full)
    with pytest.raises(OSError, match="No space"):
        consolidate(part, folder, "one", "two")
    assert not list(folder.glob(".*"))
    for key in ("one", "two"):
        assert pieces.read(folder, key)["image_id"].to_pylist() == [key]


def test_a_file_that_was_just_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other bytes of the same length could have the same time while the file system's clock does not advance."""
    second = 1_000_000_000
    path, now = tmp_path / "x", [0]
    monkeypatch.setattr(digests.time, "time_ns", lambda: now[0])

    def digest(content: bytes, modified: int) -> str:
        path.write_bytes(content)
        os.utime(path, ns=(modified, modified))
        return digests.read_once(path)

    for modified, age, cached in (
        (7 * second + 1, 0, False),
        (8 * second + 1, digests.TICK, False),
        (9 * second + 1, digests.TICK + 1, True),
        (10 * second, 2 * second, False),
        (11 * second, 3 * second, True),
        (12 * second + 1, -3600 * second, False),  # the clock of another machine
    ):
        now[0] = modified + age
        first = digest(b"first", modified)
        assert (digest(b"other", modified) == first) is cached, (modified, age)
