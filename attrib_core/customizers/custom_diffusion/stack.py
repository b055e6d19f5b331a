"""What Custom Diffusion trains, for several models at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch

from attrib_core.diffusion import stacked
from attrib_core.diffusion.components import Components
from attrib_core.diffusion.deltas import Delta

if TYPE_CHECKING:
    from attrib_core.customizers.custom_diffusion import CustomDiffusion

CROSS_ATTENTION = ("attn2.to_k.weight", "attn2.to_v.weight")
CLIP_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


class Stack:
    """Several models in training; `attached` puts them into the network, `update` makes a step of all."""

    def __init__(self, method: CustomDiffusion, components: Components, nouns: Sequence[str]) -> None:
        if components.token is None:
            raise ValueError("components without a modifier token; call with_token first")
        self._components = components
        self._clip = method.gradient_clip
        weights = components.unet.state_dict()
        self._layers = {
            key: stacked.FirstTokenStopped(weights[key].expand(len(nouns), -1, -1).clone())
            for key in sorted(weights)
            if key.endswith(CROSS_ATTENTION)
        }
        rows = torch.stack([noun_embedding(components, noun) for noun in nouns])
        self._embedding = stacked.StackedEmbedding(components.table, components.token, rows)
        trained = [layer.weight for layer in self._layers.values()] + [self._embedding.rows]
        self._trained = [parameter.requires_grad_() for parameter in trained]
        # elementwise, so that models do not meet in it
        self._optimizer = torch.optim.AdamW(
            self._trained, method.learning_rate, weight_decay=method.weight_decay
        )

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Inside, UNet and text encoder work with the weights of the stack."""
        layers = {key.removesuffix(".weight"): layer for key, layer in self._layers.items()}
        with ExitStack() as stack:
            stack.enter_context(stacked.swapped(self._components.unet, layers))
            stack.enter_context(stacked.swapped_embedding(self._components.text_encoder, self._embedding))
            yield

    @torch.no_grad()
    def update(self) -> None:
        """One optimizer step from the gradients at hand, clipped model by model; gradients are cleared."""
        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        scale = (self._clip / (norms + CLIP_EPSILON)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))
        self._optimizer.step()
        self._optimizer.zero_grad()

    def delta(self, position: int) -> Delta:
        """What the model at a position has become."""
        weights = {key: layer.weight[position].detach().clone() for key, layer in self._layers.items()}
        return Delta(weights, self._embedding.rows[position].detach().clone())


def noun_embedding(components: Components, noun: str) -> torch.Tensor:
    """Mean of the token embeddings of a noun, (dim,): the start of the modifier token."""
    ids = components.tokenizer(noun, add_special_tokens=False).input_ids
    return components.table[ids].mean(dim=0)
