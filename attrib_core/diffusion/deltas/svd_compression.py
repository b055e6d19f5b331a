"""A delta as a LoRA file, which `pipe.load_lora_weights` and most tools of the field open.

The difference to the base model's weights is cut to a rank by singular values,
which is Custom Diffusion's own compression (Kumari et al., CVPR 2023). At full
rank it is the delta, up to rounding. The token's embedding is no part of it and
keeps its own file.
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
    """The two factors of each changed weight, by key of the LoRA file.

    `base` has the weights of the base model's UNet by key. Of each matrix the
    largest singular values are kept: as many as make `share` of the sum of all,
    and no more than `rank`. Where only rounding is left of a difference, one is
    kept. What is low in rank already stays as it is where that suffices.

    Raises InputError for a rank below 1, a share outside (0, 1], a key that the
    base model lacks, another shape, and a bias, of which a LoRA has none.
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
        if lora_factors.is_factor(key) and (rank is None or min(weight.shape) <= rank) and share == 1:
            found[key] = weight
            continue
        down, up = lora_factors.factor_keys(target)
        if down in found:
            continue
        held = {name: delta.weights[name] for name in (key, down, up) if name in delta.weights}
        whole = lora_factors.merge(held, base)[target]
        if whole.shape != own.shape:
            raise InputError(
                f"delta key {key!r}: shape {tuple(whole.shape)}, the base model has {tuple(own.shape)}"
            )
        left, values, right = torch.linalg.svd(whole.double().cpu() - own.double().cpu(), full_matrices=False)
        count = _kept(values, rank, share)
        root = values[:count].sqrt()
        found[down] = (root[:, None] * right[:count]).float().contiguous()
        found[up] = (left[:, :count] * root).float().contiguous()
    return found


def _kept(values: torch.Tensor, rank: int | None, share: float) -> int:
    """How many of the singular values, which fall, are kept."""
    real = int((values > NEGLIGIBLE * values[0]).sum()) if values[0] > 0 else 0
    reached = torch.cumsum(values, 0) >= share * values.sum() * (1 - NEGLIGIBLE)
    needed = int(reached.to(torch.uint8).argmax()) + 1
    return max(1, min(real, needed, len(values) if rank is None else rank))
