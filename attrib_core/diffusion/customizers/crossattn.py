"""Custom Diffusion of all cross-attention weights: its option `crossattn`, meant for hard subjects like faces.

Queries and outputs are trained besides keys, values and the token. The first text token is detached in keys and
values, the only projections of text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attrib_core.diffusion.customization.method import Customizer, Shape, checked, chosen_shapes

if TYPE_CHECKING:
    from attrib_core.diffusion.customization.model_stack import ModelStack
    from attrib_core.diffusion.pipeline.components import Components

__all__ = ["CrossAttention", "checked", "load"]
KEYS_AND_VALUES = ("attn2.to_k", "attn2.to_v")
QUERIES_AND_OUTPUTS = ("attn2.to_q", "attn2.to_out.0")


@dataclass(frozen=True, kw_only=True)
class CrossAttention(Customizer):
    """Custom Diffusion of keys, values, queries and outputs, with its settings."""

    def start(self, components: Components, nouns: Sequence[str], seed: int) -> ModelStack:
        """Return a stack of untrained models, one for each noun, which initializes its token."""
        from attrib_core.diffusion.customization.model_stack import ModelStack, stacked_layers

        layers = stacked_layers(
            components,
            KEYS_AND_VALUES + QUERIES_AND_OUTPUTS,
            len(nouns),
            detach_first_token=KEYS_AND_VALUES,
        )
        return ModelStack(self, components, nouns, layers)

    def delta_shapes(self, unet: Mapping[str, Shape]) -> dict[str, Shape]:
        """Return the keys and shapes of a delta, from those of the UNet's weights."""
        return chosen_shapes(unet, KEYS_AND_VALUES + QUERIES_AND_OUTPUTS)


load = CrossAttention
"""The options of the family are the fields of the class."""
