"""The store of all runs: pieces, the parts that hold them, who refers to what, and what may go."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attrib_core.cli.main import main
from attrib_core.common.errors import InputError
from attrib_core.storage import tables
from attrib_core.storage.store import garbage_collection, layout, locks, parts, pieces, references
from tests.files_fixtures import rewrite

SCHEMA = tables.schema("rejects")


def rows(*names: str) -> list[dict[str, Any]]:
    return [{"image_id": name, "reason": f"why {name}"} for name in names]


def names(table: pa.Table) -> list[str]:
    found: list[str] = table["image_id"].to_pylist()
    return found


def made(folder: Path, **given: Sequence[str]) -> None:
    for key, own in given.items():
        pieces.write(folder, key, rows(*own), SCHEMA)


def part_of(path: Path, *own: Sequence[str]) -> Path:
    """A part as a job writes it: the rows of each piece, one after the other."""
    with tables.writer(path, SCHEMA) as sink:
        for some in own:
            sink.write(rows(*some))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return layout.folder(tmp_path / "results" / "run", "synthesized")


def test_a_piece_is_finished_or_not(folder: Path) -> None:
    assert pieces.finished(folder, "one") is None
    made(folder, one="ab")
    assert names(pieces.read(folder, "one")) == ["a", "b"]
    path = folder / "one.parquet"
    content = path.read_bytes()
    for damaged in (content[:-1], content[:-1] + b"\0", b""):
        rewrite(path, damaged)
        assert pieces.finished(folder, "one") is None
    path.unlink()
    assert pieces.finished(folder, "one") is None
    with pytest.raises(InputError, match="one: gone or damaged since it was made; give the same command"):
        pieces.read(folder, "one")
    path.write_bytes(content)
    for record in ("", "[]", "{}", '{"checksum": 1, "rows": [0]}'):
        (folder / "one.json").write_text(record)
        assert pieces.finished(folder, "one") is None


def test_a_part_holds_its_pieces_once(folder: Path, tmp_path: Path) -> None:
    """One file of two names: nothing stands twice, and the rows outlive the part."""
    made(folder, one="abc", two="d", three="ef")
    written = {key: piece.written for key in ("one", "two", "three") if (piece := pieces.lookup(folder, key))}
    part = part_of(tmp_path / "part.parquet", "abc", "d", "ef")
    pieces.consolidate(part, folder, [("one", 3), ("two", 1), ("three", 2)])
    assert [path.stat().st_ino for path in folder.glob("*.parquet")] == [part.stat().st_ino]
    part.unlink()
    assert [names(pieces.read(folder, key)) for key in ("one", "two", "three")] == [
        ["a", "b", "c"],
        ["d"],
        ["e", "f"],
    ]
    assert pieces.read(folder, "three", ["reason"]).column_names == ["reason"]
    assert {key: piece.written for key in written if (piece := pieces.lookup(folder, key))} == written
    # a flipped byte of the file is a flipped byte of all
    (file,) = folder.glob("*.parquet")
    rewrite(file, file.read_bytes()[:-1] + b"\0")
    assert [pieces.finished(folder, key) for key in written] == [None] * 3


def test_pieces_move_to_a_part_that_is_there(folder: Path, tmp_path: Path) -> None:
    """As after exemplar sets were added: the file of the old part goes with its last piece."""
    made(folder, one="ab", two="cd")
    old = part_of(tmp_path / "old.parquet", "ab", "cd")
    pieces.consolidate(old, folder, [("one", 2), ("two", 2)])
    (held,) = folder.glob("*.parquet")
    other = part_of(tmp_path / "of another run.parquet", "cd")
    pieces.consolidate(other, folder, [("two", 2)])
    assert [*folder.glob("*.parquet")] == [held], "the old part is still there, and holds it"
    old.unlink()
    made(folder, new="e")
    first = part_of(tmp_path / "first.parquet", "e", "ab")
    pieces.consolidate(first, folder, [("new", 1), ("one", 2)])
    assert held.exists() and names(pieces.read(folder, "two")) == ["c", "d"]
    second = part_of(tmp_path / "second.parquet", "cd")
    pieces.consolidate(second, folder, [("two", 2)])
    assert not held.exists() and not held.with_suffix(pieces.KEYS_SUFFIX).exists()
    assert [names(pieces.read(folder, key)) for key in ("new", "one", "two")] == [
        ["e"],
        ["a", "b"],
        ["c", "d"],
    ]


def test_a_piece_that_gets_another_file_while_it_is_read_is_read_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(folder, one="ab")
    part = part_of(tmp_path / "part.parquet", "ab")
    looked: list[Path] = []

    class Late(pq.ParquetFile):
        def __init__(self, path: Path, **named: Any) -> None:
            looked.append(path)
            if len(looked) == 1:  # after the look for the piece, a job of another run lets its part hold it
                pieces.consolidate(part, folder, [("one", 2)])
            super().__init__(path, **named)

    monkeypatch.setattr(pieces.pq, "ParquetFile", Late)
    assert names(pieces.read(folder, "one")) == ["a", "b"]
    assert looked[0] == folder / "one.parquet" and looked[1].name.startswith(pieces.PART_PREFIX)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.ENOTSUP])
def test_without_hard_links_bytes_stand_twice(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*given: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    made(folder, one="ab")
    part = part_of(tmp_path / "part.parquet", "ab", "c")
    pieces.consolidate(part, folder, [("one", 2), ("streamed", 1)])
    part.unlink()
    assert names(pieces.read(folder, "one")) == ["a", "b"] and names(pieces.read(folder, "streamed")) == ["c"]
    assert (folder / "one.parquet").exists() and not list(folder.glob(".*"))


def test_a_kill_while_a_part_is_being_held_loses_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each of the writes in turn; the next call ends as if nothing had been."""
    part = part_of(tmp_path / "part.parquet", "ab", "c")
    real = {name: getattr(Path, name) for name in ("replace", "unlink")}
    for killed in range(1, 12):
        made(folder, one="ab", two="c")
        calls: list[str] = []
        with monkeypatch.context() as patched:
            for name, work in real.items():

                def step(
                    *given: Any, work: Any = work, calls: list[str] = calls, at: int = killed, **named: Any
                ) -> Any:
                    calls.append("")
                    if len(calls) == at:
                        raise KeyboardInterrupt
                    return work(*given, **named)

                patched.setattr(Path, name, step)
            with pytest.raises(KeyboardInterrupt):
                pieces.consolidate(part, folder, [("one", 2), ("two", 1)])
        assert names(pieces.read(folder, "one")) == ["a", "b"] and names(pieces.read(folder, "two")) == ["c"]
        pieces.consolidate(part, folder, [("one", 2), ("two", 1)])
        left = [path for path in folder.iterdir() if path.suffix != ".tmp"]
        assert {path.suffix for path in left} == {".json", ".parquet", ".keys"}
        held = {path.stat().st_ino for path in folder.glob("*.parquet") if not path.name.startswith(".")}
        assert held == {part.stat().st_ino}
        for path in folder.iterdir():
            path.unlink()


