"""What each job of a run was given and made, kept beside the results; never an output of a rule.

`results/<run>/records/<rule>/<job>.json` is written when a job ends: its params, its inputs, and size,
time and checksum of each output. `records/fingerprints/<digest>.json` says what a fingerprint in params
covers. So `attrib_core why` can tell which part changed, and a folder of results that was copied or
touched is recognised as the one that was made.
"""

from __future__ import annotations

import json
import os
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrib_core import digests, keys, tables

FOLDER = "records"
FINGERPRINTS = "fingerprints"
LOGS = "logs"
METADATA = Path(".snakemake", "metadata")
INCOMPLETE = Path(".snakemake", "incomplete")
HOME = Path("results", ".metadata")
NOTE_NAME = 254  # characters: one less than file systems allow
RULE_LEVEL = "all"
"""The job's name in a rule that has one job."""


@dataclass(frozen=True)
class Output:
    """A file as its job left it."""

    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since 1970."""
    checksum: str
    """SHA-256, 64 hexadecimal digits."""


@dataclass(frozen=True)
class Record:
    """A job that ended well."""

    rule: str
    wildcards: dict[str, str]
    params: dict[str, Any]
    inputs: list[str]
    outputs: dict[str, Output]


def save(snakemake: Any) -> Path | None:
    """Record the job that Snakemake describes; where its log lies says which run it belongs to.

    A job whose log is in no folder `logs` belongs to no run, and None is returned.
    """
    log = Path(snakemake.log[0]) if len(getattr(snakemake, "log", ())) else None
    run = None if log is None else next((one.parent for one in log.parents if one.name == LOGS), None)
    if run is None:
        return None
    wildcards = {name: str(value) for name, value in snakemake.wildcards.items()}
    path = place(run, snakemake.rule, wildcards)
    outputs = {str(name): _output(Path(name)) for name in snakemake.output}
    tables.write_json(
        path,
        {
            "rule": snakemake.rule,
            "wildcards": wildcards,
            "params": {name: _plain(value) for name, value in snakemake.params.items()},
            "inputs": [str(name) for name in snakemake.input],
            "outputs": {name: vars(output) for name, output in outputs.items()},
        },
    )
    return path


def place(run: Path, rule: str, wildcards: Mapping[str, str]) -> Path:
    """Where the record of a job stands."""
    return run / FOLDER / rule / f"{'-'.join(wildcards.values()) or RULE_LEVEL}.json"


def read(path: Path) -> Record | None:
    """A record; None where there is none, or one that an older version wrote."""
    try:
        found = json.loads(path.read_text("utf-8"))
        outputs = {name: Output(**output) for name, output in found.pop("outputs").items()}
        return Record(**found, outputs=outputs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def all_of(run: Path) -> Iterator[Record]:
    """All records of a run that can be read."""
    for path in sorted((run / FOLDER).glob("*/*.json")):
        if path.parent.name != FINGERPRINTS and (record := read(path)) is not None:
            yield record


def keep_coverage(run: Path, digest: str, covered: Mapping[str, Any]) -> None:
    """Keep what a fingerprint covers; the same digest is the same content, so what is there stays."""
    path = run / FOLDER / FINGERPRINTS / f"{digest}.json"
    if not path.exists():
        tables.write_json(path, covered)


def coverage(run: Path, digest: str) -> dict[str, dict[str, str]] | None:
    """What a fingerprint of a finished job covered; None where that was not kept."""
    path = run / FOLDER / FINGERPRINTS / f"{digest}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


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


def _output(path: Path) -> Output:
    status = path.stat()
    return Output(status.st_size, status.st_mtime_ns, digests.once(path))


def _is_as_made(path: Path, output: Output) -> bool:
    return path.stat().st_size == output.size and keys.file_digest(path) == output.checksum


def _modified(name: str) -> int | None:
    try:
        return os.stat(name).st_mtime_ns
    except OSError:
        return None


def _plain(value: Any) -> Any:
    """A value of `params` as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
