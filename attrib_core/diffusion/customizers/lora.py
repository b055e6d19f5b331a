"""LoRA: low-rank changes of the attention weights, and the token.

In the method of Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR 2022), the weight W of each
chosen layer becomes W + (alpha / rank) B A, where B starts at zero. The delta is in peft's layout, which
`load_lora_weights` reads, with alpha / rank multiplied into B. Training does not use peft, whose layers hold only
one model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from attrib_core.common import hashing
from attrib_core.diffusion.customization.method import Customizer, Shape, checked, chosen_shapes

if TYPE_CHECKING:
    from attrib_core.diffusion.customization.model_stack import ModelStack
    from attrib_core.diffusion.pipeline.components import Components

__all__ = ["LoRA", "checked", "load"]
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
ENDINGS = {
    "attention": tuple(f"{kind}.{one}" for kind in ("attn1", "attn2") for one in PROJECTIONS),
    "cross_attention": tuple(f"attn2.{one}" for one in PROJECTIONS),
}


@dataclass(frozen=True, kw_only=True)
class LoRA(Customizer):
    """LoRA with its settings."""

    rank: Annotated[int, Field(ge=1, description="rank of the change of each layer")] = 8
    alpha: Annotated[float, Field(gt=0, description="the change is scaled by alpha / rank")] = 8.0
    layers: Annotated[
        Literal["attention", "cross_attention"], Field(description="which projections are changed")
    ] = "attention"
    train_token: Annotated[
        bool, Field(description="whether the token is trained; else it keeps its initial embedding")
    ] = True

    def start(self, components: Components, nouns: Sequence[str], seed: int) -> ModelStack:
        """Return a stack of untrained models, one for each noun, which initializes its token.

        A is drawn from peft's distribution, by the seed and the name of the layer: the same in all models of a run,
        so that they differ only by their exemplars.
        """
        import torch

        from attrib_core.diffusion.customization.model_stack import ModelStack, linear_layers
        from attrib_core.diffusion.customization.stacked_layers import StackedLowRank

        found = {}
        for name, own in linear_layers(components, ENDINGS[self.layers]).items():
            bound = own.in_features**-0.5
            drawn = hashing.generator("lora", seed, name).uniform(-bound, bound, (self.rank, own.in_features))
            down = torch.from_numpy(drawn).to(own.weight).repeat(len(nouns), 1, 1)
            up = own.weight.new_zeros(len(nouns), own.out_features, self.rank)
            found[name] = StackedLowRank(own, down, up, self.alpha / self.rank)
        return ModelStack(self, components, nouns, found, train_token=self.train_token)

    def delta_shapes(self, unet: Mapping[str, Shape]) -> dict[str, Shape]:
        """Return the keys and shapes of a delta, from those of the UNet's weights."""
        return {
            f"unet.{key.removesuffix('.weight')}.lora_{factor}.weight": shape
            for key, (out, width) in (
                (key, shape)
                for key, shape in chosen_shapes(unet, ENDINGS[self.layers]).items()
                if key.endswith(".weight")
            )
            for factor, shape in (("A", (self.rank, width)), ("B", (out, self.rank)))
        }


load = LoRA
"""The options of the family are the fields of the class."""
