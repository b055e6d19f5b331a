"""Where the time went (Snakemake's benchmark files, the table `models`), and with which packages."""

from __future__ import annotations

import csv
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

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
    """Summed over the jobs of one rule: wall and processor time in seconds, largest memory in MB.

    The memory is None where no job ran long enough for Snakemake to measure it.
    """

    rule: str
    jobs: int
    seconds: float
    cpu_seconds: float
    memory_mb: float | None


def stage_times(folder: Path, jobs: Iterable[str]) -> list[StageTime]:
    """Times by rule, slowest first, of jobs named like their benchmark files: `rank/pixel-untuned`, `prior`.

    Files of other jobs, which an earlier config left in the folder, are not
    looked at; a job without a file is left out. A time that Snakemake could
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
        found.append(StageTime(rule, len(own), wall, cpu, memory or None))
    return sorted(found, key=lambda stage: (-stage.seconds, stage.rule))


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


@dataclass(frozen=True)
class ModelCost:
    """What models of one method, number of steps, device and number of threads took; peak memory in MB."""

    method: str
    steps: int
    device: str
    threads: int
    models: int
    seconds: float
    peak_mb: float

    @property
    def each(self) -> float:
        """Seconds a model."""
        return self.seconds / self.models

    @property
    def speed(self) -> float:
        """Steps of one model a second; infinite where the clock was too coarse to see them."""
        return self.models * self.steps / self.seconds if self.seconds else float("inf")


def model_costs(models: Iterable[Mapping[str, Any]]) -> list[ModelCost]:
    """Costs by method, steps, device and threads from rows of the table `models`, the dearest first."""
    groups: dict[tuple[str, int, str, int], list[Mapping[str, Any]]] = {}
    for row in models:
        key = (row["method"], row["steps"], row["device_name"], row["threads"])
        groups.setdefault(key, []).append(row)
    found = [
        ModelCost(
            *key,
            models=len(rows),
            seconds=sum(row["seconds"] for row in rows),
            peak_mb=max(row["peak_memory"] for row in rows) / 1e6,
        )
        for key, rows in groups.items()
    ]
    return sorted(found, key=lambda cost: (-cost.seconds, cost.method, cost.steps))


def versions() -> dict[str, str]:
    """Versions of the packages that the results hang on, where installed, and of Python."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
