"""Changes of weights as products of two thin matrices, under the keys of a LoRA file.

`unet.<layer>.lora_A.weight` (rank, in) and `unet.<layer>.lora_B.weight` (out, rank) say that
the layer's weight is the base model's plus B A. This is the layout of peft with a scale of 1,
which `load_lora_weights` of diffusers opens; a scale of another size is multiplied into B.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from attrib_core.common.errors import InputError

PREFIX = "unet."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


def factor_keys(key: str) -> tuple[str, str]:
    """Names of the two factors, first A, of the weight that a plain UNet key names."""
    layer = PREFIX + key.removesuffix(".weight")
    return layer + DOWN, layer + UP


def is_factor(key: str) -> bool:
    """Whether a key names one of two factors."""
    return key.endswith((DOWN, UP))


def weight_key(key: str) -> str:
    """The plain UNet key of the weight that a factor or a weight belongs to."""
    for suffix in (DOWN, UP):
        if key.endswith(suffix):
            return key.removeprefix(PREFIX).removesuffix(suffix) + ".weight"
    return key


def merge(weights: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under plain keys: each pair of factors multiplied and added to the base model's weight.

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
            found[target] = own + up.to(own) @ down.to(own)
    return found


def factor_pair(
    weights: Mapping[str, torch.Tensor], key: str, shape: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The factors A and B of the weight that a plain key names, whose shape is known.

    Raises InputError where one of the two is missing or they do not multiply to the shape.
    """
    down, up = factor_keys(key)
    for name, other in ((down, up), (up, down)):
        if name not in weights:
            raise InputError(f"delta key {other!r}: its other factor {name!r} is not there")
    first, second = weights[down], weights[up]
    fits = first.ndim == second.ndim == 2 and len(first) == second.shape[1]
    if not fits or (len(second), first.shape[1]) != shape:
        raise InputError(
            f"delta key {down!r}: factors of shape {tuple(second.shape)} and {tuple(first.shape)},"
            f" the base model has {shape}"
        )
    return first, second


def base_weight(base: Mapping[str, torch.Tensor], key: str) -> torch.Tensor:
    """The base model's own weight; InputError where it has none of this key."""
    try:
        return base[key]
    except KeyError:
        raise InputError(f"delta key {key!r}: the base model's UNet has no such weight") from None
