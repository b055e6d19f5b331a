"""Records of finished jobs, stored with the results of a run but not declared as outputs of its rules.

`results/<run>/records/<rule>/<job>.json` is written when a job ends: its params, its inputs, and size,
modification time and checksum of each output. `records/fingerprints/<digest>.json` lists what a fingerprint in
params covers. So `attrib_core why` can name the part that changed, and results that were copied or touched are
recognised as unchanged.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrib_core.common import hashing
from attrib_core.storage import digests, run_layout, tables

PACKAGE = Path(__file__).parents[1]
FINGERPRINTS = "fingerprints"
RULE_LEVEL = "all"
"""Name of the job of a rule without wildcards."""


@dataclass(frozen=True)
class Output:
    """State of an output file at the end of its job."""

    size: int
    """Bytes."""
    modified: int
    """Modification time, nanoseconds since 1970."""
    checksum: str
    """SHA-256, 64 hexadecimal digits."""


@dataclass(frozen=True)
class Record:
    """A job that succeeded."""

    rule: str
    wildcards: dict[str, str]
    params: dict[str, Any]
    inputs: list[str]
    outputs: dict[str, Output]


def save(snakemake: Any) -> Path | None:
    """Write the record of the job that Snakemake describes; its log file tells which run it belongs to.

    Returns the path of the record; None for a job whose log is not in a folder `logs`, which belongs to no run.
    """
    log = Path(snakemake.log[0]) if len(getattr(snakemake, "log", ())) else None
    run = (
        None
        if log is None
        else next((one.parent for one in log.parents if one.name == run_layout.LOGS), None)
    )
    if run is None:
        return None
    wildcards = {name: str(value) for name, value in snakemake.wildcards.items()}
    path = record_path(run, snakemake.rule, wildcards)
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


def record_path(run: Path, rule: str, wildcards: Mapping[str, str]) -> Path:
    """Return the path of a job's record."""
    return run / run_layout.RECORDS / rule / f"{'-'.join(wildcards.values()) or RULE_LEVEL}.json"


def read(path: Path) -> Record | None:
    """Read a record; None if there is none, or if an older version wrote it in another format."""
    try:
        found = json.loads(path.read_text("utf-8"))
        outputs = {name: Output(**output) for name, output in found.pop("outputs").items()}
        return Record(**found, outputs=outputs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_all(run: Path) -> Iterator[Record]:
    """Yield all records of a run that can be read."""
    for path in sorted((run / run_layout.RECORDS).glob("*/*.json")):
        if path.parent.name != FINGERPRINTS and (record := read(path)) is not None:
            yield record


def save_coverage(run: Path, digest: str, covered: Mapping[str, Any]) -> None:
    """Store what a fingerprint covers. A stored digest is not written again: equal digests mean equal content."""
    path = run / run_layout.RECORDS / FINGERPRINTS / f"{digest}.json"
    if not path.exists():
        tables.write_json(path, covered)


def read_coverage(run: Path, digest: str) -> dict[str, dict[str, str]] | None:
    """Read what the fingerprint of a finished job covered; None if that was not stored, or is damaged."""
    path = run / run_layout.RECORDS / FINGERPRINTS / f"{digest}.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and "code" in found else None


def _output(path: Path) -> Output:
    status = path.stat()
    return Output(status.st_size, status.st_mtime_ns, digests.read_once(path))


def covers_moved_code(covered: Mapping[str, Any]) -> bool:
    """Return whether a fingerprint covers modules of an earlier version, at paths that no longer exist."""
    names = {re.split("[.:/]", label)[1] for label in covered["code"] if label.startswith(f"{PACKAGE.name}.")}
    return any(not (PACKAGE / name).exists() and not (PACKAGE / f"{name}.py").exists() for name in names)


def is_unchanged(path: Path, output: Output) -> bool:
    """Return whether a file still has the recorded size and checksum."""
    return path.stat().st_size == output.size and hashing.file_digest(path) == output.checksum


def modified_time(name: str) -> int | None:
    """Return the modification time of a file in nanoseconds, None if it does not exist."""
    try:
        return os.stat(name).st_mtime_ns
    except OSError:
        return None


def _plain(value: Any) -> Any:
    """Convert a value of `params` to JSON types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
