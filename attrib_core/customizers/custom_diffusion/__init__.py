"""Custom Diffusion: keys and values of the cross-attention, and one new token.

Method of Kumari et al., "Multi-Concept Customization of Text-to-Image Diffusion"
(CVPR 2023): trained are `to_k` and `to_v` of every cross-attention layer and the
embedding of the modifier token, by AdamW. No gradient passes through the first
text token. Prior preservation: pictures of the class, made by the base model
itself, are trained on as well. Unlike the published code, weight decay never
touches another row of the token table.

The defaults are for the bundled base model. For Stable Diffusion v1.4 the
published settings are near learning_rate 8e-5, steps and style_steps 250, weight_decay 0.01,
prior_images 200, timestep_power 1, and style prompts that name no subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

if TYPE_CHECKING:
    from attrib_core.customizers.custom_diffusion.stack import Stack
    from attrib_core.diffusion.components import Components


@dataclass(frozen=True, kw_only=True)
class CustomDiffusion:
    """The method with its settings."""

    steps: Annotated[int, Field(ge=1, description="optimizer steps of object sets")] = 160
    style_steps: Annotated[int, Field(ge=1, description="optimizer steps of style sets")] = 300
    learning_rate: Annotated[float, Field(gt=0, description="of AdamW, constant")] = 0.004
    weight_decay: Annotated[float, Field(ge=0, description="of AdamW, on what is trained alone")] = 0.0
    gradient_clip: Annotated[float, Field(gt=0, description="largest gradient norm of one exemplar set")] = (
        1.0
    )
    exemplar_batch: Annotated[int, Field(ge=1, description="exemplar pictures a step and set")] = 3
    prior_batch: Annotated[int, Field(ge=0, description="prior pictures a step and set")] = 1
    prior_weight: Annotated[float, Field(ge=0, description="weight of their loss")] = 1.0
    prior_images: Annotated[int, Field(ge=0, description="prior pictures made for each class")] = 16
    stack: Annotated[int, Field(ge=1, description="exemplar sets trained in one batch")] = 8
    timestep_power: Annotated[
        float, Field(gt=0, le=1, description="timesteps are T u^power for uniform u: below 1, noisier ones")
    ] = 0.6
    views: Annotated[
        int, Field(ge=1, description="moved and scaled views made of an exemplar set, at least")
    ] = 16
    scale_jitter: Annotated[float, Field(ge=0, lt=1, description="largest change of scale of a view")] = 0.03
    shift: Annotated[float, Field(ge=0, lt=1, description="largest shift of a view, share of its side")] = (
        0.03
    )
    object_prompt: Annotated[str, Field(description="training prompt of object sets")] = (
        "a {token} {category}"
    )
    style_prompt: Annotated[
        str,
        Field(
            description="training prompt of style sets; `{subject}` is what an exemplar shows, with its article;"
            " what is in brackets is left out where that is not known"
        ),
    ] = "a picture[ of {subject}] in the style of {token} art"
    prior_steps: Annotated[int, Field(ge=1, description="denoising steps of prior pictures")] = 12
    prior_guidance: Annotated[float, Field(ge=1, description="guidance of prior pictures")] = 3.0
    object_prior: Annotated[str, Field(description="list of prior prompts of object sets")] = "object_prior"
    style_prior: Annotated[str, Field(description="list of prior prompts of style sets")] = "style_prior"

    def steps_of(self, kind: str) -> int:
        """Optimizer steps of a set of a kind."""
        return self.style_steps if kind == "style" else self.steps

    def start(self, components: Components, nouns: Sequence[str]) -> Stack:
        """A stack of models at step 0, one for each noun; tokens start as their nouns."""
        from attrib_core.customizers.custom_diffusion.stack import Stack

        return Stack(self, components, nouns)


load = CustomDiffusion
"""The options of the family are the fields of the class."""
