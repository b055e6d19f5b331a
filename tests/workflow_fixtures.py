"""Calls of the real `snakemake` on the real Snakefile, each in a folder of its own."""

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
ENVIRONMENT_KEPT_OUT = ("PYTHONPATH", "SNAKEMAKE_PROFILE", "ATTRIB_DEVICE")


def snakemake(
    folder: Path, config: Path, *arguments: str, cores: int = 2, root: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """One call, with `folder` as the working directory; `root` holds the Snakefile."""
    environment = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT_KEPT_OUT}
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
    """A config like `base` with some keys changed; sections are merged, `path` is written and returned."""
    values = yaml.safe_load(base.read_text("utf-8"))
    for name, change in changes.items():
        merged = isinstance(change, Mapping) and isinstance(values.get(name), Mapping)
        values[name] = {**values[name], **change} if merged else change
    path.write_text(yaml.safe_dump(values), "utf-8")
    return path


def planned(result: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Jobs by rule, from the table that Snakemake prints before it starts; {} where it has none."""
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
    """The end of what was printed, for the message of a failed assertion."""
    return "\n".join((result.stdout + result.stderr).splitlines()[-lines:])


def own_lines(result: subprocess.CompletedProcess[str]) -> Sequence[str]:
    """What was printed beside Snakemake's notice that it reads a profile."""
    printed = (result.stdout + result.stderr).splitlines()
    return [
        line for line in printed if line.strip() and not line.startswith("Using workflow specific profile")
    ]
