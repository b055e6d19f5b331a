"""Prior images of a class that the base model itself generates.

They preserve what the model knew of the class. The published runs took images from a LAION service that no longer
exists; its authors then recommended generated ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from attrib_core.common import hashing
from attrib_core.common.constants import KINDS
from attrib_core.common.errors import InputError
from attrib_core.data import prompts
from attrib_core.data.images import to_png
from attrib_core.diffusion.customization.prior_protocol import PriorClass, PriorInputs, PriorSet, prior_row
from attrib_core.runtime.progress import progress

if TYPE_CHECKING:
    from attrib_core.diffusion.pipeline.description import BaseModel

READS = ("base_model",)
PACKAGES = ("torch", "diffusers", "transformers")
BATCH = 16


@dataclass(frozen=True)
class Generated:
    """A source of generated prior images, with the options of `load`; `batch`, their number at a time, changes none."""

    images: int
    steps: int
    guidance: float
    eta: float
    lists: dict[str, str]
    device: str
    seed: int
    batch: int = BATCH

    def plan(self, classes: Sequence[PriorClass], inputs: PriorInputs) -> list[PriorSet]:
        """Plan the prompts and seeds of each class; its prompts are repeated, in an order by hash."""
        content = [_base(inputs).fingerprint, self.steps, self.guidance, self.eta]
        return [PriorSet(one.kind, one.category, self._rows(one), content) for one in classes]

    def _rows(self, one: PriorClass) -> list[dict[str, Any]]:
        kind, category = one
        texts = prompts.class_prompts(category, name=self.lists[kind])
        order = sorted(
            range(len(texts)), key=lambda index: hashing.digest("prior", self.seed, kind, category, index)
        )
        return [
            prior_row(
                one,
                number,
                texts[order[number % len(order)]],
                seed=hashing.seed("prior", self.seed, kind, category, number),
            )
            for number in range(self.images)
        ]

    def encoded_images(self, sets: Sequence[PriorSet], inputs: PriorInputs) -> Iterator[bytes]:
        """Sample the images batch by batch; the last batch is padded with copies of its last row."""
        import torch

        from attrib_core.diffusion.pipeline import components, sampling

        rows = [row for one in sets for row in one.rows]
        if not rows:
            return
        loaded = components.load(_base(inputs), self.device)
        unconditional = components.empty_prompt_embeds(loaded, self.batch)
        starts = range(0, len(rows), self.batch)
        for start in progress(starts, total=len(starts), what=f"batches of {self.batch} prior images"):
            members = rows[start : start + self.batch]
            padded = [*members, *[members[-1]] * (self.batch - len(members))]
            seeds = [row["seed"] for row in padded]
            with torch.no_grad():
                images = sampling.sample(
                    loaded,
                    components.encode_text(
                        loaded, components.tokenize(loaded, [row["prompt"] for row in padded])
                    ),
                    unconditional,
                    sampling.initial_noise(loaded, seeds),
                    steps=self.steps,
                    guidance=self.guidance,
                    eta=self.eta,
                    seeds=seeds,
                )
            yield from (to_png(image) for image in images[: len(members)])


def _base(inputs: PriorInputs) -> BaseModel:
    if inputs.base is None:
        raise TypeError("the family 'generated' needs a base model as an input")
    return inputs.base


def load(
    *,
    images: Annotated[int, Field(ge=1, description="prior images of each class")] = 16,
    steps: Annotated[int, Field(ge=1, le=1000, description="denoising steps")] = 12,
    guidance: Annotated[float, Field(ge=1, description="scale of classifier-free guidance")] = 3.0,
    eta: Annotated[float, Field(ge=0, le=1, description="noise of the steps, see `synthesis.eta`")] = 0.0,
    object_prompts: Annotated[
        str, Field(description="list of prompts, without token, for the classes of object sets")
    ] = "object_prior",
    style_prompts: Annotated[
        str, Field(description="list of prompts, without token, for those of style sets")
    ] = "style_prior",
    device: str,
    seed: int,
) -> Generated:
    """Images of each class that the base model generates from lists of prompts without the token."""
    lists = {"object": object_prompts, "style": style_prompts}
    return Generated(images, steps, guidance, eta, lists, device, seed)


def checked(**options: Any) -> dict[str, Any]:
    """Check the options against the lists of prompts and return them."""
    for kind in KINDS:
        name = f"{kind}_prompts"
        try:
            prompts.read_list(options[name], tokens=0)
        except InputError as error:
            raise InputError(f"{name}: {str(error).removeprefix('prompts: ')}") from None
    return options


def files(**options: Any) -> list[Path]:
    """List the files of prompts."""
    return [prompts.list_path(options[f"{kind}_prompts"]) for kind in KINDS]
