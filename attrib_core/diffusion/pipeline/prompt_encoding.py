"""Text encoders, and the prompt embeddings that condition the UNet.

Stable Diffusion 1 and 2 have one text encoder; the UNet attends to its last hidden states. SDXL (Podell et al.,
2023) has two: their penultimate hidden states are concatenated, and the pooled embedding of the second is added
to the timestep's embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder with its tokenizer. `token` is the id of the modifier token, None before it is added."""

    tokenizer: CLIPTokenizer
    model: CLIPTextModel
    token: int | None = None

    @property
    def table(self) -> torch.Tensor:
        """The table of token embeddings, (entries, dim)."""
        weight: torch.Tensor = self.model.get_input_embeddings().weight
        return weight


@dataclass(frozen=True)
class PromptEmbeds:
    """Encoded prompts, as the UNet takes them.

    states: (prompts, length, dim). pooled: (prompts, width), None where the base model has none.
    """

    states: torch.Tensor
    pooled: torch.Tensor | None = None

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> PromptEmbeds:
        """Apply a function to both tensors."""
        return combine([self], lambda tensors: function(tensors[0]))

    def select(self, index: Any) -> PromptEmbeds:
        """Return some of the prompts, by anything that indexes a tensor."""
        return self.map(lambda tensor: tensor[index])

    def expand(self, count: int) -> PromptEmbeds:
        """Repeat a single prompt `count` times."""
        return self.map(lambda tensor: tensor.expand(count, *tensor.shape[1:]))


def combine(
    prompts: Sequence[PromptEmbeds], function: Callable[[list[torch.Tensor]], torch.Tensor]
) -> PromptEmbeds:
    """Apply a function to the states of all, and to the pooled embeddings of all where there are any."""
    pooled = [one.pooled for one in prompts if one.pooled is not None]
    return PromptEmbeds(function([one.states for one in prompts]), function(pooled) if pooled else None)


def concatenate(prompts: Sequence[PromptEmbeds]) -> PromptEmbeds:
    """Concatenate prompts."""
    return combine(prompts, torch.cat)


def interleave(first: PromptEmbeds, second: PromptEmbeds) -> PromptEmbeds:
    """Alternate the prompts of two equally long sequences."""
    return combine([first, second], lambda tensors: torch.stack(tensors, dim=1).flatten(0, 1))
