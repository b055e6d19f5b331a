"""What each job of a run was given and made, kept beside the results; never an output of a rule.

`results/<run>/records/<rule>/<job>.json` is written when a job ends: its params, its inputs, and size,
time and checksum of each output. `records/fingerprints/<digest>.json` says what a fingerprint in params
covers. So `attrib_core why` can tell which part changed, and a folder of results that was copied or
touched is recognised as the one that was made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrib_core.common import hashing
from attrib_core.storage import digests, tables

FOLDER = "records"
FINGERPRINTS = "fingerprints"
LOGS = "logs"
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


def _output(path: Path) -> Output:
    status = path.stat()
    return Output(status.st_size, status.st_mtime_ns, digests.once(path))


def _is_as_made(path: Path, output: Output) -> bool:
    return path.stat().st_size == output.size and hashing.file_digest(path) == output.checksum


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
