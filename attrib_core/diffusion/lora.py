"""A delta as a LoRA file, which `pipe.load_lora_weights` and most tools of the field open.

The difference to the base model's weights is cut to a rank by singular values,
which is Custom Diffusion's own compression (Kumari et al., CVPR 2023). At full
rank it is the delta, up to rounding. The token's embedding is no part of it and
keeps its own file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from attrib_core.diffusion.deltas import Delta, write_whole
from attrib_core.errors import InputError


def factors(delta: Delta, base: Mapping[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """The two factors of each changed weight, by key of the LoRA file.

    `base` is the state dict of the base model's UNet. A matrix of smaller rank
    than asked has as many as it has. Raises InputError for a rank below 1 and a
    key that the base model lacks.
    """
    if rank < 1:
        raise InputError(f"rank {rank}: expected 1 or more")
    found = {}
    for key, weight in delta.weights.items():
        if key not in base:
            raise InputError(f"delta key {key!r}: the base model's UNet has no such weight")
        left, values, right = torch.linalg.svd(
            weight.double() - base[key].double().cpu(), full_matrices=False
        )
        root = values[:rank].sqrt()
        name = f"unet.{key.removesuffix('.weight')}"
        found[f"{name}.lora_A.weight"] = (root[:, None] * right[:rank]).float().contiguous()
        found[f"{name}.lora_B.weight"] = (left[:, :rank] * root).float().contiguous()
    return found


def export(path: Path, delta: Delta, base: Mapping[str, torch.Tensor], rank: int) -> None:
    """Write a delta as a LoRA file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, save(factors(delta, base, rank)))
