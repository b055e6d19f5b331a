"""What failed jobs said last, for the end of what a person sees.

Snakemake prints a job's error where it comes, and then pages of its own. Here the last line of
each job's log is looked up again when all is over: `jobs` ends every log with a line that says
how the job ended.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from attrib_core import whole

ENDS = ("attrib_core: error: ", "attrib_core: failed: ")
WELL = "attrib_core: done in "
BEGIN = "attrib_core: job "
NEARLY_FULL = 1 << 20  # bytes
SHOWN = 10


def of(logs: Path, since: float) -> list[str]:
    """A line for each job that failed, from the log files below a folder written `since` a time (of `stat`).

    A log without an end belongs to a job that was killed. Of many the first ten are shown.
    """
    written = sorted(path for path in logs.rglob("*.log") if path.stat().st_mtime >= since)
    lines = [line for path in written if (line := _last(path)) is not None]
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"and {len(lines) - SHOWN} more; see the last lines of the logs below {logs}"]
    return lines


def tell(logs: Path, since: float) -> None:
    """Print these lines to standard error."""
    for line in of(logs, since):
        print(line, file=sys.stderr, flush=True)


def _last(log: Path) -> str | None:
    lines = log.read_text("utf-8", "replace").splitlines()
    name = next((line.partition(BEGIN)[2] for line in lines[:1] if BEGIN in line), log.stem)
    for line in reversed(lines):
        if WELL in line:
            return None
        for end in ENDS:
            if end in line:
                return f"[{name}] {end.split()[1]} {line.partition(end)[2]}"
    if shutil.disk_usage(log.parent).free < NEARLY_FULL:
        return f"[{name}] error: {whole.no_space(None, 'disk')}"
    return (
        f"[{name}] failed: it ended without a word, as when memory runs out or somebody kills it; its log is {log},"
        f" and --set-resources {name.split()[0]}:mem_mb=N gives it more memory under a cluster's scheduler"
    )
