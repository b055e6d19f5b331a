"""Where the time went (Snakemake's benchmark files), and with which packages."""

from __future__ import annotations

import csv
import platform
from collections.abc import Iterable
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


def stage_times(folder: Path, jobs: Iterable[str]) -> list[StageTime]:
    """Times by rule, slowest first, of jobs named like their benchmark files: `rank/pixel-untuned`, `prior`.

    Files of other jobs, which an earlier config left in the folder, are not
    looked at; a job without a file is left out. A value that Snakemake could
    not measure ("NA", "-") counts as zero.
    """
    rows: dict[str, list[dict[str, str]]] = {}
    for name in sorted(set(jobs)):
        path = folder / f"{name}.tsv"
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as stream:
                rows.setdefault(name.partition("/")[0], []).extend(csv.DictReader(stream, delimiter="\t"))
    found = []
    for rule, own in rows.items():
        wall, cpu = (sum(_number(row.get(column)) for row in own) for column in ("s", "cpu_time"))
        memory = max((_number(row.get("max_rss")) for row in own), default=0.0)
        found.append(StageTime(rule, len(own), wall, cpu, memory))
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
