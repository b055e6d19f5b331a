"""Garbage collection: what no run refers to is removed, and nothing while a run is in progress."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attrib_core.cli.main import main
from attrib_core.storage import tables
from attrib_core.storage.store import garbage_collection, layout, locks, pieces, references
from tests.storage.pieces_fixtures import names, write_part, write_pieces


def delta(results: Path, key: str) -> None:
    """Write files like those of a delta, with their record."""
    folder = layout.folder(results / "run", "deltas")
    folder.mkdir(parents=True, exist_ok=True)
    files = (folder / f"{key}.safetensors", folder / f"{key}.token.safetensors")
    for path in files:
        path.write_bytes(f"{path.name} ".encode() * 100)
    checksum = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    tables.write_json(folder / f"{key}.json", {"checksum": checksum})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two runs that share a delta and a piece, results that only one of them needs, and results that none needs."""
    results = tmp_path / "results"
    folder = layout.folder(results / "run", "synthesized")
    for key in ("shared", "mine", "stale", "nobody"):
        delta(results, key)
        write_pieces(folder, **{key: key})
    part = write_part(results / "run" / "part.parquet", "shared", "mine")
    pieces.consolidate(part, folder, [("shared", 6), ("mine", 4)])
    for kind, rule in (("deltas", "customize_part"), ("synthesized", "synthesize_part")):
        references.note(results / "run", f"{rule}/0000", kind, ["shared", "mine"])
        references.note(results / "run", f"{rule}/0001", kind, ["shared", "stale"])
        references.note(results / "other", f"{rule}/0000", kind, ["shared"])
    for run in ("run", "other"):
        references.note_jobs(results / run, ["customize_part/0000", "synthesize_part/0000"])
    return results


def left(results: Path, kind: str) -> set[str]:
    """Return the keys of the store's records, after a check that none is damaged."""
    store = results / layout.STORE
    assert not list(garbage_collection.find_damaged(store))
    return {path.stem for path in (store / kind).glob("*.json")}


def gc(results: Path, *given: str) -> int:
    return main(["store", "gc", "--results", str(results), *given])


def test_results_that_a_run_refers_to_stay(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(results.rglob("*"))
    assert gc(results) == 0
    assert sorted(results.rglob("*")) in (before, [*before, results / "store/lock"])
    printed = capsys.readouterr().out
    assert "deltas nobody" in printed and "synthesized nobody" in printed and "stale" not in printed
    assert "2 entries, 0.0 MB: can be removed with --delete" in printed
    assert gc(results, "--delete") == 0
    for kind in ("deltas", "synthesized"):
        assert left(results, kind) == {"shared", "mine", "stale"}
    capsys.readouterr()
    assert gc(results, "--delete") == 0 and capsys.readouterr().out == "nothing to remove\n"


def test_results_of_stale_jobs_are_removed_on_request(results: Path) -> None:
    assert gc(results, "--run", "other", "--delete") == 0
    assert left(results, "deltas") == {"shared", "mine", "stale"}
    assert gc(results, "--run", "run", "--delete") == 0
    for kind in ("deltas", "synthesized"):
        assert left(results, kind) == {"shared", "mine"}
    assert not (results / "run/refers/customize_part/0001.json").exists()


def test_a_removed_run_refers_to_nothing(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(results / "run")
    assert gc(results, "--run", "run", "--delete") == 0
    assert "run run: " in capsys.readouterr().out
    for kind in ("deltas", "synthesized"):
        assert left(results, kind) == {"shared"}
    # the part that held it was another run's: its bytes are still there
    assert names(pieces.read(layout.folder(results / "other", "synthesized"), "shared")) == list("shared")


@pytest.mark.parametrize("killed", range(1, 9))
def test_a_killed_removal_leaves_no_damaged_result(
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


def test_nothing_is_removed_while_a_run_is_in_progress(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locks.shared(results / "other"), locks.shared(results / "run"):
        assert gc(results) == 0  # a list needs no lock
        assert gc(results, "--delete") == 2
        assert "a run is in progress" in capsys.readouterr().err
        assert left(results, "deltas") == {"shared", "mine", "stale", "nobody"}
    assert gc(results, "--delete") == 0


def test_a_job_waits_until_garbage_collection_ends(results: Path) -> None:
    """It asks for the lock, which is taken, and gets it once garbage collection has ended."""
    program = """
import fcntl, sys
from pathlib import Path
from attrib_core.storage.store import locks
real = fcntl.flock
def flock(lock, kind):
    try:
        real(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        print("waits", flush=True)
    real(lock, kind)
fcntl.flock = flock
with locks.shared(Path(sys.argv[1])):
    print("locked", Path(sys.argv[1], "removed").exists(), flush=True)
"""
    with locks.exclusive(results / layout.STORE):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(results / "run")], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        (results / "run" / "removed").touch()
    out, _ = process.communicate(timeout=600)
    assert out == "locked True\n"


def test_an_unreadable_note_stops_the_removal(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = results / "run/refers/synthesize_part/0000.json"
    note.write_text("{")
    assert gc(results, "--delete") == 2
    assert f"{note}: not readable as a note of keys" in capsys.readouterr().err
    assert left(results, "deltas") == {"shared", "mine", "stale", "nobody"}


def test_list_and_verify(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "list", "--results", str(results)]) == 0
    printed = capsys.readouterr().out
    assert "deltas: 4 entries" in printed and "run other: refers to" in printed
    assert main(["store", "verify", "--results", str(results)]) == 0
    assert capsys.readouterr().out == "all files are unchanged\n"
    (results / "store/deltas/mine.token.safetensors").write_bytes(b"x")
    (results / "store/synthesized/stale.parquet").unlink()
    assert main(["store", "verify", "--results", str(results)]) == 1
    printed = capsys.readouterr().out
    assert "deltas/mine.json: its files have changed" in printed and "--forcerun customize_part" in printed
    assert (
        "synthesized/stale.json: its files have changed since they were written; the next job that needs them"
        in printed
    )
    assert printed.endswith("2 damaged\n")
    assert main(["store", "list", "--results", str(results / "nowhere")]) == 2


def test_files_that_disappear_while_they_are_counted_count_as_none(tmp_path: Path) -> None:
    present, gone = tmp_path / "present", tmp_path / "gone.tmp"
    present.write_bytes(b"123")
    assert garbage_collection.disk_usage([gone, present]) == 3
    assert garbage_collection.Entry("deltas", "x", (present, gone)).bytes == 3


def test_a_run_must_not_have_the_name_of_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.yaml").write_text("run: store\n")
    assert main(["check", "--config", str(tmp_path / "x.yaml")]) == 2
    assert "run: 'store' is the name of the store of all runs" in capsys.readouterr().err
