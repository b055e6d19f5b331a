"""Calls of `snakemake` on the real Snakefile, each in its own working directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
TINY = ROOT / "tests" / "tiny.yaml"
VARIABLES_REMOVED = ("PYTHONPATH", "SNAKEMAKE_PROFILE", "ATTRIB_DEVICE")


def snakemake(
    folder: Path, config: Path, *arguments: str, cores: int = 2, root: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Call Snakemake with `folder` as the working directory; `root` contains the Snakefile."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES_REMOVED}
    where = ["--snakefile", str(root / "Snakefile"), "--directory", str(folder), "--configfile", str(config)]
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *where, "--cores", str(cores), *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )


def config_file(path: Path, base: Path = TINY, **changes: Any) -> Path:
    """Write a config like `base` with some keys changed, merging sections, to `path`; return the path."""
    values = yaml.safe_load(base.read_text("utf-8"))
    for name, change in changes.items():
        merged = isinstance(change, Mapping) and isinstance(values.get(name), Mapping)
        values[name] = {**values[name], **change} if merged else change
    path.write_text(yaml.safe_dump(values), "utf-8")
    return path


def planned(result: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Return the number of jobs by rule, from the table that Snakemake prints first; {} if there is none."""
    lines = (result.stdout + result.stderr).splitlines()
    if "Job stats:" not in lines:
        return {}
    rows = lines[lines.index("Job stats:") + 3 :]
    jobs: dict[str, int] = {}
    for row in rows:
        match = re.fullmatch(r"(\w+) +(\d+)", row.strip())
        if match is None:
            break
        jobs[match[1]] = int(match[2])
    return {rule: number for rule, number in jobs.items() if rule not in ("all", "total")}


def tail(result: subprocess.CompletedProcess[str], lines: int = 60) -> str:
    """Return the end of the output, for the message of a failed assertion."""
    return "\n".join((result.stdout + result.stderr).splitlines()[-lines:])


def own_lines(result: subprocess.CompletedProcess[str]) -> Sequence[str]:
    """Return the lines of the output, without Snakemake's notice that it reads a profile."""
    printed = (result.stdout + result.stderr).splitlines()
    return [
        line for line in printed if line.strip() and not line.startswith("Using workflow specific profile")
    ]
