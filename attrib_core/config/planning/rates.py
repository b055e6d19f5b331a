"""Measured time and bytes for a unit of work, from a run or from `reference.toml`.

Units, by stage: pool: a row; prior, synthesize: an image and denoising step; customize: an image
and training step; embed: an image by an encoder; others: a job. `image` is the file of a
synthesized image. Without a measurement there is no rate.
"""

from __future__ import annotations

import csv
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.config.planning import expected_jobs
from attrib_core.config.planning.base_model_facts import STABLE_DIFFUSION, Base
from attrib_core.config.planning.counts import Counts, denoising_steps
from attrib_core.diffusion.synthesis import image_formats
from attrib_core.storage import parquet_files, run_layout, tables

REFERENCE = Path(__file__).parent / "reference.toml"
COUNTED_BY_ROWS = ("pool", "prior", "synthesize")  # and embeddings; other stages are counted by jobs
PRIOR_FORMAT = "png"
ON_DEVICE = ("prior", "synthesize")  # and customize: the network of the base model


@dataclass(frozen=True)
class Rate:
    """Seconds on `device`, or bytes, of one unit. published: a figure of the publication, not measured here."""

    amount: float
    source: str
    device: str = ""
    published: bool = False


@dataclass(frozen=True)
class Rates:
    """Rates by stage, "embed <name>" for an encoder. note: what was left out, and why."""

    seconds: Mapping[str, Rate]
    bytes: Mapping[str, Rate]
    note: str = ""

    def over(self, other: Rates) -> Rates:
        """Return these rates, completed by the other's."""
        return Rates({**other.seconds, **self.seconds}, {**other.bytes, **self.bytes}, self.note)


def reference(config: Mapping[str, Any], base: Base | None, *, path: Path = REFERENCE) -> Rates:
    """Return the rates of `reference.toml` that apply to a config.

    For a base model that cannot be opened, the rates of Stable Diffusion v1 are included, since
    most folders in configs contain it; what prints them must say so.
    """
    entries = tomllib.loads(path.read_text("utf-8"))["rates"]
    kind = STABLE_DIFFUSION if base is None else base.kind
    sections = {
        "pool": config["pool"]["source"],
        "prior": config["prior"],
        "customize": config["customizer"],
        "synthesize": config["synthesis"],
        "image": config["synthesis"],
    }
    seconds: dict[str, Rate] = {}
    sizes: dict[str, Rate] = {}
    for stage, section in sections.items():
        for entry in entries:
            if entry["stage"] == stage and _applies(entry["when"], {**section, "base": kind}):
                (seconds if "seconds" in entry else sizes)[stage] = _rate(entry)
    for name, section in config["encoders"].items():
        found = _encoder([entry for entry in entries if entry["stage"] == "embed"], section, kind)
        if found is not None:
            seconds[f"embed {name}"] = found
    return Rates(seconds, sizes)


def _encoder(
    entries: Iterable[Mapping[str, Any]], section: Mapping[str, Any], base: str | None
) -> Rate | None:
    """Return the rate of an encoder, or the sum over its parts; None if one of them has none."""
    members = families.members("encoders", section)
    parts = members[1:] or members
    found = []
    for family, options in parts:
        own = [
            entry for entry in entries if _applies(entry["when"], {**options, "family": family, "base": base})
        ]
        if not own:
            return None
        found.append(_rate(own[0]))
    return Rate(sum(rate.amount for rate in found), found[0].source, found[0].device)


