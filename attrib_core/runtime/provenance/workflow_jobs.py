"""Ask the workflow for the jobs of a run: their files and params, and what the fingerprints cover."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrib_core.common.errors import InputError, close_matches
from attrib_core.runtime.provenance.fingerprint import ROOT

SCRIPT = ROOT / "rules" / "list_jobs.py"
Coverage = Mapping[str, Mapping[str, str]]
"""`code`, `files` and `packages`: each maps names to digests or versions."""


@dataclass(frozen=True)
class Job:
    """A job of the run, finished or not."""

    rule: str
    wildcards: Mapping[str, str]
    input: list[str]
    output: list[str]
    params: Mapping[str, Any]
    """The params that Snakemake compares."""
    untracked: list[str]
    """Names of the other params."""
    temporary: Sequence[str] = ()
    """Outputs that Snakemake removes once all jobs that read them are finished."""


@dataclass(frozen=True)
class Plan:
    """All jobs of a run, for the present config and code."""

    run: Path
    config: Mapping[str, Any]
    jobs: list[Job]
    coverages: Mapping[str, Coverage]

    def of(self, rule: str) -> list[Job]:
        """Return the jobs of a rule. Raises InputError with similar names for an unknown rule."""
        found = [job for job in self.jobs if job.rule == rule]
        if not found:
            known = {job.rule for job in self.jobs}
            raise InputError(f"{rule}: no such rule, {close_matches(rule, known)}")
        return found


def load_plan(config: Path) -> Plan:
    """Plan the run of a config. Raises InputError for an invalid config, with the message of the workflow."""
    if not SCRIPT.is_file():
        raise InputError(
            f"{SCRIPT.parent.parent}: no workflow here; run this in a checkout of the repository"
        )
    if not config.is_file():
        raise InputError(f"{config}: no such config file")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(config)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        messages = done.stderr.strip().splitlines() or ["the workflow could not be read"]
        raise InputError(messages[-1].removeprefix("Error in the config: "))
    answer = json.loads(done.stdout)
    return Plan(
        Path(answer["run"]), answer["config"], [Job(**job) for job in answer["jobs"]], answer["coverages"]
    )
