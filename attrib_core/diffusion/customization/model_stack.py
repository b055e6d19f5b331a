"""Several models trained at once: stacked layers and one optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch

from attrib_core.diffusion.customization import stacked_layers as stacked
from attrib_core.diffusion.customization.method import Customizer
from attrib_core.diffusion.customization.stacked_layers import (
    FirstTokenDetached,
    StackedLinear,
    StackedLowRank,
)
from attrib_core.diffusion.deltas.delta_files import Delta
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.diffusion.pipeline.prompt_encoding import TextEncoder

CLIP_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


class ModelStack:
    """Several models in training; `attached` inserts their layers into the network, `update` makes a step of all.

    layers: the trained layers, by the name of the UNet's layer that they replace. The token's embedding is trained in
    every text encoder, unless `train_token` is False. `nouns` has one noun for each model, which initializes its token.
    """

    def __init__(
        self,
        settings: Customizer,
        components: Components,
        nouns: Sequence[str],
        layers: Mapping[str, StackedLinear | StackedLowRank],
        *,
        train_token: bool = True,
    ) -> None:
        self._components = components
        self._clip = settings.gradient_clip
        self._layers = dict(layers)
        starts = [noun if settings.initializer is None else settings.initializer for noun in nouns]
        self._embeddings = [_embedding(encoder, starts, components.tokens) for encoder in components.encoders]
        trained = [parameter for layer in self._layers.values() for parameter in layer.parameters()]
        trained += [one.rows for one in self._embeddings] if train_token else []
        self._trained = [parameter.requires_grad_() for parameter in trained]
        # elementwise, so models do not affect each other
        self._optimizer = torch.optim.AdamW(self._trained, settings.rate, weight_decay=settings.weight_decay)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Run the UNet and the text encoders with the weights of the stack, in this context."""
        with ExitStack() as stack:
            stack.enter_context(stacked.replace_layers(self._components.unet, self._layers))
            for encoder, embedding in zip(self._components.encoders, self._embeddings, strict=True):
                stack.enter_context(stacked.replace_token_table(encoder.model, embedding))
            yield

    @torch.no_grad()
    def update(self) -> None:
        """Make an optimizer step with gradients clipped for each model by itself; gradients are then cleared."""
        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        scale = (self._clip / (norms + CLIP_EPSILON)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))
        self._optimizer.step()
        self._optimizer.zero_grad()

    def delta(self, position: int) -> Delta:
        """Return the delta of the model at a position."""
        weights: dict[str, torch.Tensor] = {}
        for name, layer in self._layers.items():
            weights |= layer.delta_weights(name, position)
        return Delta(weights, *(one.rows[position].detach().clone() for one in self._embeddings))


def _embedding(encoder: TextEncoder, nouns: Sequence[str], tokens: int) -> stacked.StackedEmbedding:
    """Add rows for each model to a text encoder's table, initialized by the model's noun."""
    if encoder.token is None:
        raise ValueError("components without a modifier token; call with_token first")
    rows = torch.stack([noun_embedding(encoder, noun) for noun in nouns])
    if tokens > 1:
        rows = rows[:, None].repeat(1, tokens, 1)
    return stacked.StackedEmbedding(encoder.table, encoder.token, rows)


def noun_embedding(encoder: TextEncoder, noun: str) -> torch.Tensor:
    """Average the token embeddings of a noun, (dim,): the initial embedding of the modifier token."""
    ids = encoder.tokenizer(noun, add_special_tokens=False).input_ids
    return encoder.table[ids].mean(dim=0)


def stacked_layers(
    components: Components,
    endings: tuple[str, ...],
    models: int,
    *,
    detach_first_token: tuple[str, ...] = (),
) -> dict[str, StackedLinear | StackedLowRank]:
    """Copy the UNet's linear layers whose names have one of the endings, for each model; sorted by name.

    Layers with an ending in `detach_first_token` pass no gradient through the first token.
    """
    found: dict[str, StackedLinear | StackedLowRank] = {}
    for name, own in linear_layers(components, endings).items():
        kind = FirstTokenDetached if name.endswith(detach_first_token) else StackedLinear
        weight = own.weight.expand(models, -1, -1).clone()
        found[name] = kind(weight, None if own.bias is None else own.bias.expand(models, -1).clone())
    return found


def linear_layers(components: Components, endings: tuple[str, ...]) -> dict[str, torch.nn.Linear]:
    """Find the UNet's linear layers whose names have one of the endings, sorted by name."""
    return {
        name: layer
        for name, layer in sorted(components.unet.named_modules())
        if isinstance(layer, torch.nn.Linear) and name.endswith(endings)
    }
