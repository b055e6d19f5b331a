"""Keep Snakemake's own metadata next to the results, so that a copied folder of results is recognised."""

from __future__ import annotations

import os
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

from attrib_core.runtime.job_records import Record, _is_as_made, _modified, all_of

METADATA = Path(".snakemake", "metadata")


INCOMPLETE = Path(".snakemake", "incomplete")


HOME = Path("results", ".metadata")


NOTE_NAME = 254  # characters: one less than file systems allow


def settle(run: Path) -> list[str]:
    """Give files back the times at which they were made, where copying or touching took these.

    Snakemake holds times against each other, and after a plain copy they say nothing. So where an
    input of a finished job is newer than an output, both get their recorded times, if size and
    checksum say that they are as they were made. A file that really changed keeps its time, so that
    what depends on it runs again. Returns the paths that were set back.
    """
    finished = list(all_of(run))
    made = {name: output for record in finished for name, output in record.outputs.items()}
    times = {name: _modified(name) for record in finished for name in (*record.inputs, *record.outputs)}
    intact: dict[str, bool] = {}
    settled = []
    pending = True
    while pending:
        pending = False
        for name in _out_of_order(finished, times):
            if name in intact or name not in made:
                continue
            intact[name] = times[name] != made[name].modified and _is_as_made(Path(name), made[name])
            if intact[name]:
                os.utime(name, ns=(made[name].modified, made[name].modified))
                times[name] = made[name].modified
                settled.append(name)
                pending = True
    return settled


def _out_of_order(finished: list[Record], times: Mapping[str, int | None]) -> list[str]:
    """Inputs that are newer than an output of their job, and the outputs of such jobs."""
    found: dict[str, None] = {}
    for record in finished:
        there = [time for name in record.outputs if (time := times[name]) is not None]
        if not there:
            continue
        newer = [name for name in record.inputs if (times[name] or 0) > min(there)]
        if newer:
            found |= dict.fromkeys([*newer, *(name for name in record.outputs if times[name] is not None)])
    return list(found)


def without_notes(run: Path) -> tuple[int, int]:
    """Of how many finished jobs, whose outputs are there, Snakemake has no note; and how many such jobs there are.

    A run that was copied without `results/.metadata` has none: then Snakemake compares times alone. A job
    that ended together with a Snakemake that was killed has a note of another kind, and is made again.
    """
    there = [record for record in all_of(run) if all(os.path.exists(name) for name in record.outputs)]
    return sum(not all(map(_noted, record.outputs)) for record in there), len(there)


def note_of(output: str) -> list[str]:
    """Names of the folders and the file of Snakemake's note on an output: its base64, in pieces short enough."""
    name = urlsafe_b64encode(output.encode()).decode()
    pieces = [name[start : start + NOTE_NAME] for start in range(0, len(name), NOTE_NAME)]
    return [*(f"@{piece}" for piece in pieces[:-1]), pieces[-1]]


def _noted(output: str) -> bool:
    note = note_of(output)
    return any(os.path.exists(os.path.join(folder, *note)) for folder in (METADATA, INCOMPLETE))


def house_metadata() -> None:
    """Let Snakemake's notes on finished jobs stand in `results`, so that they travel with it.

    They say with which params a file was made; without them Snakemake compares times alone.
    `.snakemake/metadata` becomes a link to `results/.metadata`; what was in it moves there. Where
    links are not to be had, it stays as it is.
    """
    HOME.mkdir(parents=True, exist_ok=True)
    METADATA.parent.mkdir(exist_ok=True)
    if METADATA.is_symlink():
        return
    # Snakemake takes a folder of notes without one for jobs in work for the layout of an old version.
    INCOMPLETE.mkdir(exist_ok=True)
    for path in sorted(METADATA.rglob("*")) if METADATA.is_dir() else []:
        if path.is_file():
            target = HOME / path.relative_to(METADATA)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)  # results may be a link to another disk
    for path in sorted(METADATA.rglob("*"), reverse=True) if METADATA.is_dir() else []:
        path.rmdir()
    try:
        if METADATA.is_dir():
            METADATA.rmdir()
        METADATA.symlink_to(Path("..") / HOME)
    except OSError:
        METADATA.mkdir(exist_ok=True)  # another Snakemake was quicker, or there are no links here


def let_go_of_lost_notes() -> None:
    """Take away the link that `house_metadata` made where `results` is gone: Snakemake stops at a link to nothing."""
    if METADATA.is_symlink() and not METADATA.exists():
        METADATA.unlink(missing_ok=True)
