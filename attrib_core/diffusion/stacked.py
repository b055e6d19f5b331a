"""Layers that hold many models at a time: weights with a leading axis of models.

A batch of models x n rows lists the rows of the first model first. The frozen
network around these layers sees one large batch; each model's rows meet that
model's own weights in one batched matrix product. Losses are summed over models,
so that each model's gradient is what it would be alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from attrib_core.errors import InputError


class StackedLinear(nn.Module):
    """A linear layer without bias for each of several models; frozen until it is told otherwise.

    weight: (models, out, in). Input (models * n, tokens, in), output
    (models * n, tokens, out).
    """

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        models, out, _ = self.weight.shape
        product = torch.bmm(rows.reshape(models, -1, rows.shape[-1]), self.weight.transpose(1, 2))
        return product.view(rows.shape[0], rows.shape[1], out)


class FirstTokenStopped(StackedLinear):
    """A stacked linear layer through whose first token no gradient passes; its value is kept.

    Custom Diffusion (Kumari et al., CVPR 2023) stops the gradient at the start
    token in keys and values: that token takes most of the attention and carries
    nothing of the prompt, and weights trained through it drift.
    """

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        product = super().forward(rows)
        return torch.cat([product[:, :1].detach(), product[:, 1:]], dim=1)


class StackedEmbedding(nn.Module):
    """A token table to which each of several models adds one row of its own.

    table: (entries, dim), frozen; rows: (models, dim), the embedding of the id
    `token` in each model. Input (models * n, tokens) of ids.
    """

    def __init__(self, table: torch.Tensor, token: int, rows: torch.Tensor) -> None:
        super().__init__()
        self.table, self.token = table, token
        self.rows = nn.Parameter(rows, requires_grad=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        models, dim = self.rows.shape
        added = ids == self.token
        known = nn.functional.embedding(ids.masked_fill(added, 0), self.table)
        own = self.rows.repeat_interleave(ids.shape[0] // models, dim=0)[:, None, :]
        return torch.where(added[..., None], own, known)


def linear_weight(model: nn.Module, key: str) -> torch.Tensor:
    """The weight that a state-dict key names, (out, in), of a linear layer without bias.

    Raises InputError for a key that the model lacks or that names another kind of layer.
    """
    name = key.removesuffix(".weight")
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        raise InputError(f"delta key {key!r}: the base model's UNet has no such layer") from None
    if not isinstance(layer, nn.Linear) or layer.bias is not None or name == key:
        raise InputError(f"delta key {key!r}: expected the weight of a linear layer without bias")
    return layer.weight


@contextmanager
def swapped(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """Put layers in place of a model's own, by name; the own ones return at the end."""
    before = {name: model.get_submodule(name) for name in layers}
    try:
        for name, layer in layers.items():
            model.set_submodule(name, layer)
        yield
    finally:
        for name, layer in before.items():
            model.set_submodule(name, layer)


@contextmanager
def swapped_embedding(text_encoder: Any, embedding: nn.Module) -> Iterator[None]:
    """Put a stacked embedding in place of a text encoder's token table."""
    before = text_encoder.get_input_embeddings()
    try:
        text_encoder.set_input_embeddings(embedding)
        yield
    finally:
        text_encoder.set_input_embeddings(before)
