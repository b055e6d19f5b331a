"""What the workflow says of a run now: its jobs with files, params, and what fingerprints cover."""

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
"""`code`, `files` and `packages`: each a name to a digest or version."""


@dataclass(frozen=True)
class Job:
    """A job of the run, whether it ran or not."""

    rule: str
    wildcards: Mapping[str, str]
    input: list[str]
    output: list[str]
    params: Mapping[str, Any]
    """Those that Snakemake compares."""
    untracked: list[str]
    """Names of the others."""
    temporary: Sequence[str] = ()
    """Outputs that Snakemake removes when all that reads them is done."""


@dataclass(frozen=True)
class Plan:
    """A run as its config and the code ask for it."""

    run: Path
    config: Mapping[str, Any]
    jobs: list[Job]
    coverages: Mapping[str, Coverage]

    def of(self, rule: str) -> list[Job]:
        """The jobs of a rule. Raises InputError, with near names, for a rule that is not there."""
        found = [job for job in self.jobs if job.rule == rule]
        if not found:
            known = {job.rule for job in self.jobs}
            raise InputError(f"{rule}: no such rule, {close_matches(rule, known)}")
        return found


def load_plan(config: Path) -> Plan:
    """The plan of a config. Raises InputError for a config that is wrong, as the workflow would say it."""
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
        said = done.stderr.strip().splitlines() or ["the workflow could not be read"]
        raise InputError(said[-1].removeprefix("Error in the config: "))
    answer = json.loads(done.stdout)
    return Plan(
        Path(answer["run"]), answer["config"], [Job(**job) for job in answer["jobs"]], answer["coverages"]
    )
