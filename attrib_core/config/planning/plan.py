"""Estimate what a run of a config will take: models, images, bytes, device-hours."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrib_core.common.constants import KINDS
from attrib_core.config.planning import base_model_facts, counts, expected_jobs, rates, sizes
from attrib_core.config.planning.base_model_facts import Base
from attrib_core.config.planning.counts import Counts
from attrib_core.config.planning.rates import Rate, Rates
from attrib_core.config.planning.sizes import Size
from attrib_core.diffusion.synthesis import image_formats

MODEL_STAGES = ("prior", "customize", "synthesize")
UNCOUNTED = ("base model", "exemplars", "measure", "calibrate", "report")  # their files are small


@dataclass(frozen=True)
class Stage:
    """A stage: its work in words and in units of its rate (least and most), rate and size if known."""

    name: str
    work: str
    units: tuple[float, float]
    rate: Rate | None
    size: Size | None

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Least and most time on the rate's device; None without a rate."""
        if self.rate is None:
            return None
        return self.units[0] * self.rate.amount, self.units[1] * self.rate.amount


@dataclass(frozen=True)
class Plan:
    """The estimates of a run, with a line for each figure that is not known."""

    run: str
    counts: Counts
    base: Base | None
    stages: tuple[Stage, ...]
    missing: tuple[str, ...]
    sources: tuple[str, ...]
    image_format: str
    note: str = ""


def estimate(config: Mapping[str, Any], *, run: Path | None = None) -> Plan:
    """Estimate a run of a checked config (plain values); rates measured in `run` take precedence."""
    number = counts.count(config)
    base, reason = base_model_facts.try_read(config["base_model"])
    known = rates.reference(config, base)
    if run is not None:
        known = rates.from_run(run, number, config, base).over(known)
    size, missing = sizes.estimate(config, number, base, known, sizes.dimensions(config, run))
    missing = [*([f"shapes of the base model: {reason}"] if base is None else []), *missing]
    stages = tuple(_stages(config, number, known, size))
    sizeless = [stage.name for stage in stages if stage.size is None and stage.name in UNCOUNTED]
    missing.append(f"bytes of {', '.join(sizeless)}: not counted")
    without = [stage.name for stage in stages if stage.rate is None]
    if without:
        where = "in that run" if run else "before; measure a run of your own: --rates results/<run>"
        missing.append(f"time of {', '.join(without)}: not measured {where}")
    used = [stage.rate for stage in stages if stage.rate]
    if any(stage in size for stage in MODEL_STAGES) and "image" in known.bytes:
        used.append(known.bytes["image"])
    sources = tuple(_sources(used, base))
    return Plan(
        config["run"], number, base, stages, tuple(missing), sources, _image_format(config), known.note
    )


def _image_format(config: Mapping[str, Any]) -> str:
    section = config["synthesis"]
    kept = (
        "all are kept"
        if section["keep"] == "all"
        else "a sample is kept, the others are removed once embedded"
    )
    return f"{image_formats.encoding(section['image_format'], section['quality'])}, {kept}"


def _stages(
    config: Mapping[str, Any], number: Counts, known: Rates, size: Mapping[str, Size]
) -> Iterator[Stage]:
    steps, denoising = (counts.denoising_steps(config, stage) for stage in ("prior", "synthesize"))
    prior_origin = f", {steps} steps" if "steps" in config["prior"] else f" from {config['prior']['family']}"
    images = number.training_steps * number.step_images
    denoised = number.images * denoising
    counted = {
        "pool": (f"{number.pool:,} images", (number.pool, number.pool)),
        "prior": (
            f"{_between(number.prior)} images{prior_origin}",
            (number.prior[0] * steps, number.prior[1] * steps),
        ),
        "customize": (
            f"{number.models:,} models, {number.training_steps:,} steps of {number.step_images} images",
            (images, images),
        ),
        "synthesize": (f"{number.images:,} images, {denoising} steps", (denoised, denoised)),
    }
    counted |= {
        f"embed {name}": (f"{_between(number.embedded)} images", number.embedded) for name in number.encoders
    }
    of_stage = Counter(job.stage for job in expected_jobs.jobs(number))
    for name in expected_jobs.stages(number):
        count = of_stage[name]
        work, units = counted.get(name, (f"{count:,} job{'s' * (count != 1)}", (count, count)))
        yield Stage(name, work, units, known.seconds.get(name), size.get(name))


