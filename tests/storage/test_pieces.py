"""Pieces of the store: finished or not, held once by the parts of runs, and never lost by a kill."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from attrib_core.common.errors import InputError
from attrib_core.storage.store import layout, parts, pieces, references
from tests.files_fixtures import rewrite
from tests.storage.pieces_fixtures import names, write_part, write_pieces


def test_a_piece_is_finished_or_not(folder: Path) -> None:
    assert pieces.finished(folder, "one") is None
    write_pieces(folder, one="ab")
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


def test_a_part_and_its_pieces_are_one_file(folder: Path, tmp_path: Path) -> None:
    """A file with two names: the disk has the bytes once, and the rows outlive the part."""
    write_pieces(folder, one="abc", two="d", three="ef")
    written = {key: piece.written for key in ("one", "two", "three") if (piece := pieces.lookup(folder, key))}
    part = write_part(tmp_path / "part.parquet", "abc", "d", "ef")
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
    # a changed byte of the file damages all of its pieces
    (file,) = folder.glob("*.parquet")
    rewrite(file, file.read_bytes()[:-1] + b"\0")
    assert [pieces.finished(folder, key) for key in written] == [None] * 3


def test_pieces_move_to_a_part_that_exists(folder: Path, tmp_path: Path) -> None:
    """As after exemplar sets were added: the file of the old part goes with its last piece."""
    write_pieces(folder, one="ab", two="cd")
    old = write_part(tmp_path / "old.parquet", "ab", "cd")
    pieces.consolidate(old, folder, [("one", 2), ("two", 2)])
    (held,) = folder.glob("*.parquet")
    other = write_part(tmp_path / "of another run.parquet", "cd")
    pieces.consolidate(other, folder, [("two", 2)])
    assert [*folder.glob("*.parquet")] == [held], "the old part still exists, and holds it"
    old.unlink()
    write_pieces(folder, new="e")
    first = write_part(tmp_path / "first.parquet", "e", "ab")
    pieces.consolidate(first, folder, [("new", 1), ("one", 2)])
    assert held.exists() and names(pieces.read(folder, "two")) == ["c", "d"]
    second = write_part(tmp_path / "second.parquet", "cd")
    pieces.consolidate(second, folder, [("two", 2)])
    assert not held.exists() and not held.with_suffix(pieces.KEYS_SUFFIX).exists()
    assert [names(pieces.read(folder, key)) for key in ("new", "one", "two")] == [
        ["e"],
        ["a", "b"],
        ["c", "d"],
    ]


def test_a_piece_that_moves_while_it_is_read_is_read_from_its_new_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pieces(folder, one="ab")
    part = write_part(tmp_path / "part.parquet", "ab")
    opened: list[Path] = []

    class Late(pq.ParquetFile):
        def __init__(self, path: Path, **named: Any) -> None:
            opened.append(path)
            if len(opened) == 1:  # after the lookup, a job of another run consolidates its part
                pieces.consolidate(part, folder, [("one", 2)])
            super().__init__(path, **named)

    monkeypatch.setattr(pieces.pq, "ParquetFile", Late)
    assert names(pieces.read(folder, "one")) == ["a", "b"]
    assert opened[0] == folder / "one.parquet" and opened[1].name.startswith(pieces.PART_PREFIX)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.ENOTSUP])
def test_without_hard_links_the_bytes_are_copied(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*given: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    write_pieces(folder, one="ab")
    part = write_part(tmp_path / "part.parquet", "ab", "c")
    pieces.consolidate(part, folder, [("one", 2), ("streamed", 1)])
    part.unlink()
    assert names(pieces.read(folder, "one")) == ["a", "b"] and names(pieces.read(folder, "streamed")) == ["c"]
    assert (folder / "one.parquet").exists() and not list(folder.glob(".*"))


def test_a_kill_during_consolidation_loses_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each of the writes in turn; the next call ends as if there had been no kill."""
    part = write_part(tmp_path / "part.parquet", "ab", "c")
    real = {name: getattr(Path, name) for name in ("replace", "unlink")}
    for killed in range(1, 12):
        write_pieces(folder, one="ab", two="c")
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


def test_a_part_of_which_a_sample_is_kept_releases_its_pieces(run: Path, folder: Path) -> None:
    other = run.with_name("other")
    write_pieces(folder, mine="a", ours="b")
    references.note(run, "synthesize_part/0000", "synthesized", ["mine", "ours"])
    references.note(other, "synthesize_part/0000", "synthesized", ["ours"])
    parts.release("synthesized", run=run, job="synthesize_part/0000")
    assert pieces.finished(folder, "mine") is None and pieces.finished(folder, "ours") is not None
    assert {path.name for path in folder.iterdir()} == {"ours.json", "ours.parquet"}
    parts.release("synthesized", run=run, job="synthesize_part/0000")
    assert pieces.finished(folder, "ours") is not None, "pieces are released once"
    parts.release("synthesized", run=other, job="synthesize_part/0000")
    assert not list(folder.iterdir()), "the last of two runs that keep a sample leaves no pieces"


def test_a_linked_run_has_its_store_next_to_the_target_of_the_link(tmp_path: Path) -> None:
    real = tmp_path / "large disk" / "run"
    real.mkdir(parents=True)
    (tmp_path / "results").mkdir()
    run = tmp_path / "results" / "run"
    run.symlink_to(real)
    write_pieces(layout.folder(run, "prior"), one="a")
    assert (run / layout.relative("prior") / "one.json").exists()
    assert json.loads((real.parent / "store/prior/one.json").read_text())["rows"] == [0, 1]
