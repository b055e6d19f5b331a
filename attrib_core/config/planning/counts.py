"""Numbers of models, images, steps and jobs of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attrib_core.common import families
from attrib_core.common.constants import KINDS, UNTUNED
from attrib_core.diffusion.customization.method import Customizer
from attrib_core.features.heads import heads

Range = tuple[int, int]
"""Least and most; equal if the config determines the number."""


@dataclass(frozen=True)
class Counts:
    """The numbers of a run.

    sets, set_steps: exemplar sets, and optimizer steps for one of them, by kind.
    step_images: images that an optimizer step of a set passes through the network.
    prior: prior images; the number of classes is known only once exemplars are drawn.
    sampled: synthesized images that the report may show.
    mappers: `untuned` and those that are trained.
    """

    sets: Mapping[str, int]
    set_steps: Mapping[str, int]
    step_images: int
    exemplars: Range
    prior: Range
    customized: int
    control: int
    pool: int
    encoders: tuple[str, ...]
    mappers: tuple[str, ...]
    pool_parts: int
    set_parts: int
    sampled: int

    @property
    def models(self) -> int:
        """Customized models, one per exemplar set."""
        return sum(self.sets.values())

    @property
    def training_steps(self) -> int:
        """Optimizer steps of all models together."""
        return sum(self.sets[kind] * self.set_steps[kind] for kind in KINDS)

    @property
    def images(self) -> int:
        """Synthesized images of customized models and the control; each is a query."""
        return self.customized + self.control

    @property
    def embedded(self) -> Range:
        """Images that each encoder embeds: pool, exemplars and queries."""
        low, high = self.exemplars
        return self.pool + self.images + low, self.pool + self.images + high


def denoising_steps(config: Mapping[str, Any], stage: str) -> int:
    """Return the denoising steps of an image in stage `prior` or `synthesize`; 1 for prior images that are
    not generated."""
    section = config["prior" if stage == "prior" else "synthesis"]
    return int(section.get("steps", 1))


def count(config: Mapping[str, Any]) -> Counts:
    """Count the numbers of a checked config, given as plain values."""
    exemplars, prompts, parts = config["exemplars"], config["prompts"], config["parts"]
    mapper = config["mapper"]
    trained = [
        heads.mapper_name(mapper["head"], shared=mapper["shared"], kind=kind) for kind in mapper["trained_on"]
    ]
    family, options = families.split(config["customizer"])
    method: Customizer = families.load("customizers", family, options, where="customizer")
    sets = {kind: exemplars[f"{kind}_sets"] for kind in KINDS}
    low, high = exemplars["style_set_size"]
    number_of_prompts = prompts["prompts_each"] * sum(sets[kind] * len(prompts[kind]) for kind in KINDS)
    images = method.accumulation * (method.exemplar_batch + method.prior_batch)
    # all style sets are one class; object sets have at least one category, at most one each
    present = bool(sets["style"])
    classes = (bool(sets["object"]) + present, sets["object"] + present)
    each = config["prior"]["images"] if method.prior_batch else 0
    return Counts(
        sets=sets,
        set_steps={kind: method.steps_of(kind) for kind in KINDS},
        step_images=images,
        exemplars=(sets["object"] + low * sets["style"], sets["object"] + high * sets["style"]),
        prior=(classes[0] * each, classes[1] * each),
        customized=number_of_prompts * prompts["samples_each"],
        control=number_of_prompts * prompts["control_samples_each"],
        pool=config["pool"]["images"],
        encoders=tuple(config["encoders"]),
        mappers=(UNTUNED, *trained),
        pool_parts=math.ceil(config["pool"]["images"] / parts["pool_images"]),
        set_parts=math.ceil(sum(sets.values()) / parts["exemplar_sets"]),
        sampled=sum(sets[kind] * _sampled(config, kind) for kind in KINDS),
    )


def _sampled(config: Mapping[str, Any], kind: str) -> int:
    """Return the sampled images of a set: customized ones of prompts that have a control, and the controls."""
    prompts = config["prompts"]
    compared = min(prompts["samples_each"], prompts["control_samples_each"])
    return 2 * min(config["report"]["samples"], len(prompts[kind]) * prompts["prompts_each"] * compared)
