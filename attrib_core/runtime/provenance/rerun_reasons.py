"""Compare a job, as the workflow plans it now, with the record of its last run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrib_core.runtime import job_records
from attrib_core.runtime.provenance import rerun_table
from attrib_core.runtime.provenance.workflow_jobs import Coverage, Job, Plan

MAX_SHOWN = 6
"""Names listed in a line; the rest is counted."""
KINDS = {"code": "code", "files": "data file", "packages": "package"}


def differences(plan: Plan, job: Job) -> list[str]:
    """Return a line for each part of a job that differs from its record; none if the job itself did not change."""
    record = job_records.read(job_records.record_path(plan.run, job.rule, job.wildcards))
    existing = [path for path in job.output if Path(path).exists()]
    missing = [path for path in job.output if path not in existing and path not in job.temporary]
    if missing:
        return [f"missing: {_some(missing)}"]
    if record is None:
        return ["no record of the job, so only modification times can be compared"]
    lines = list(_params(plan, job, record))
    for word, paths in (
        ("new inputs", set(job.input) - set(record.inputs)),
        ("removed inputs", set(record.inputs) - set(job.input)),
    ):
        if paths:
            lines.append(f"{word}: {_some(sorted(paths))}")
    finished = min((Path(path).stat().st_mtime_ns for path in existing), default=None)
    newer = [
        path
        for path in job.input
        if finished is not None and Path(path).exists() and Path(path).stat().st_mtime_ns > finished
    ]
    if newer:
        lines.append(f"inputs written since: {_some(newer)}")
    return lines


def changed_upstream(plan: Plan, job: Job) -> list[str]:
    """Return the rules upstream of a job that changed themselves, so that its inputs will change."""
    producers = {path: other for other in plan.jobs for path in other.output}
    seen: dict[int, Job] = {}
    pending = [job]
    while pending:
        for path in pending.pop().input:
            producer = producers.get(path)
            if producer is not None and id(producer) not in seen:
                seen[id(producer)] = producer
                pending.append(producer)
    return sorted({other.rule for other in seen.values() if differences(plan, other)})


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
        old, new = (rerun_table.leaves({name: values}) for values in (before, value))
        for path in dict.fromkeys([*old, *new]):
            if old.get(path) != new.get(path):
                yield f"{_key(path, used)}: {_value(old, path)} -> {_value(new, path)}"
    for name in sorted(record.params.keys() - job.params.keys() - set(job.untracked)):
        yield f"param {name}: removed"


def _coverage(name: str, before: Coverage | None, now: Coverage) -> Iterator[str]:
    if before is None:
        yield f"{name}: another fingerprint; what the old one covered is not recorded"
        return
    if job_records.covers_moved_code(before):
        yield f"{name}: an earlier version of {job_records.PACKAGE.name} ran it, whose modules have moved since"
        return
    for kind, word in KINDS.items():
        old, new = before.get(kind, {}), now[kind]
        changed = sorted(item for item in old.keys() & new.keys() if old[item] != new[item])
        if kind == "packages":
            changed = [f"{item} {old[item]} -> {new[item]}" for item in changed]
        for verb, names in (
            ("changed", changed),
            ("new", sorted(new.keys() - old.keys())),
            ("no longer used", sorted(old.keys() - new.keys())),
        ):
            if names:
                yield f"{name}, {word} {verb}: {_some(names)}"


def _key(path: str, used: Mapping[str, Any]) -> str:
    """Return the config key that a param came from, if its name is unambiguous; else the param."""
    last = path.rsplit(".", 1)[-1]
    matching = [key for key in used if key.rsplit(".", 1)[-1] == last]
    return matching[0] if len(matching) == 1 else f"param {path}"


def _value(values: Mapping[str, Any], path: str) -> str:
    return json.dumps(values[path], ensure_ascii=False) if path in values else "none"


def _some(names: list[str]) -> str:
    rest = len(names) - MAX_SHOWN
    return ", ".join(names[:MAX_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
