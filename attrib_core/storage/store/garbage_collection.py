"""Find what of the store no run refers to, what each run refers to, and what is damaged.

A run is a folder next to the store in which jobs have noted the keys that their outputs depend on. What no run
refers to may be removed; so may what only notes of jobs refer to that the run's config no longer has.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attrib_core.storage.store import layout, pieces, references


@dataclass(frozen=True)
class Entry:
    """Files of the store with one name: a delta, a piece, a part that holds pieces, or a leftover."""

    kind: str
    name: str
    files: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the disk that only these files take: 0 for one that is also part of a run, or gone."""
        size = 0
        for path in self.files:
            with suppress(FileNotFoundError):
                status = path.stat()
                size += status.st_size if status.st_nlink == 1 else 0
        return size


def files_of(store: Path, kind: str, key: str) -> list[Path]:
    """Return the files of a key that exist: its record first, without which the others do not count."""
    folder = store / kind
    files = [folder / f"{key}.json"]
    if kind == layout.DELTAS:
        files += [folder / f"{key}.safetensors", folder / f"{key}.token.safetensors"]
    elif (piece := pieces.lookup(folder, key)) is not None:
        files += [piece.file, piece.file.with_suffix(pieces.KEYS_SUFFIX)]
    return [path for path in files if path.is_file()]


def find_garbage(results: Path, *, run: str | None = None) -> tuple[list[Entry], list[Path]]:
    """Return what may be removed: files of the store that no run needs, and stale notes of the jobs of one run.

    `run` is the name of that run; its stale notes do not count as references.
    """
    stale = stale_notes(results / run) if run else []
    store = results / layout.STORE
    needed: set[Path] = set()
    for folder in references.runs(results):
        for job, (kind, keys) in references.by_job(folder).items():
            if references.note_path(folder, job) not in stale:
                needed.update(path for key in keys for path in files_of(store, kind, key))
    files: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for kind in layout.KINDS:
        for path in sorted((store / kind).iterdir()) if (store / kind).is_dir() else []:
            if path.is_file() and path not in needed:
                files[kind, path.name.lstrip(".").partition(".")[0]].append(path)
    return [Entry(kind, name, tuple(paths)) for (kind, name), paths in files.items()], stale


def stale_notes(run: Path) -> list[Path]:
    """Return notes of jobs that the config of a run did not have when Snakemake last started; none if it never did."""
    jobs = references.noted_jobs(run)
    if jobs is None:
        return []
    return [references.note_path(run, job) for job in references.by_job(run) if job not in jobs]


def remove(entries: Iterable[Entry], stale: Iterable[Path]) -> None:
    """Remove entries and then notes. Records go before their files, so that a kill leaves no record without files."""
    files = [path for entry in entries for path in entry.files]
    for path in sorted(files, key=lambda path: path.suffix != ".json"):
        path.unlink(missing_ok=True)
    for note in stale:
        note.unlink(missing_ok=True)


def find_damaged(store: Path) -> Iterator[Path]:
    """Yield records whose files are missing or changed; a job that needs such a result makes it again."""
    for kind in layout.KINDS:
        for record in sorted((store / kind).glob("*.json")):
            if kind == layout.DELTAS:
                intact = _is_intact_delta(store, record)
            else:
                intact = pieces.finished(record.parent, record.stem) is not None
            if not intact:
                yield record


def _is_intact_delta(store: Path, record: Path) -> bool:
    try:
        expected = json.loads(record.read_text("utf-8"))["checksum"]
        digest = hashlib.sha256()
        for path in files_of(store, layout.DELTAS, record.stem)[1:]:
            digest.update(path.read_bytes())
        return bool(digest.hexdigest() == expected)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def files_of_run(run: Path) -> set[Path]:
    """Return the files of the store that a run refers to."""
    store = layout.root(run)
    return {
        path
        for kind, keys in references.by_job(run).values()
        for key in keys
        for path in files_of(store, kind, key)
    }


def disk_usage(paths: Iterable[Path]) -> int:
    """Return the bytes of the disk that files take, each counted once however many names it has.

    While a run is in progress, files may disappear meanwhile: temporary ones, and pieces that a part took over.
    """
    sizes = {}
    for path in paths:
        with suppress(FileNotFoundError):
            status = path.stat()
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
