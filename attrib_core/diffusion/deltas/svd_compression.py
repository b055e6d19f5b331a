"""Compression of a delta to LoRA factors, which `pipe.load_lora_weights` and most other tools read.

The difference to the base model's weights is truncated to its largest singular values: Custom Diffusion's own
compression (Kumari et al., CVPR 2023). At full rank it equals the delta up to rounding. The token's embedding keeps
its own file.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from attrib_core.common.errors import InputError
from attrib_core.diffusion.deltas import lora_factors
from attrib_core.diffusion.deltas.delta_files import Delta

NEGLIGIBLE = 1e-9  # singular values below this share of the largest are rounding


def compress(
    delta: Delta, base: Mapping[str, torch.Tensor], rank: int | None = None, share: float = 1.0
) -> dict[str, torch.Tensor]:
    """Compute the factors of each changed weight, by their keys in a LoRA file.

    `base` has the weights of the base model's UNet by key. Of each matrix the largest singular values are kept: as
    many as make up `share` of their sum, at most `rank`, at least one. Factors of a low enough rank stay as they are
    if `share` is 1. Raises InputError for a rank below 1, a share outside (0, 1], a key that the base model lacks, a
    wrong shape, and a bias, which a LoRA cannot hold.
    """
    if rank is not None and rank < 1:
        raise InputError(f"rank {rank}: expected 1 or more")
    if not 0 < share <= 1:
        raise InputError(f"share {share}: expected more than 0, and 1 at most")
    found = {}
    for key, weight in delta.weights.items():
        target = lora_factors.weight_key(key)
        if target.endswith(".bias"):
            raise InputError(
                f"delta key {key!r}: a LoRA holds no bias; leave biases out, or choose another layout"
            )
        own = lora_factors.base_weight(base, target)
        if own.ndim < 2:
            raise InputError(f"delta key {key!r}: a LoRA holds matrices only; choose another layout")
        if lora_factors.is_factor(key) and (rank is None or _rank(weight) <= rank) and share == 1:
            found[key] = weight
            continue
        down, up = lora_factors.factor_keys(target)
        if down in found:
            continue
        stored = {name: delta.weights[name] for name in (key, down, up) if name in delta.weights}
        changed = lora_factors.merge(stored, base)[target]
        if changed.shape != own.shape:
            raise InputError(
                f"delta key {key!r}: shape {tuple(changed.shape)}, the base model has {tuple(own.shape)}"
            )
        left, values, right = torch.linalg.svd(
            (changed.double().cpu() - own.double().cpu()).flatten(1), full_matrices=False
        )
        count = _count_kept(values, rank, share)
        root = values[:count].sqrt()
        ones = [1] * (own.ndim - 2)
        found[down] = (root[:, None] * right[:count]).float().reshape(-1, *own.shape[1:]).contiguous()
        found[up] = (left[:, :count] * root).float().reshape(len(own), -1, *ones).contiguous()
    return found


def _rank(factor: torch.Tensor) -> int:
    return min(factor.flatten(1).shape)


def _count_kept(values: torch.Tensor, rank: int | None, share: float) -> int:
    """Count the singular values to keep, of all in descending order."""
    real = int((values > NEGLIGIBLE * values[0]).sum()) if values[0] > 0 else 0
    reached = torch.cumsum(values, 0) >= share * values.sum() * (1 - NEGLIGIBLE)
    needed = int(reached.to(torch.uint8).argmax()) + 1
    return max(1, min(real, needed, len(values) if rank is None else rank))
