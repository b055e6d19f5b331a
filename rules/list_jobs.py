"""List all jobs of a run as JSON, with their files and params, and what each fingerprint covers.

    python rules/list_jobs.py config.yaml

`attrib_core` does not import Snakemake, so its command line runs this script. No job is run and no result is
written, but Snakemake creates its folder `.snakemake` in the working directory, as in a dry run.
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
"""A param that is a function of these is never compared (see `untracked`)."""


def list_jobs(config: Path, *, folder: Path | None = None, root: Path = ROOT) -> dict[str, Any]:
    """Return the jobs of the run that `config` describes, and the rules without a job in it.

    A job has `rule`, `wildcards`, `input`, `output` (paths relative to the working directory; `temporary` are those
    that Snakemake removes after their last use), and the `params` that Snakemake compares; `untracked` names the
    other params. `coverages` lists what each fingerprint in params covers, by its digest. Exits like Snakemake if
    the config is invalid.
    """
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        flow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[config.resolve()]),
            snakefile=root / "Snakefile",
            workdir=folder,
        )
        flow.dag(dag_settings=DAGSettings())
        # Snakemake has no public function that returns jobs; its own --rulegraph calls these two.
        workflow = flow._workflow
        workflow._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True, nolock=True)
        workflow._build_dag()
        known = [_job(job) for job in workflow.dag.jobs if not job.rule.norun]
        with_jobs = {job["rule"] for job in known}
        known += [_rule(rule) for rule in workflow.rules if rule.name not in with_jobs and not rule.norun]
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
    """Return a rule without a job in the run: what is known of it without wildcards."""
    fixed = {name: value for name, value in rule.params.items() if not callable(value)}
    files = {
        name: [str(path) for path in paths if not callable(path)]
        for name, paths in (("input", rule.input), ("output", rule.output))
    }
    untracked = sorted(set(rule.params.keys()) - set(fixed))
    given = {"params": fixed, "untracked": untracked, "temporary": []}
    return {"rule": rule.name, "wildcards": {}, **files, **given}


def _compared(defined: Any, values: Any) -> Iterator[tuple[str, Any]]:
    """Yield the params whose change makes the job run again."""
    for name, value in values.items():
        definition = dict(defined.items()).get(name)
        if not callable(definition) or not DERIVED & set(inspect.signature(definition).parameters):
            yield name, value


def plain(value: Any) -> Any:
    """Convert a value of `params` to JSON types."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


if __name__ == "__main__":
    json.dump(plain(list_jobs(Path(sys.argv[1]))), sys.stdout)
