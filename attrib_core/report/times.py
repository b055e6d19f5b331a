"""Where the time went (Snakemake's benchmark files), and with which packages."""

from __future__ import annotations

import csv
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "timm",
    "open_clip_torch",
    "faiss-cpu",
    "faiss-gpu",
    "numpy",
    "pyarrow",
    "snakemake",
)


@dataclass(frozen=True)
class StageTime:
    """Summed over the jobs of one rule: wall and processor time in seconds, largest memory in MB."""

    rule: str
    jobs: int
    seconds: float
    cpu_seconds: float
    memory_mb: float


def stage_times(folder: Path) -> list[StageTime]:
    """Times by rule, slowest first, from `<folder>/<rule>/**/*.tsv`; empty where there is no such folder.

    A value that Snakemake could not measure ("NA", "-") counts as zero.
    """
    found = []
    for rule in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []:
        rows = []
        for path in sorted(rule.rglob("*.tsv")):
            with path.open(encoding="utf-8", newline="") as stream:
                rows += list(csv.DictReader(stream, delimiter="\t"))
        if rows:
            wall, cpu = (sum(_number(row.get(name)) for row in rows) for name in ("s", "cpu_time"))
            memory = max(_number(row.get("max_rss")) for row in rows)
            found.append(StageTime(rule.name, len(rows), wall, cpu, memory))
    return sorted(found, key=lambda stage: (-stage.seconds, stage.rule))


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def versions() -> dict[str, str]:
    """Versions of the packages that the results hang on, where installed, and of Python."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
