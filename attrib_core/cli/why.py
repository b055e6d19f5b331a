"""`python -m attrib_core why RULE`: what a rule depends on, and what has changed since it ran."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrib_core.runtime.provenance import rerun_reasons, rerun_table, workflow_jobs
from attrib_core.runtime.provenance.workflow_jobs import Job, Plan


def add(commands: Any) -> None:
    """Add `why` to the commands of the command line."""
    one = commands.add_parser("why", help="show what a rule depends on, and what has changed since it ran")
    one.add_argument("rule", metavar="RULE", help="a rule of the workflow, such as customize_part")
    one.add_argument("--config", type=Path, default=Path("config.yaml"), help="default: %(default)s")
    one.set_defaults(run=why)


def why(arguments: argparse.Namespace) -> int:
    """Print what a rule depends on, and what has changed for its jobs."""
    plan = workflow_jobs.load_plan(arguments.config)
    jobs = plan.of(arguments.rule)
    for line in [*covered(plan, jobs), *changed(plan, jobs)]:
        print(line)
    return 0


def covered(plan: Plan, jobs: list[Job]) -> Iterator[str]:
    """Yield what the jobs of a rule depend on, besides their input files."""
    rule = jobs[0].rule
    yield f"{rule}: {len(jobs)} job{'s' if len(jobs) > 1 else ''} of {plan.run}"
    yield "  config keys"
    for key, value in rerun_table.keys_of(rule, plan.config).items():
        yield f"    {key}: {json.dumps(value, ensure_ascii=False)}"
    together: dict[tuple[str, str], list[Job]] = defaultdict(list)
    for job in jobs:
        for name, value in job.params.items():
            if isinstance(value, str) and value in plan.coverages:
                together[name, value].append(job)
    for (name, digest), sharing in together.items():
        whose = "" if len(sharing) == len(jobs) else f", of {_common(sharing)}"
        yield f"  {name} {digest}{whose}"
        part = plan.coverages[digest]
        modules: dict[str, list[str]] = defaultdict(list)
        for label in part["code"]:
            module, _, definition = label.rpartition("/" if "/" in label else ".")
            if ":" not in label:  # labels with ":" are imported names and module-level code, not definitions
                modules[module].append(definition)
        for module, definitions in modules.items():
            yield f"    {module}: {', '.join(definitions)}"
        for file in part["files"]:
            yield f"    data file {file}"
        for package, version in part["packages"].items():
            yield f"    package {package} {version}"


def changed(plan: Plan, jobs: list[Job]) -> Iterator[str]:
    """Yield what has changed since the jobs ran; a change of several jobs is one line."""
    together: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        for line in rerun_reasons.differences(plan, job):
            together[line].append(job)
    yield "  changed since it ran" if together else "  nothing changed since it ran"
    for line, sharing in together.items():
        whose = "" if len(sharing) == len(jobs) else f" ({_common(sharing)})"
        yield f"    {line}{whose}"
    above = sorted(
        {rule for job in jobs for rule in rerun_reasons.changed_upstream(plan, job)} - {jobs[0].rule}
    )
    if above:
        yield f"  inputs will be recomputed, because of changes in: {', '.join(above)}"


def _common(jobs: list[Job]) -> str:
    """Return the wildcards that the jobs share, or their number if they share none."""
    shared = dict(jobs[0].wildcards)
    for job in jobs[1:]:
        shared = {name: value for name, value in shared.items() if job.wildcards.get(name) == value}
    named = ", ".join(f"{name} {value}" for name, value in shared.items())
    return named or f"{len(jobs)} jobs"