def _applies(when: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Return whether options meet the conditions of a rate; "null" means None, which TOML lacks."""
    return all(options.get(key) == (None if value == "null" else value) for key, value in when.items())


def _rate(entry: Mapping[str, Any]) -> Rate:
    amount = entry["seconds"] if "seconds" in entry else entry["bytes"]
    return Rate(amount, entry["source"], entry.get("device", ""), entry.get("published", False))


def from_run(run: Path, counts: Counts, config: Mapping[str, Any], base: Base | None) -> Rates:
    """Measure the rates of a run, finished or not, assuming that its settings are those of `config`.

    Times come from Snakemake's benchmark files, with the start-up of jobs; those of customization
    from the table `models`. A job that was killed and continued counts with the time of its last
    start. If the run's base model is not `base`, rates that depend on it are left out.

    Raises InputError for a folder that is no run.
    """
    if not (run / run_layout.BENCHMARKS).is_dir():
        raise InputError(f"{run}: no run with measured times; expected a folder like results/demo")
    work: dict[str, float] = defaultdict(float)
    spent: dict[str, float] = defaultdict(float)
    size: dict[str, int] = defaultdict(int)
    rows: dict[str, int] = defaultdict(int)
    device = _device(run, counts)
    wanted = image_formats.encoding(config["synthesis"]["image_format"], config["synthesis"]["quality"])
    for job in expected_jobs.jobs(counts):
        output = run / job.output
        took = seconds_of(run, job)
        if took is None or not output.is_file() or job.rule == "customize_part":
            continue
        stage, number = job.stage, 1
        if stage in COUNTED_BY_ROWS or job.rule.startswith("embed_"):
            number = parquet_files.count_rows([output])
            if stage != "synthesize":  # its output here is the table without images
                size[stage] += output.stat().st_size
                rows[stage] += number
        if stage in ON_DEVICE:
            number *= denoising_steps(config, stage)
        if job.rule == "sample_part" and _encoding(output) == wanted:
            size["image"] += output.stat().st_size
            rows["image"] += parquet_files.count_rows([output])
        work[stage] += number
        spent[stage] += took
    source = f"measured in {run}"
    seconds = {
        stage: Rate(spent[stage] / done, source, device if stage in ON_DEVICE else "that run's machine")
        for stage, done in work.items()
        if done
    }
    sizes = {name: Rate(size[name] / number, source) for name, number in rows.items() if number}
    if "steps" in config["prior"] and "prior" in sizes and wanted == PRIOR_FORMAT:
        sizes.setdefault("image", sizes["prior"])  # generated by the same network
    if trained := _customize(run, counts):
        seconds["customize"] = Rate(trained, source, device)
    if base is None or not (run / run_layout.BASE_MODEL).is_file() or not base.was_used_by(run):
        bound = ("prior", "customize", "synthesize", "embed")
        seconds = {stage: rate for stage, rate in seconds.items() if not stage.startswith(bound)}
        for name in ("image", *(["prior"] if "steps" in config["prior"] else [])):
            sizes.pop(name, None)
        note = f"{run} may have another base model: its rates of {', '.join(bound)} are left out"
        return Rates(seconds, sizes, note)
    return Rates(seconds, sizes)


def _encoding(sample: Path) -> str | None:
    """Return the format of the images in a sample; None if it has none."""
    found: list[str] = tables.read(sample, "synthesized", ["image_format"])["image_format"].to_pylist()
    return found[0] if found else None


def seconds_of(run: Path, job: expected_jobs.Job) -> float | None:
    """Read the wall time of a job from its benchmark file; None without a file or a measurement."""
    try:
        path = run_layout.path(run, run_layout.BENCHMARK, job=job.name)
        with path.open(encoding="utf-8", newline="") as stream:
            return sum(float(row["s"]) for row in csv.DictReader(stream, delimiter="\t"))
    except (OSError, KeyError, ValueError, TypeError):
        return None


def _models(run: Path, counts: Counts) -> list[dict[str, Any]]:
    paths = [run / job.output for job in expected_jobs.jobs(counts) if job.rule == "customize_part"]
    columns = ["steps", "seconds", "device_name", "threads"]
    existing = [path for path in paths if path.is_file()]
    return tables.read_parts(existing, "models", columns).to_pylist() if existing else []


def _customize(run: Path, counts: Counts) -> float | None:
    """Return the seconds for an image and training step, over all finished models; None without any."""
    models = _models(run, counts)
    steps = sum(row["steps"] for row in models)
    return sum(row["seconds"] for row in models) / (steps * counts.step_images) if steps else None


def _device(run: Path, counts: Counts) -> str:
    """Return the device on which most models were trained, which also generates the images."""
    names = [(row["device_name"], row["threads"]) for row in _models(run, counts)]
    if not names:
        return "that run's machine"
    name, threads = max(set(names), key=names.count)
    return f"{name}, {threads} thread{'s' if threads > 1 else ''} a job"