def test_only_a_sample_is_kept(tmp_path: Path) -> None:
    results = tmp_path / "results"
    run, other = results / "run", results / "other"
    folder = layout.folder(run, "synthesized")
    made(folder, mine="a", ours="b")
    references.note(run, "synthesize_part/0000", "synthesized", ["mine", "ours"])
    references.note(other, "synthesize_part/0000", "synthesized", ["ours"])
    parts.release("synthesized", run=run, job="synthesize_part/0000")
    assert pieces.finished(folder, "mine") is None and pieces.finished(folder, "ours") is not None
    assert {path.name for path in folder.iterdir()} == {"ours.json", "ours.parquet"}
    parts.release("synthesized", run=run, job="synthesize_part/0000")
    assert pieces.finished(folder, "ours") is not None, "what was let go is let go once"
    parts.release("synthesized", run=other, job="synthesize_part/0000")
    assert not list(folder.iterdir()), "the last of two runs that keep a sample leaves no pieces"


def delta(results: Path, key: str) -> None:
    """A delta as `customize` leaves it, to who looks at its files alone."""
    import hashlib

    folder = layout.folder(results / "run", "deltas")
    folder.mkdir(parents=True, exist_ok=True)
    files = (folder / f"{key}.safetensors", folder / f"{key}.token.safetensors")
    for path in files:
        path.write_bytes(f"{path.name} ".encode() * 100)
    checksum = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    tables.write_json(folder / f"{key}.json", {"checksum": checksum})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two runs that share a delta and a piece, things of each alone, and things of none."""
    results = tmp_path / "results"
    folder = layout.folder(results / "run", "synthesized")
    for key in ("shared", "mine", "stale", "nobody"):
        delta(results, key)
        made(folder, **{key: key})
    part = part_of(results / "run" / "part.parquet", "shared", "mine")
    pieces.consolidate(part, folder, [("shared", 6), ("mine", 4)])
    for kind, rule in (("deltas", "customize_part"), ("synthesized", "synthesize_part")):
        references.note(results / "run", f"{rule}/0000", kind, ["shared", "mine"])
        references.note(results / "run", f"{rule}/0001", kind, ["shared", "stale"])
        references.note(results / "other", f"{rule}/0000", kind, ["shared"])
    for run in ("run", "other"):
        references.note_jobs(results / run, ["customize_part/0000", "synthesize_part/0000"])
    return results


def left(results: Path, kind: str) -> set[str]:
    """Keys of which the store has a record, after a look that each has its files."""
    store = results / layout.STORE
    assert not list(garbage_collection.find_damaged(store))
    return {path.stem for path in (store / kind).glob("*.json")}


def gc(results: Path, *given: str) -> int:
    return main(["store", "gc", "--results", str(results), *given])


def test_what_is_referred_to_stays(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(results.rglob("*"))
    assert gc(results) == 0
    assert sorted(results.rglob("*")) in (before, [*before, results / "store/lock"])
    said = capsys.readouterr().out
    assert "deltas nobody" in said and "synthesized nobody" in said and "stale" not in said
    assert "2 entries, 0.0 MB: can be removed with --delete" in said
    assert gc(results, "--delete") == 0
    for kind in ("deltas", "synthesized"):
        assert left(results, kind) == {"shared", "mine", "stale"}
    capsys.readouterr()
    assert gc(results, "--delete") == 0 and capsys.readouterr().out == "nothing to remove\n"


def test_what_only_stale_jobs_of_a_run_refer_to_goes_when_asked(results: Path) -> None:
    assert gc(results, "--run", "other", "--delete") == 0
    assert left(results, "deltas") == {"shared", "mine", "stale"}
    assert gc(results, "--run", "run", "--delete") == 0
    for kind in ("deltas", "synthesized"):
        assert left(results, kind) == {"shared", "mine"}
    assert not (results / "run/refers/customize_part/0001.json").exists()


def test_a_run_that_is_gone_refers_to_nothing(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.rmtree(results / "run")
    assert gc(results, "--run", "run", "--delete") == 0
    assert "run run: " in capsys.readouterr().out
    for kind in ("deltas", "synthesized"):
        assert left(results, kind) == {"shared"}
    # the part that held it was another run's: its bytes are still there
    assert names(pieces.read(layout.folder(results / "other", "synthesized"), "shared")) == list("shared")


@pytest.mark.parametrize("killed", range(1, 9))
def test_a_removal_that_is_killed_leaves_nothing_half(
    results: Path, monkeypatch: pytest.MonkeyPatch, killed: int
) -> None:
    real, calls = Path.unlink, []

    def unlink(path: Path, missing_ok: bool = False) -> None:
        calls.append(path)
        if len(calls) == killed:
            raise KeyboardInterrupt
        real(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            gc(results, "--run", "run", "--delete")
    assert {"shared", "mine"} <= left(results, "deltas") & left(results, "synthesized")
    assert gc(results, "--run", "run", "--delete") == 0
    assert left(results, "deltas") == left(results, "synthesized") == {"shared", "mine"}


def test_nothing_is_removed_while_a_run_is_in_work(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locks.shared(results / "other"), locks.shared(results / "run"):
        assert gc(results) == 0  # looking is free
        assert gc(results, "--delete") == 2
        assert "a run is in progress" in capsys.readouterr().err
        assert left(results, "deltas") == {"shared", "mine", "stale", "nobody"}
    assert gc(results, "--delete") == 0


def test_who_works_waits_for_who_removes(results: Path) -> None:
    """It asks for the lock, is told that somebody has it, and has it once that one is through."""
    words = """
