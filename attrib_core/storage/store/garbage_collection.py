"""What of the store nothing refers to, what each run refers to, and what is damaged.

A run is a folder beside the store in which jobs have noted what their outputs hang on. What no run
refers to may go; so may what only notes of jobs refer to that the run's config no longer has.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attrib_core.storage.store import layout, pieces

DELTAS = "deltas"
KINDS = (DELTAS, "prior", "synthesized", "embeddings")


@dataclass(frozen=True)
class Entry:
    """Files of the store with one name: a delta, a piece, a part that holds pieces, something left over."""

    kind: str
    name: str
    files: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the disk that they alone take: a file that is also a part of a run, or gone, takes none here."""
        size = 0
        for path in self.files:
            with suppress(FileNotFoundError):
                status = path.stat()
                size += status.st_size if status.st_nlink == 1 else 0
        return size


def files_of(store: Path, kind: str, key: str) -> list[Path]:
    """The files of a key that are there: its record first, which vouches for the others."""
    folder = store / kind
    record = folder / f"{key}.json"
    own = [record]
    if kind == DELTAS:
        own += [folder / f"{key}.safetensors", folder / f"{key}.token.safetensors"]
    elif (piece := pieces.found(folder, key)) is not None:
        own += [piece.file, piece.file.with_suffix(pieces.KEYS)]
    return [path for path in own if path.is_file()]


def garbage(results: Path, *, run: str | None = None) -> tuple[list[Entry], list[Path]]:
    """What may go: files of the store that no run needs, and stale notes of jobs of one run.

    `run` is the name of that run: what its stale notes refer to counts as referred to by others alone.
    """
    stale = stale_notes(results / run) if run else []
    store = results / layout.STORE
    needed: set[Path] = set()
    for one in layout.runs(results):
        for job, (kind, keys) in layout.references(one).items():
            if one / layout.REFERS / f"{job}.json" not in stale:
                needed.update(path for key in keys for path in files_of(store, kind, key))
    found: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for kind in KINDS:
        for path in sorted((store / kind).iterdir()) if (store / kind).is_dir() else []:
            if path.is_file() and path not in needed:
                found[kind, path.name.lstrip(".").partition(".")[0]].append(path)
    return [Entry(kind, name, tuple(files)) for (kind, name), files in found.items()], stale


def stale_notes(run: Path) -> list[Path]:
    """Notes of jobs that the config of a run had not any more when Snakemake last began; none where it did not."""
    jobs = layout.jobs_of(run)
    if jobs is None:
        return []
    return [run / layout.REFERS / f"{job}.json" for job in layout.references(run) if job not in jobs]


def remove(found: Iterable[Entry], stale: Iterable[Path]) -> None:
    """Remove entries and then notes. Records go before what they vouch for, so that a kill leaves nothing half."""
    everything = [path for entry in found for path in entry.files]
    for path in sorted(everything, key=lambda path: path.suffix != ".json"):
        path.unlink(missing_ok=True)
    for note in stale:
        note.unlink(missing_ok=True)


def damaged(store: Path) -> Iterator[Path]:
    """Records that their files do not bear out; a job that needs such a thing makes it again."""
    for kind in KINDS:
        for record in sorted((store / kind).glob("*.json")):
            if kind == DELTAS:
                sound = _sound_delta(store, record)
            else:
                sound = pieces.finished(record.parent, record.stem) is not None
            if not sound:
                yield record


def _sound_delta(store: Path, record: Path) -> bool:
    try:
        expected = json.loads(record.read_text("utf-8"))["checksum"]
        seen = hashlib.sha256()
        for path in files_of(store, DELTAS, record.stem)[1:]:
            seen.update(path.read_bytes())
        return bool(seen.hexdigest() == expected)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def of_run(run: Path) -> set[Path]:
    """The files of the store that a run refers to."""
    store = layout.root(run)
    return {
        path
        for kind, keys in layout.references(run).values()
        for key in keys
        for path in files_of(store, kind, key)
    }


def bytes_of(paths: Iterable[Path]) -> int:
    """Bytes of the disk that files take, each counted once however many names it has.

    Of a run in work some files are gone before it is their turn: temporary ones, and pieces that a part took over.
    """
    sizes = {}
    for path in paths:
        with suppress(FileNotFoundError):
            status = path.stat()
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
