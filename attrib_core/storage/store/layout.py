"""Where the store is, which run refers to what of it, and who is at work.

    results/store/<kind>/<key>...               deltas, prior images, synthesized images, embeddings
    results/store/lock                          shared by who works, held alone by who removes
    results/store/<kind>.moves                  held for moments by who moves or drops pieces, or notes keys
    results/<run>/refers/<rule>/<job>.json      the keys that a job's output, finished or in work, hangs on
    results/<run>/refers/jobs.json              the jobs of the run's config, when Snakemake last began

A job notes its keys before it looks for them, so that what a killed job has finished is referred to.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrib_core.common.errors import InputError
from attrib_core.storage import tables
from attrib_core.storage.store.claims import NO_LOCKS

STORE = "store"
REFERS = "refers"
JOBS = "jobs.json"
LOCK = "lock"
MOVES = ".moves"


def root(run: Path) -> Path:
    """The store of a run: beside its folder, which may be a link, so that `relative` holds for it."""
    parent = run.resolve().parent if run.is_symlink() else run.parent
    return parent / STORE


def folder(run: Path, kind: str) -> Path:
    """Where the store keeps what is of a kind."""
    return root(run) / kind


def relative(kind: str) -> Path:
    """The same as seen from the folder of the run."""
    return Path("..") / STORE / kind


def refer(run: Path, job: str, kind: str, keys: Iterable[str]) -> None:
    """Note that a job, "customize_part/0000" or "prior", hangs on keys of a kind, in place of what it noted before.

    A note that says so already is let be. What a job looks for after its note is not dropped any more: a drop that
    did not see the note has ended.
    """
    path, note = run / REFERS / f"{job}.json", {"kind": kind, "keys": sorted(set(keys))}
    with suppress(FileNotFoundError, ValueError):
        if json.loads(path.read_text("utf-8")) == note:
            return
    with moving(folder(run, kind)):
        tables.write_json(path, note)


def forget(run: Path, job: str, kind: str) -> None:
    """Note that a job hangs on no keys of a kind any more; for who has `moving`."""
    tables.write_json(run / REFERS / f"{job}.json", {"kind": kind, "keys": []})


def note_jobs(run: Path, jobs: Iterable[str]) -> None:
    """Note which jobs the config of a run has; what others referred to is stale."""
    tables.write_json(run / REFERS / JOBS, {"jobs": sorted(jobs)})


def jobs_of(run: Path) -> set[str] | None:
    """The jobs that a run's config had when Snakemake last began; None where that was not noted."""
    try:
        return set(json.loads((run / REFERS / JOBS).read_text("utf-8"))["jobs"])
    except FileNotFoundError:
        return None


def noted(run: Path, job: str) -> list[str]:
    """The keys that a job hangs on; none where it noted nothing. Raises InputError for a note that cannot be read."""
    path = run / REFERS / f"{job}.json"
    return _read(path, job)[1] if path.exists() else []


def references(run: Path) -> dict[str, tuple[str, list[str]]]:
    """Kind and keys by job of a run. Raises InputError for a note that cannot be read: it could be of anything."""
    found = {}
    for path in sorted((run / REFERS).rglob("*.json")):
        if path.name == JOBS:
            continue
        job = path.relative_to(run / REFERS).with_suffix("").as_posix()
        found[job] = _read(path, job)
    return found


def _read(path: Path, job: str) -> tuple[str, list[str]]:
    try:
        note = json.loads(path.read_text("utf-8"))
        return str(note["kind"]), [str(key) for key in note["keys"]]
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{path}: not readable as a note of keys; give the run's snakemake command again with"
            f" --forcerun {job.partition('/')[0]}"
        ) from None


def runs(results: Path) -> list[Path]:
    """The folders of runs that refer to the store, by name."""
    return sorted(path.parent for path in results.glob(f"*/{REFERS}"))


def referred(results: Path, *, without: Path | None = None) -> dict[str, set[str]]:
    """Keys that runs refer to, by kind; `without` is a run that is left out."""
    found: dict[str, set[str]] = defaultdict(set)
    for run in runs(results):
        if without is None or run.name != without.name:
            for kind, keys in references(run).values():
                found[kind].update(keys)
    return found


@contextmanager
def in_use(run: Path) -> Iterator[None]:
    """Inside, nothing is removed from the store: a lock of the operating system, shared by all who work.

    Waits for who removes. On a file system without locks nothing is held, and `alone` refuses there.
    """
    with _opened(root(run) / LOCK) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield


@contextmanager
def moving(kept: Path) -> Iterator[None]:
    """Inside, no other job moves or drops pieces of a folder of the store: it could remove a file that another has
    just given to a part, or a piece that another is about to use.

    For moments, not nested: waits for who does, who waits for nobody. Where there are no locks nothing is held.
    """
    with _opened(kept.with_name(kept.name + MOVES)) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield


@contextmanager
def alone(store: Path) -> Iterator[None]:
    """Inside, nobody works with the store. Raises InputError where somebody does, or it cannot be told."""
    with _opened(store / LOCK) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise InputError(
                    f"{store}: a run is in work, and may need what it has not yet noted; wait until it has ended"
                ) from None
            raise InputError(
                f"{store}: its file system takes no locks ({error.strerror}), so nobody can tell whether a run is"
                " in work"
            ) from None
        yield


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def move_in(run: Path) -> int:
    """Move the deltas that older versions kept below the folder of the run to the store; how many files.

    Their keys are the same. Their pieces of images had other keys, and stay where nobody reads them.
    """
    old, new = run / "deltas", folder(run, "deltas")
    files = sorted(old.iterdir()) if old.is_dir() else []
    for path in files:
        new.mkdir(parents=True, exist_ok=True)
        path.replace(new / path.name)
    if files:
        old.rmdir()
    return len(files)
