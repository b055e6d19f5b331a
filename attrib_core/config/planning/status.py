"""Report the state of a run from its files: what is done, what failed, what is to come."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attrib_core.common.errors import InputError
from attrib_core.config.planning import base_model_facts, counts, expected_jobs, plan, rates
from attrib_core.config.planning.expected_jobs import Job
from attrib_core.storage import run_layout
from attrib_core.storage.store import garbage_collection

TAIL = 8192  # bytes read from the end of a log
FINISHED = "done in "  # how `runtime.job` ends a log
LINE = re.compile(r"^\S+ \S+ (?P<level>[A-Z]+) [\w.]+: (?P<message>.*)$")


@dataclass
class Progress:
    """The jobs of a stage by state: done, failed, started but not finished, not started."""

    done: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, str]] = field(default_factory=list)
    started: list[tuple[Job, str]] = field(default_factory=list)
    waiting: list[Job] = field(default_factory=list)

    @property
    def jobs(self) -> int:
        """Number of jobs."""
        return len(self.done) + len(self.failed) + len(self.started) + len(self.waiting)

    @property
    def left(self) -> float:
        """Share of the jobs that are not done."""
        return 1 - len(self.done) / self.jobs


def progress(run: Path, jobs: Iterator[Job]) -> dict[str, Progress]:
    """Return the state of jobs by stage, from their outputs and logs.

    Outputs are written atomically, so a job with an output is done. A job with a log but no output
    failed if the last message is an error; otherwise it is running or was killed.
    """
    found: dict[str, Progress] = defaultdict(Progress)
    for job in jobs:
        stage, log = found[job.stage], run_layout.path(run, run_layout.LOG, job=job.name)
        if (run / job.output).is_file():
            stage.done.append(job)
        elif not log.is_file():
            stage.waiting.append(job)
        else:
            level, message = _last_message(log)
            if level == "ERROR":
                stage.failed.append((job, message))
            elif message.startswith(FINISHED):
                stage.waiting.append(job)  # its output was removed since
            else:
                ago = max(0.0, time.time() - log.stat().st_mtime)
                stage.started.append((job, f"{message or 'no message yet'} ({ago:.0f} s ago)"))
    return dict(found)


def _last_message(log: Path) -> tuple[str, str]:
    """Return level and text of the last message in a job's log; empty without one."""
    with log.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - TAIL))
        text = stream.read().decode("utf-8", errors="replace")
    for line in reversed(text.splitlines()):
        if found := LINE.match(line):
            return found["level"], found["message"]
    return "", ""


def lines(run: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the state of a run as lines of text; `config` is its checked config, as plain values.

    Times are those of the finished jobs of this run. Raises InputError for a missing folder, or one
    of another run than the config's.
    """
    if not run.is_dir():
        raise InputError(f"{run}: no such folder; expected that of a run, like results/{config['run']}")
    if run.resolve().name != config["run"]:
        raise InputError(
            f"{run}: the config is of run {config['run']!r}; name the config of this run with --config"
        )
    number = counts.count(config)
    stages = progress(run, expected_jobs.jobs(number))
    done = sum(len(stage.done) for stage in stages.values())
    total = sum(stage.jobs for stage in stages.values())
    yield f"{run}: {done} of {total} jobs are done"
    expected = {stage.name: stage for stage in plan.estimate(config, run=_measured(run)).stages}
    base, _ = base_model_facts.try_read(config["base_model"])
    measured = rates.from_run(run, number, config, base) if _measured(run) else rates.Rates({}, {})
    own = measured.seconds
    table = [("stage", "jobs", "left", "bytes to come")]
    seconds, size, unmeasured = [0.0, 0.0], [0, 0], []
    for name, stage in stages.items():
        share, total_of_stage = stage.left, expected[name]
        left = ""
        if share and name in own:
            took = [units * own[name].amount * share for units in total_of_stage.units]
            seconds = [before + more for before, more in zip(seconds, took, strict=True)]
            left = plan.interval(*(plan.hours(one) for one in took))
        elif share:
            unmeasured.append(name)
            left = "not measured yet"
        coming = ""
        if share and total_of_stage.size:
            ends = [round(one * share) for one in total_of_stage.size.bytes]
            size = [size[0] + (0 if total_of_stage.size.upper_bound else ends[0]), size[1] + ends[1]]
            coming = plan.interval(*(plan.megabytes(one) for one in ends))
            coming = f"at most {coming}" if total_of_stage.size.upper_bound else coming
        table.append((name, f"{len(stage.done)} of {stage.jobs}", left, coming))
    yield from (f"  {line}" for line in plan.aligned(table))
    used, kept = _used(run)
    to_come = plan.interval(*map(plan.megabytes, size))
    yield f"bytes: {plan.megabytes(used)} so far{kept}, {to_come} to come, as far as known"
    if done < total:
        rest = f", without {', '.join(unmeasured)}" if unmeasured else ""
        yield f"time: {plan.interval(*map(plan.hours, seconds))} of one job at a time to come{rest}"
    if measured.note:
        yield f"note: {measured.note}"
    for stage in stages.values():
        for job, message in stage.started:
            yield f"started: {job.name}: {message}"
    for stage in stages.values():
        for job, message in stage.failed:
            yield f"failed: {job.name}: {message}"


def _measured(run: Path) -> Path | None:
    """Return the run if any of its times were measured, else None."""
    return run if (run / run_layout.BENCHMARKS).is_dir() else None


def _used(run: Path) -> tuple[int, str]:
    """Return the bytes of a run with its share of the store, and a note on those in the store only."""
    own = [path for path in run.rglob("*") if path.is_file()]
    used = garbage_collection.disk_usage([*own, *garbage_collection.files_of_run(run)])
    in_store = used - garbage_collection.disk_usage(own)
    return used, f" ({plan.megabytes(in_store)} of them in the store of all runs)" if in_store else ""
