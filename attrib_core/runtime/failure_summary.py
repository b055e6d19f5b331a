"""What failed jobs said last, for the end of what a person sees.

Snakemake prints a job's error where it comes, and then pages of its own. Here the last line of
each job's log is looked up again when all is over: `jobs` ends every log with a line that says
how the job ended.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from attrib_core.storage import disk_space

ENDS = ("attrib_core: error: ", "attrib_core: failed: ")
WELL = "attrib_core: done in "
BEGIN = "attrib_core: job "
SHOWN = 10


def of(logs: Path, since: float, others: Sequence[Path] = ()) -> list[str]:
    """A line for each job that failed, from the log files below a folder written `since` a time (of `stat`).

    A log without an end belongs to a job that was killed, or that found no room on its disk or on that of
    `others`, the folders in which Snakemake writes. Of many the first ten are shown. Where no job failed, Snakemake
    itself may have found no room.
    """
    written = sorted(path for path in logs.rglob("*.log") if path.stat().st_mtime >= since)
    lines = [line for path in written if (line := _last(path, logs, others)) is not None]
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"and {len(lines) - SHOWN} more; see the last lines of the logs below {logs}"]
    if not lines and (full := _full([logs, *others])) is not None:
        lines = [f"error: {full}"]
    return lines


def tell(logs: Path, since: float, others: Sequence[Path] = ()) -> None:
    """Print these lines to standard error."""
    for line in of(logs, since, others):
        print(line, file=sys.stderr, flush=True)


def _last(log: Path, logs: Path, others: Sequence[Path]) -> str | None:
    lines = log.read_text("utf-8", "replace").splitlines()
    unnamed = " ".join(log.relative_to(logs).with_suffix("").parts)  # it ended before it could say its name
    name = next((line.partition(BEGIN)[2] for line in lines[:1] if BEGIN in line), unnamed)
    for line in reversed(lines):
        if WELL in line:
            return None
        for end in ENDS:
            if end in line:
                return f"[{name}] {end.split()[1]} {line.partition(end)[2]}"
    if (full := _full([log.parent, *others])) is not None:
        return f"[{name}] error: {full}"
    return (
        f"[{name}] failed: it ended without a word, as when memory runs out or somebody kills it; its log is {log},"
        f" and --set-resources {name.split()[0]}:mem_mb=N gives it more memory under a cluster's scheduler"
    )


def _full(folders: Sequence[Path]) -> str | None:
    """What to do about the first of these folders whose disk is full; None where none is."""
    for folder in folders:
        if folder.is_dir() and disk_space.nearly_full(folder):
            return disk_space.no_space(folder, "disk")
    return None
