"""What a base model is told by its prompts, and the text encoders that say it.

Stable Diffusion 1 and 2 have one text encoder, whose last hidden states the UNet
attends to. SDXL (Podell et al., 2023) has two: their penultimate hidden states stand side
by side, and the pooled embedding of the second joins the timestep's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder with its tokenizer. `token` is the modifier token's id there, None before it is added."""

    tokenizer: CLIPTokenizer
    model: CLIPTextModel
    token: int | None = None

    @property
    def table(self) -> torch.Tensor:
        """The token table, (entries, dim)."""
        weight: torch.Tensor = self.model.get_input_embeddings().weight
        return weight


@dataclass(frozen=True)
class PromptEmbeds:
    """Prompts as the UNet takes them.

    states: (prompts, length, dim). pooled: (prompts, width), None where the base model has none.
    """

    states: torch.Tensor
    pooled: torch.Tensor | None = None

    def map(self, how: Callable[[torch.Tensor], torch.Tensor]) -> PromptEmbeds:
        """The same function of both tensors."""
        return combine([self], lambda parts: how(parts[0]))

    def select(self, wanted: Any) -> PromptEmbeds:
        """Some of the prompts: positions, a slice, or anything else that indexes a tensor."""
        return self.map(lambda part: part[wanted])

    def expand(self, count: int) -> PromptEmbeds:
        """A text of one prompt, `count` times."""
        return self.map(lambda part: part.expand(count, *part.shape[1:]))


def combine(texts: Sequence[PromptEmbeds], how: Callable[[list[torch.Tensor]], torch.Tensor]) -> PromptEmbeds:
    """A function of the states of several texts, and the same of their pooled embeddings, where they have any."""
    pooled = [one.pooled for one in texts if one.pooled is not None]
    return PromptEmbeds(how([one.states for one in texts]), how(pooled) if pooled else None)


def concatenate(texts: Sequence[PromptEmbeds]) -> PromptEmbeds:
    """The prompts of several texts, one text after the other."""
    return combine(texts, torch.cat)


def interleave(first: PromptEmbeds, second: PromptEmbeds) -> PromptEmbeds:
    """Prompts of two texts in turn, as many of each."""
    return combine([first, second], lambda parts: torch.stack(parts, dim=1).flatten(0, 1))
