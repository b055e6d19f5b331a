"""What differs between a job as it is asked for now and the record of the one that ran."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrib_core.runtime import job_records
from attrib_core.runtime.provenance import rerun_table
from attrib_core.runtime.provenance.workflow_jobs import Coverage, Job, Plan

SHOWN = 6
"""Names listed of a kind before the rest is only counted."""
KINDS = {"code": "code", "files": "data file", "packages": "package"}


def differences(plan: Plan, job: Job) -> list[str]:
    """A line for each part of a job that is not as it was; none where it would not run for its own sake."""
    record = job_records.read(job_records.record_path(plan.run, job.rule, job.wildcards))
    there = [path for path in job.output if Path(path).exists()]
    missing = [path for path in job.output if path not in there and path not in job.temporary]
    if missing:
        return [f"not there: {_some(missing)}"]
    if record is None:
        return ["no record of the job, so only times can be compared"]
    lines = list(_params(plan, job, record))
    for word, paths in (
        ("new inputs", set(job.input) - set(record.inputs)),
        ("inputs gone", set(record.inputs) - set(job.input)),
    ):
        if paths:
            lines.append(f"{word}: {_some(sorted(paths))}")
    made = min((Path(path).stat().st_mtime_ns for path in there), default=None)
    newer = [
        path
        for path in job.input
        if made is not None and Path(path).exists() and Path(path).stat().st_mtime_ns > made
    ]
    if newer:
        lines.append(f"inputs made anew since: {_some(newer)}")
    return lines


def changed_upstream(plan: Plan, job: Job) -> list[str]:
    """Rules further up that have a change of their own, from which this job would get new inputs."""
    makers = {path: one for one in plan.jobs for path in one.output}
    seen: dict[int, Job] = {}
    pending = [job]
    while pending:
        for path in pending.pop().input:
            maker = makers.get(path)
            if maker is not None and id(maker) not in seen:
                seen[id(maker)] = maker
                pending.append(maker)
    return sorted({one.rule for one in seen.values() if differences(plan, one)})


def _params(plan: Plan, job: Job, record: job_records.Record) -> Iterator[str]:
    used = rerun_table.keys_of(job.rule, plan.config)
    for name, value in job.params.items():
        if name not in record.params:
            yield f"param {name}: new"
            continue
        before = record.params[name]
        if before == value:
            continue
        if isinstance(value, str) and value in plan.coverages:
            yield from _coverage(
                name, job_records.read_coverage(plan.run, str(before)), plan.coverages[value]
            )
            continue
        old, new = (rerun_table.leaves({name: one}) for one in (before, value))
        for path in dict.fromkeys([*old, *new]):
            if old.get(path) != new.get(path):
                yield f"{_key(path, used)}: {_value(old, path)} -> {_value(new, path)}"
    for name in sorted(record.params.keys() - job.params.keys() - set(job.untracked)):
        yield f"param {name}: gone"


def _coverage(name: str, before: Coverage | None, now: Coverage) -> Iterator[str]:
    if before is None:
        yield f"{name}: another fingerprint, and what the old one covered was not kept"
        return
    for kind, word in KINDS.items():
        old, new = before.get(kind, {}), now[kind]
        changed = sorted(one for one in old.keys() & new.keys() if old[one] != new[one])
        if kind == "packages":
            changed = [f"{one} {old[one]} -> {new[one]}" for one in changed]
        for verb, names in (
            ("changed", changed),
            ("new", sorted(new.keys() - old.keys())),
            ("no longer used", sorted(old.keys() - new.keys())),
        ):
            if names:
                yield f"{name}, {word} {verb}: {_some(names)}"


def _key(path: str, used: Mapping[str, Any]) -> str:
    """The key of the config that a param came from, where its name says so; else the param."""
    last = path.rsplit(".", 1)[-1]
    fitting = [key for key in used if key.rsplit(".", 1)[-1] == last]
    return fitting[0] if len(fitting) == 1 else f"param {path}"


def _value(values: Mapping[str, Any], path: str) -> str:
    return json.dumps(values[path], ensure_ascii=False) if path in values else "none"


def _some(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
