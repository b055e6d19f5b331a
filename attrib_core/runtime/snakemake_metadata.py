"""Keep Snakemake's own metadata inside `results`, so that a copied folder of results is recognised."""

from __future__ import annotations

import os
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

from attrib_core.runtime.job_records import Record, is_unchanged, modified_time, read_all

METADATA = Path(".snakemake", "metadata")
INCOMPLETE = Path(".snakemake", "incomplete")
IN_RESULTS = Path("results", ".metadata")
MAX_NAME = 254  # characters: one less than file systems allow


def restore_times(run: Path) -> list[str]:
    """Restore the recorded modification times of files that were copied or touched.

    Snakemake compares modification times, which mean nothing after a plain copy. So if an input of a finished
    job is newer than an output, both get their recorded times back, provided that size and checksum are
    unchanged. A file that really changed keeps its time, so that what depends on it runs again.
    Returns the paths whose times were restored.
    """
    finished = list(read_all(run))
    recorded = {name: output for record in finished for name, output in record.outputs.items()}
    times = {name: modified_time(name) for record in finished for name in (*record.inputs, *record.outputs)}
    intact: dict[str, bool] = {}
    restored = []
    pending = True
    while pending:
        pending = False
        for name in _out_of_order(finished, times):
            if name in intact or name not in recorded:
                continue
            intact[name] = times[name] != recorded[name].modified and is_unchanged(Path(name), recorded[name])
            if intact[name]:
                os.utime(name, ns=(recorded[name].modified, recorded[name].modified))
                times[name] = recorded[name].modified
                restored.append(name)
                pending = True
    return restored


def _out_of_order(finished: list[Record], times: Mapping[str, int | None]) -> list[str]:
    """Return inputs that are newer than an output of their job, and the outputs of such jobs."""
    found: dict[str, None] = {}
    for record in finished:
        existing = [time for name in record.outputs if (time := times[name]) is not None]
        if not existing:
            continue
        newer = [name for name in record.inputs if (times[name] or 0) > min(existing)]
        if newer:
            found |= dict.fromkeys([*newer, *(name for name in record.outputs if times[name] is not None)])
    return list(found)


def count_without_metadata(run: Path) -> tuple[int, int]:
    """Count the finished jobs of which Snakemake has no metadata, and all finished jobs whose outputs exist.

    A run that was copied without `results/.metadata` has no metadata: then Snakemake compares only times. A job
    that was interrupted together with Snakemake is marked incomplete, and runs again.
    """
    finished = [record for record in read_all(run) if all(os.path.exists(name) for name in record.outputs)]
    return sum(not all(map(_has_metadata, record.outputs)) for record in finished), len(finished)


def file_parts(output: str) -> list[str]:
    """Return folders and file name of Snakemake's metadata of an output: its base64, in parts that are short enough."""
    name = urlsafe_b64encode(output.encode()).decode()
    parts = [name[start : start + MAX_NAME] for start in range(0, len(name), MAX_NAME)]
    return [*(f"@{part}" for part in parts[:-1]), parts[-1]]


def _has_metadata(output: str) -> bool:
    parts = file_parts(output)
    return any(os.path.exists(os.path.join(folder, *parts)) for folder in (METADATA, INCOMPLETE))


def keep_in_results() -> None:
    """Move Snakemake's metadata of finished jobs into `results`, so that it is copied with them.

    It records the params of each output; without it Snakemake compares only times. `.snakemake/metadata` becomes
    a link to `results/.metadata`, and its content moves there. On a file system without links nothing changes.
    """
    IN_RESULTS.mkdir(parents=True, exist_ok=True)
    METADATA.parent.mkdir(exist_ok=True)
    if METADATA.is_symlink():
        return
    # Without the folder `incomplete`, Snakemake takes the metadata for that of an old version, and migrates it.
    INCOMPLETE.mkdir(exist_ok=True)
    for path in sorted(METADATA.rglob("*")) if METADATA.is_dir() else []:
        if path.is_file():
            target = IN_RESULTS / path.relative_to(METADATA)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)  # results may be a link to another disk
    for path in sorted(METADATA.rglob("*"), reverse=True) if METADATA.is_dir() else []:
        path.rmdir()
    try:
        if METADATA.is_dir():
            METADATA.rmdir()
        METADATA.symlink_to(Path("..") / IN_RESULTS)
    except OSError:
        METADATA.mkdir(exist_ok=True)  # another Snakemake was faster, or the file system has no links


def remove_broken_link() -> None:
    """Remove the link of `keep_in_results` if `results` is gone: Snakemake stops at a broken link."""
    if METADATA.is_symlink() and not METADATA.exists():
        METADATA.unlink(missing_ok=True)
