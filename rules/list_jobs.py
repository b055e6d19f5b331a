"""What Snakemake knows of a run, as JSON: every job with its files and params, and what each fingerprint covers.

    python rules/list_jobs.py config.yaml

`attrib_core` works without Snakemake, so its command line asks by this script. Nothing is run or
written, but Snakemake makes its folder `.snakemake` in the working folder, as a dry run does.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.io import is_flagged
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

ROOT = Path(__file__).resolve().parent.parent
DERIVED = {"input", "output", "threads", "resources"}
"""A param that is a function of these is worked out anew and never compared (see `untracked`)."""


def list_jobs(config: Path, *, folder: Path | None = None, root: Path = ROOT) -> dict[str, Any]:
    """Jobs of the run that `config` describes, and rules that no target of it asks for.

    A job has `rule`, `wildcards`, `input`, `output` (paths from the working folder; `temporary` are those that
    Snakemake removes when all that reads them is done), and the `params` that Snakemake compares; `untracked` names
    the others. `coverages` says, by digest, what a param that is a
    fingerprint covers. Exits as Snakemake does where the config is wrong.
    """
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        flow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[config.resolve()]),
            snakefile=root / "Snakefile",
            workdir=folder,
        )
        flow.dag(dag_settings=DAGSettings())
        # Snakemake has no call that gives jobs; these two are what its own --rulegraph does.
        workflow = flow._workflow
        workflow._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True, nolock=True)
        workflow._build_dag()
        known = [_job(job) for job in workflow.dag.jobs if not job.rule.norun]
        asked = {job["rule"] for job in known}
        known += [_rule(rule) for rule in workflow.rules if rule.name not in asked and not rule.norun]
        names = set(workflow.globals["COVERAGES"])
        return {
            "run": workflow.globals["RUN"],
            "config": workflow.globals["CONFIG"],
            "jobs": sorted(known, key=lambda job: (job["rule"], job["output"])),
            "coverages": {name: workflow.globals["COVERAGES"][name].as_json() for name in sorted(names)},
        }


def _job(job: Any) -> dict[str, Any]:
    return {
        "rule": job.rule.name,
        "wildcards": dict(job.wildcards_dict),
        "input": [str(path) for path in job.input],
        "output": [str(path) for path in job.output],
        "temporary": [str(path) for path in job.output if is_flagged(path, "temp")],
        "params": (compared := dict(_compared(job.rule.params, job.params))),
        "untracked": sorted(set(job.params.keys()) - set(compared)),
    }


def _rule(rule: Any) -> dict[str, Any]:
    """A rule of which the run needs no job: what can be said of it without wildcards."""
    fixed = {name: value for name, value in rule.params.items() if not callable(value)}
    files = {
        name: [str(path) for path in paths if not callable(path)]
        for name, paths in (("input", rule.input), ("output", rule.output))
    }
    untracked = sorted(set(rule.params.keys()) - set(fixed))
    given = {"params": fixed, "untracked": untracked, "temporary": []}
    return {"rule": rule.name, "wildcards": {}, **files, **given}


def _compared(defined: Any, values: Any) -> Iterator[tuple[str, Any]]:
    """The params that a change of makes the job run again."""
    for name, value in values.items():
        written = dict(defined.items()).get(name)
        if not callable(written) or not DERIVED & set(inspect.signature(written).parameters):
            yield name, value


def plain(value: Any) -> Any:
    """A value of `params` as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


if __name__ == "__main__":
    json.dump(plain(list_jobs(Path(sys.argv[1]))), sys.stdout)
