"""LoRA factors: changes of weights as products of two low-rank matrices, under the keys of a LoRA file.

With `unet.<layer>.lora_A.weight` (rank, in) and `unet.<layer>.lora_B.weight` (out, rank) the weight of the layer is
the base model's plus B A. Of a convolution, A is (rank, in, height, width) and B (out, rank, 1, 1). This is peft's
layout with scale 1, which `load_lora_weights` of diffusers reads; another scale is multiplied into B.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from attrib_core.common.errors import InputError

PREFIX = "unet."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


def factor_keys(key: str) -> tuple[str, str]:
    """Return the keys of the factors A and B of a weight, from its UNet key."""
    layer = PREFIX + key.removesuffix(".weight")
    return layer + DOWN, layer + UP


def is_factor(key: str) -> bool:
    """Tell whether a key is that of a factor."""
    return key.endswith((DOWN, UP))


def weight_key(key: str) -> str:
    """Return the UNet key of the weight that a factor changes; the key of a weight is returned as it is."""
    for suffix in (DOWN, UP):
        if key.endswith(suffix):
            return key.removeprefix(PREFIX).removesuffix(suffix) + ".weight"
    return key


def merge(weights: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Merge factors into the base model's weights: B A plus the weight, by UNet key; weights stay as they are.

    Raises InputError as `factor_pair` does, and for a key that the base model lacks.
    """
    found: dict[str, torch.Tensor] = {}
    for key, value in weights.items():
        target = weight_key(key)
        if not is_factor(key):
            found[key] = value
        elif target not in found:
            own = base_weight(base, target)
            down, up = factor_pair(weights, target, tuple(own.shape))
            found[target] = own + (up.to(own) @ down.to(own)).view(own.shape)
    return found


def check_pair(where: Path, key: str, down: torch.Tensor, up: torch.Tensor) -> None:
    """Raise InputError where factors A and B, of the key of A, have no product."""
    fits = down.ndim == up.ndim and down.ndim in (2, 4) and len(down) == up.shape[1]
    if not fits or not down.numel() or not up.numel() or up[0, 0].numel() != 1:
        raise InputError(
            f"{where}: key {key!r}: factors A {tuple(down.shape)} and B {tuple(up.shape)}, expected (rank, in) and"
            " (out, rank), or those of a convolution"
        )


def product(weights: Mapping[str, torch.Tensor], key: str) -> torch.Tensor:
    """Return B A of a weight's factors as a matrix (out, the rest)."""
    down, up = (weights[name] for name in factor_keys(key))
    return up.flatten(1) @ down.flatten(1)


def factor_pair(
    weights: Mapping[str, torch.Tensor], key: str, shape: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors A and B of a weight of a known shape, as matrices (rank, the rest) and (out, rank).

    Raises InputError where one of the two is missing or their product has another shape.
    """
    down, up = factor_keys(key)
    for name, other in ((down, up), (up, down)):
        if name not in weights:
            raise InputError(f"delta key {other!r}: its other factor {name!r} is missing")
    first, second = weights[down], weights[up]
    fits = first.ndim == second.ndim == len(shape) >= 2 and len(first) == second.shape[1]
    if not fits or (len(second), *first.shape[1:]) != shape or second[0, 0].numel() != 1:
        raise InputError(
            f"delta key {down!r}: factors of shape {tuple(second.shape)} and {tuple(first.shape)},"
            f" the base model has {shape}"
        )
    return first.flatten(1), second.flatten(1)


def base_weight(base: Mapping[str, torch.Tensor], key: str) -> torch.Tensor:
    """Return the base model's weight; InputError where it has none of this key."""
    try:
        return base[key]
    except KeyError:
        raise InputError(f"delta key {key!r}: the base model's UNet has no such weight") from None
