"""Print the error of each failed job once more, at the end of Snakemake's output.

Snakemake prints an error when it occurs, and then pages of its own. So the last line of each job's log is read
again at the end: `runtime.job` ends every log with a line that says how the job ended.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from attrib_core.storage import disk_space

FAILED = ("attrib_core: error: ", "attrib_core: failed: ")
SUCCEEDED = "attrib_core: done in "
STARTED = "attrib_core: job "
MAX_SHOWN = 10


def summarize(logs: Path, since: float, other_folders: Sequence[Path] = ()) -> list[str]:
    """Return a line for each failed job, from the log files below `logs` modified since a time (of `stat`).

    A log without a last line belongs to a job that was killed, or that ran out of space on its disk or on that of
    `other_folders`, to which Snakemake writes. At most ten jobs are listed. If no job failed, Snakemake itself may
    have run out of space.
    """
    written = sorted(path for path in logs.rglob("*.log") if path.stat().st_mtime >= since)
    lines = [line for path in written if (line := _last(path, logs, other_folders)) is not None]
    if len(lines) > MAX_SHOWN:
        lines[MAX_SHOWN:] = [
            f"and {len(lines) - MAX_SHOWN} more; see the last lines of the logs below {logs}"
        ]
    if not lines and (full := _full([logs, *other_folders])) is not None:
        lines = [f"error: {full}"]
    return lines


def print_summary(logs: Path, since: float, other_folders: Sequence[Path] = ()) -> None:
    """Print the lines of `summarize` to standard error."""
    for line in summarize(logs, since, other_folders):
        print(line, file=sys.stderr, flush=True)


def _last(log: Path, logs: Path, other_folders: Sequence[Path]) -> str | None:
    lines = log.read_text("utf-8", "replace").splitlines()
    from_path = " ".join(log.relative_to(logs).with_suffix("").parts)  # for a job that logged nothing
    name = next((line.partition(STARTED)[2] for line in lines[:1] if STARTED in line), from_path)
    for line in reversed(lines):
        if SUCCEEDED in line:
            return None
        for end in FAILED:
            if end in line:
                return f"[{name}] {end.split()[1]} {line.partition(end)[2]}"
    if (full := _full([log.parent, *other_folders])) is not None:
        return f"[{name}] error: {full}"
    return (
        f"[{name}] failed: it ended without a message, as when memory runs out or somebody kills it; its log is {log},"
        f" and --set-resources {name.split()[0]}:mem_mb=N gives it more memory under a cluster's scheduler"
    )


def _full(folders: Sequence[Path]) -> str | None:
    """Return advice for the first of these folders whose disk is full; None if none is."""
    for folder in folders:
        if folder.is_dir() and disk_space.nearly_full(folder):
            return disk_space.no_space(folder, "disk")
    return None