import fcntl, sys
from pathlib import Path
from attrib_core.storage.store import layout, locks, references
real = fcntl.flock
def flock(lock, kind):
    try:
        real(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        print("waits", flush=True)
    real(lock, kind)
fcntl.flock = flock
with locks.shared(Path(sys.argv[1])):
    print("at work", Path(sys.argv[1], "removed").exists(), flush=True)
"""
    with locks.exclusive(results / layout.STORE):
        process = subprocess.Popen(
            [sys.executable, "-c", words, str(results / "run")], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        (results / "run" / "removed").touch()
    out, _ = process.communicate(timeout=600)
    assert out == "at work True\n"


def test_a_note_that_cannot_be_read_stops_the_removal(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = results / "run/refers/synthesize_part/0000.json"
    note.write_text("{")
    assert gc(results, "--delete") == 2
    assert f"{note}: not readable as a note of keys" in capsys.readouterr().err
    assert left(results, "deltas") == {"shared", "mine", "stale", "nobody"}


def test_list_and_verify(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "list", "--results", str(results)]) == 0
    said = capsys.readouterr().out
    assert "deltas: 4 entries" in said and "run other: refers to" in said
    assert main(["store", "verify", "--results", str(results)]) == 0
    assert capsys.readouterr().out == "all files are unchanged\n"
    (results / "store/deltas/mine.token.safetensors").write_bytes(b"x")
    (results / "store/synthesized/stale.parquet").unlink()
    assert main(["store", "verify", "--results", str(results)]) == 1
    said = capsys.readouterr().out
    assert "deltas/mine.json: its files have changed" in said and "--forcerun customize_part" in said
    assert (
        "synthesized/stale.json: its files have changed since they were written; the next job that needs them"
        in said
    )
    assert said.endswith("2 damaged\n")
    assert main(["store", "list", "--results", str(results / "nowhere")]) == 2


def test_files_that_vanish_while_a_run_is_in_work_count_for_nothing(tmp_path: Path) -> None:
    there, gone = tmp_path / "there", tmp_path / "gone.tmp"
    there.write_bytes(b"123")
    assert garbage_collection.disk_usage([gone, there]) == 3
    assert garbage_collection.Entry("deltas", "x", (there, gone)).bytes == 3


def test_a_run_may_not_be_called_like_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.yaml").write_text("run: store\n")
    assert main(["check", "--config", str(tmp_path / "x.yaml")]) == 2
    assert "run: 'store' is the name of the store of all runs" in capsys.readouterr().err


def test_a_linked_run_has_its_store_next_to_the_target_of_the_link(tmp_path: Path) -> None:
    real = tmp_path / "large disk" / "run"
    real.mkdir(parents=True)
    (tmp_path / "results").mkdir()
    run = tmp_path / "results" / "run"
    run.symlink_to(real)
    made(layout.folder(run, "prior"), one="a")
    assert (run / layout.relative("prior") / "one.json").exists()
    assert json.loads((real.parent / "store/prior/one.json").read_text())["rows"] == [0, 1]