def _sources(used: list[Rate], base: Base | None) -> Iterator[str]:
    """Yield a line for the source of each rate, marking figures of the publication."""
    for line, published in dict.fromkeys((rate.source, rate.published) for rate in used):
        if published:
            line = f"figure of the publication, not measured by us: {line}"
            if base is None:
                line += "; valid if the base model is Stable Diffusion v1 at 512 pixels, which could not be checked"
        yield line


def lines(plan: Plan) -> Iterator[str]:
    """Yield the plan as lines of text."""
    number = plan.counts
    kinds = ", ".join(f"{number.sets[kind]:,} of {kind}s" for kind in KINDS if number.sets[kind])
    steps = ", ".join(f"{number.set_steps[kind]} each of {kind}s" for kind in KINDS if number.sets[kind])
    yield f"run: results/{plan.run}"
    yield f"exemplar sets: {number.models:,} ({kinds}), of {_between(number.exemplars)} exemplars"
    yield f"models: {number.models:,}"
    yield f"training steps: {number.training_steps:,} ({steps})"
    yield f"images: {plan.image_format}"
    yield f"images: {number.images:,} ({number.customized:,} customized, {number.control:,} of the control)"
    yield f"pool: {number.pool:,} images"
    yield f"embeddings: {_between(number.embedded)} by each of {', '.join(number.encoders)}"
    if plan.base is not None:
        name = plan.base.kind or "an unknown network"
        yield f"base model: {name}, {plan.base.resolution} pixels"
    yield ""
    table = [("stage", "work", "bytes", "device-hours", "on")]
    table += [
        (
            stage.name,
            stage.work,
            _bytes(stage.size),
            _time(stage.seconds),
            stage.rate.device if stage.rate else "",
        )
        for stage in plan.stages
    ]
    yield from aligned(table)
    yield ""
    yield f"bytes in all, of what is known: {_bytes(_all(plan))}"
    for device, (least, most) in _devices(plan).items():
        yield f"time in all on {device}, of what is known: {_time((least, most))}"
    for source in plan.sources:
        yield f"rate: {source}"
    if plan.note:
        yield f"note: {plan.note}"
    for line in plan.missing:
        yield f"not known: {line}"


def aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the rows of a table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def interval(least: str, most: str) -> str:
    """Format the least and the most of a figure: "3 to 5", or "3" if both are equal."""
    return most if least == most else f"{least} to {most}"


def _all(plan: Plan) -> Size:
    known = [stage.size for stage in plan.stages if stage.size]
    least = sum(0 if size.upper_bound else size.bytes[0] for size in known)
    return Size((least, sum(size.bytes[1] for size in known)))


def _devices(plan: Plan) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for stage in plan.stages:
        if stage.rate and stage.seconds:
            least, most = found[stage.rate.device]
            found[stage.rate.device] = (least + stage.seconds[0], most + stage.seconds[1])
    return dict(found)


def _between(number: tuple[int, int]) -> str:
    return interval(f"{number[0]:,}", f"{number[1]:,}")


def _bytes(size: Size | None) -> str:
    if size is None:
        return "not known"
    least, most = map(megabytes, size.bytes)
    return f"at most {most}" if size.upper_bound else interval(least, most)


def megabytes(amount: int) -> str:
    """Format bytes with three digits: "450 B", "9.1 MB", "2.4 TB"."""
    for unit, least in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if amount >= least * 0.9995:
            return f"{_three_digits(amount / least)} {unit}"
    return f"{amount} B"


def _time(seconds: tuple[float, float] | None) -> str:
    if seconds is None:
        return "not known"
    return interval(*map(hours, seconds))


def hours(seconds: float) -> str:
    """Format device-hours with three digits: "<0.001 h", "0.137 h", "1,490 h"."""
    return "<0.001 h" if seconds < 3.6 else f"{_three_digits(seconds / 3600)} h"


def _three_digits(value: float) -> str:
    """Format with three significant digits: "0.00123", "12.3", "1,230"."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"
