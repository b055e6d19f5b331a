"""Time by stage from Snakemake's benchmark files, cost of customization, and package versions."""

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
    """Wall and processor time of a rule in seconds, summed over its jobs, and largest memory in MB.

    Memory is None where no job ran long enough for Snakemake to measure it.
    """

    rule: str
    jobs: int
    seconds: float
    cpu_seconds: float
    memory_mb: float | None


def stage_times(folder: Path, jobs: Iterable[str]) -> list[StageTime]:
    """Sum times by rule, slowest first, over jobs named like their benchmark files: `rank/pixel-untuned`, `prior`.

    Files of other jobs, left by an earlier config, are ignored, as are jobs without a file. A time that Snakemake
    could not measure ("NA", "-") counts as zero.
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
    """The cost of models of one method, number of steps, device and number of threads; peak memory in MB."""

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
        """Steps a second, infinite where the clock was too coarse to measure them."""
        return self.models * self.steps / self.seconds if self.seconds else float("inf")


def model_costs(models: Iterable[Mapping[str, Any]]) -> list[ModelCost]:
    """Sum costs by method, steps, device and threads over rows of the table `models`, most expensive first."""
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
    """Return the versions of Python and of installed packages that the results depend on."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
