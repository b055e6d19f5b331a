"""Layers with the weights of several models, stacked along a leading axis.

A batch of models x n rows has the rows of the first model first. The frozen network around these layers sees one
large batch; the rows of each model are multiplied with its own weights in one batched matrix product. Losses are
summed over models, so each model's gradient is the same as alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from attrib_core.common.errors import InputError
from attrib_core.diffusion.deltas import lora_factors


class StackedLinear(nn.Module):
    """A linear layer of each of several models; frozen unless `requires_grad_` is called.

    weight: (models, out, in); bias: (models, out) or None. Input (models * n, tokens, in), output
    (models * n, tokens, out).
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        product = per_model_matmul(rows, self.weight)
        if self.bias is None:
            return product
        return (product.unflatten(0, (len(self.bias), -1)) + self.bias[:, None, None]).flatten(0, 1)

    def delta_weights(self, name: str, position: int) -> dict[str, torch.Tensor]:
        """Return the entries of this layer, by its name, in the delta of the model at a position."""
        found = {f"{name}.weight": self.weight[position].detach().clone()}
        if self.bias is not None:
            found[f"{name}.bias"] = self.bias[position].detach().clone()
        return found


class FirstTokenDetached(StackedLinear):
    """A stacked linear layer whose output for the first token is detached from the gradient.

    Custom Diffusion (Kumari et al., CVPR 2023) detaches the start token in keys and values: it takes most of the
    attention, carries nothing of the prompt, and weights trained through it drift.
    """

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        product = super().forward(rows)
        return torch.cat([product[:, :1].detach(), product[:, 1:]], dim=1)


class StackedLowRank(nn.Module):
    """A frozen linear layer to which each of several models adds scaled LoRA factors B A (Hu et al., 2022).

    down, up: A of shape (models, rank, in) and B of shape (models, out, rank). Input and output as for StackedLinear.
    """

    def __init__(self, own: nn.Module, down: torch.Tensor, up: torch.Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self._own = [own]  # in a list, so that it is not registered as a submodule
        self.down = nn.Parameter(down, requires_grad=False)
        self.up = nn.Parameter(up, requires_grad=False)
        self.scale = scale

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        own: torch.Tensor = self._own[0](rows)
        return own + self.scale * per_model_matmul(per_model_matmul(rows, self.down), self.up)

    def delta_weights(self, name: str, position: int) -> dict[str, torch.Tensor]:
        """Return the factors in the delta of the model at a position, with the scale multiplied into B."""
        down, up = lora_factors.factor_keys(f"{name}.weight")
        return {
            down: self.down[position].detach().clone(),
            up: self.scale * self.up[position].detach(),
        }


def per_model_matmul(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply each model's rows with its own matrix: (models * n, tokens, in), (models, out, in) to (..., out)."""
    models, out, _ = weight.shape
    product = torch.bmm(rows.reshape(models, -1, rows.shape[-1]), weight.transpose(1, 2))
    return product.view(rows.shape[0], rows.shape[1], out)


class StackedEmbedding(nn.Module):
    """A frozen table of token embeddings, (entries, dim), with the modifier token's rows of several models.

    rows: (models, dim), the embedding of the id `token` in each model, or (models, tokens, dim), those of the ids
    from `token` on. Input: ids, (models * n, tokens).
    """

    def __init__(self, table: torch.Tensor, token: int, rows: torch.Tensor) -> None:
        super().__init__()
        self.table, self.token = table, token
        self.rows = nn.Parameter(rows, requires_grad=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        models = len(self.rows)
        added = ids >= self.token
        found = nn.functional.embedding(ids.masked_fill(added, 0), self.table)
        for offset, row in enumerate(self.rows.unbind(1) if self.rows.ndim == 3 else [self.rows]):
            own = row.repeat_interleave(ids.shape[0] // models, dim=0)[:, None, :]
            found = torch.where((ids == self.token + offset)[..., None], own, found)
        return found


def linear_layer(model: nn.Module, key: str) -> nn.Linear:
    """Return the linear layer of a state-dict key; InputError where the model has none."""
    name, _, part = key.rpartition(".")
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        raise InputError(f"delta key {key!r}: the base model's UNet has no such layer") from None
    if not isinstance(layer, nn.Linear) or part not in ("weight", "bias") or getattr(layer, part) is None:
        raise InputError(f"delta key {key!r}: expected the weight or the bias of a linear layer")
    return layer


@contextmanager
def replace_layers(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """Replace layers of a model by name, in this context."""
    before = {name: model.get_submodule(name) for name in layers}
    try:
        for name, layer in layers.items():
            model.set_submodule(name, layer)
        yield
    finally:
        for name, layer in before.items():
            model.set_submodule(name, layer)


@contextmanager
def replace_token_table(text_encoder: Any, embedding: nn.Module) -> Iterator[None]:
    """Replace the table of token embeddings of a text encoder, in this context."""
    before = text_encoder.get_input_embeddings()
    try:
        text_encoder.set_input_embeddings(embedding)
        yield
    finally:
        text_encoder.set_input_embeddings(before)
