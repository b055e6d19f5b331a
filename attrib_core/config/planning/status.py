"""How far a run is: what is done, what failed, what is to come, from the files that a run leaves."""

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

TAIL = 8192  # bytes of a log's end that are read
FINISHED = "done in "  # how `jobs.job` ends a log
LINE = re.compile(r"^\S+ \S+ (?P<level>[A-Z]+) [\w.]+: (?P<words>.*)$")


@dataclass
class Progress:
    """A stage's jobs: those whose output is there, those that failed, those begun and not finished."""

    done: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, str]] = field(default_factory=list)
    begun: list[tuple[Job, str]] = field(default_factory=list)
    waiting: list[Job] = field(default_factory=list)

    @property
    def jobs(self) -> int:
        """All of them."""
        return len(self.done) + len(self.failed) + len(self.begun) + len(self.waiting)

    @property
    def left(self) -> float:
        """Share of the jobs that is not done."""
        return 1 - len(self.done) / self.jobs


def progress(run: Path, planned: Iterator[Job]) -> dict[str, Progress]:
    """Jobs by stage, sorted by what their files say.

    An output is whole or absent, so that a job whose output is there is done. A log without an
    output is of a job that failed, where its last words are an error, else of one that runs or was killed.
    """
    found: dict[str, Progress] = defaultdict(Progress)
    for job in planned:
        stage, log = found[job.stage], run_layout.path(run, run_layout.LOG, job=job.name)
        if (run / job.output).is_file():
            stage.done.append(job)
        elif not log.is_file():
            stage.waiting.append(job)
        else:
            level, words = _last_words(log)
            if level == "ERROR":
                stage.failed.append((job, words))
            elif words.startswith(FINISHED):
                stage.waiting.append(job)  # its output was removed since
            else:
                ago = max(0.0, time.time() - log.stat().st_mtime)
                stage.begun.append((job, f"{words or 'nothing said yet'} ({ago:.0f} s ago)"))
    return dict(found)


def _last_words(log: Path) -> tuple[str, str]:
    """Level and words of the last message in a job's log; empty where there is none."""
    with log.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - TAIL))
        text = stream.read().decode("utf-8", errors="replace")
    for line in reversed(text.splitlines()):
        if message := LINE.match(line):
            return message["level"], message["words"]
    return "", ""


def lines(run: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """The state of a run as one reads it; `config` is its checked config, as plain values.

    Times are of this run's own finished jobs alone. Raises InputError for a folder that is none, or
    that is of another run than the config's.
    """
    if not run.is_dir():
        raise InputError(f"{run}: no such folder; expected that of a run, like results/{config['run']}")
    if run.resolve().name != config["run"]:
        raise InputError(
            f"{run}: the config is of run {config['run']!r}; name the config of this run with --config"
        )
    number = counts.count(config)
    stages = progress(run, expected_jobs.planned(number))
    done = sum(len(stage.done) for stage in stages.values())
    total = sum(stage.jobs for stage in stages.values())
    yield f"{run}: {done} of {total} jobs are done"
    expected = {stage.name: stage for stage in plan.planned(config, run=_measured(run)).stages}
    base, _ = base_model_facts.tried(config["base_model"])
    measured = rates.of_run(run, number, config, base) if _measured(run) else rates.Rates({}, {})
    own = measured.seconds
    table = [("stage", "jobs", "left", "bytes to come")]
    seconds, size, unmeasured = [0.0, 0.0], [0, 0], []
    for name, stage in stages.items():
        share, whole = stage.left, expected[name]
        left = ""
        if share and name in own:
            took = [units * own[name].amount * share for units in whole.units]
            seconds = [before + more for before, more in zip(seconds, took, strict=True)]
            left = _range(*(plan.hours(one) for one in took))
        elif share:
            unmeasured.append(name)
            left = "not measured yet"
        coming = ""
        if share and whole.size:
            ends = [round(one * share) for one in whole.size.bytes]
            size = [size[0] + (0 if whole.size.most_only else ends[0]), size[1] + ends[1]]
            coming = _range(*(plan.megabytes(one) for one in ends))
            coming = f"at most {coming}" if whole.size.most_only else coming
        table.append((name, f"{len(stage.done)} of {stage.jobs}", left, coming))
    length = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, length, strict=True)).rstrip()
    used, kept = _used(run)
    yield f"bytes: {plan.megabytes(used)} so far{kept}, {_range(*map(plan.megabytes, size))} to come, as far as known"
    if done < total:
        rest = f", without {', '.join(unmeasured)}" if unmeasured else ""
        yield f"time: {_range(*map(plan.hours, seconds))} of one job at a time to come{rest}"
    if measured.note:
        yield f"note: {measured.note}"
    for stage in stages.values():
        for job, words in stage.begun:
            yield f"begun: {job.name}: {words}"
    for stage in stages.values():
        for job, words in stage.failed:
            yield f"failed: {job.name}: {words}"


def _measured(run: Path) -> Path | None:
    """The run, where any of its times were measured."""
    return run if (run / run_layout.BENCHMARKS).is_dir() else None


def _used(run: Path) -> tuple[int, str]:
    """Bytes of a run with what it refers to in the store, each once, and how many of them stand there alone."""
    own = [path for path in run.rglob("*") if path.is_file()]
    used = garbage_collection.bytes_of([*own, *garbage_collection.of_run(run)])
    alone = used - garbage_collection.bytes_of(own)
    return used, f" ({plan.megabytes(alone)} of them in the store of all runs)" if alone else ""


def _range(least: str, most: str) -> str:
    return most if least == most else f"{least} to {most}"
