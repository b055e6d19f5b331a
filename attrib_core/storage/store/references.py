"""What each run needs from the store: notes of keys, one for each job.

    results/<run>/refers/<rule>/<job>.json   the keys that a job's output, finished or in progress, depends on
    results/<run>/refers/jobs.json           the jobs of the run's config, when Snakemake last started

A job notes its keys before it looks for results, so that garbage collection keeps what a killed job had finished.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from attrib_core.common.errors import InputError
from attrib_core.storage import run_layout, tables
from attrib_core.storage.store import layout, locks

JOBS = "jobs.json"


def note_path(run: Path, job: str) -> Path:
    """Return the path of a job's note; `job` is its name, such as "customize_part/0000" or "prior"."""
    return run / run_layout.REFERENCES / f"{job}.json"


def note(run: Path, job: str, kind: str, keys: Iterable[str]) -> None:
    """Note that a job depends on keys of a kind, in place of its earlier note; an equal note is left alone.

    What the job finds in the store after that is not dropped any more: drops that did not see the note have ended.
    """
    path, content = note_path(run, job), {"kind": kind, "keys": sorted(set(keys))}
    with suppress(FileNotFoundError, ValueError):
        if json.loads(path.read_text("utf-8")) == content:
            return
    with locks.moving(layout.folder(run, kind)):
        tables.write_json(path, content)


def clear(run: Path, job: str, kind: str) -> None:
    """Note that a job depends on no keys any more. The caller holds `locks.moving`."""
    tables.write_json(note_path(run, job), {"kind": kind, "keys": []})


def noted_keys(run: Path, job: str) -> list[str]:
    """Return the keys that a job depends on; none without a note. Raises InputError for a note that is unreadable."""
    path = note_path(run, job)
    return _read(path, job)[1] if path.exists() else []


def by_job(run: Path) -> dict[str, tuple[str, list[str]]]:
    """Return kind and keys of each job of a run. Raises InputError for an unreadable note, which could be about any."""
    notes = {}
    folder = run / run_layout.REFERENCES
    for path in sorted(folder.rglob("*.json")):
        if path.name != JOBS:
            job = path.relative_to(folder).with_suffix("").as_posix()
            notes[job] = _read(path, job)
    return notes


def by_kind(results: Path, *, without: Path | None = None) -> dict[str, set[str]]:
    """Return the keys that all runs of a folder refer to, by kind; `without` is a run that is left out."""
    keys_of: dict[str, set[str]] = defaultdict(set)
    for run in runs(results):
        if without is None or run.name != without.name:
            for kind, keys in by_job(run).values():
                keys_of[kind].update(keys)
    return keys_of


def runs(results: Path) -> list[Path]:
    """Return the folders of runs that refer to the store, sorted by name."""
    return sorted(path.parent for path in results.glob(f"*/{run_layout.REFERENCES}"))


def note_jobs(run: Path, jobs: Iterable[str]) -> None:
    """Note the jobs that the config of a run has; the notes of other jobs are stale."""
    tables.write_json(run / run_layout.REFERENCES / JOBS, {"jobs": sorted(jobs)})


def noted_jobs(run: Path) -> set[str] | None:
    """Return the jobs that a run's config had when Snakemake last started; None where they were not noted."""
    try:
        return set(json.loads((run / run_layout.REFERENCES / JOBS).read_text("utf-8"))["jobs"])
    except FileNotFoundError:
        return None


def _read(path: Path, job: str) -> tuple[str, list[str]]:
    try:
        content = json.loads(path.read_text("utf-8"))
        return str(content["kind"]), [str(key) for key in content["keys"]]
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{path}: not readable as a note of keys; give the run's snakemake command again with"
            f" --forcerun {job.partition('/')[0]}"
        ) from None
