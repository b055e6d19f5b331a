"""Convert our heads to AbC mapper checkpoints, which `mapper_files` reads.

Our mlp is residual, x + W2 relu(W1 x + b1) + b2. The published one is a Sequential of linear layers without
bias, batch norms and ReLU. Since x = relu(x) - relu(-x), ours is written with 2 dim further hidden units,
weights (I; -I; W1) and (I, -I, W2), and the biases in the batch norms: exact up to rounding. The published
class must be constructed with these sizes: 2 dim + hidden hidden units and output dim.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attrib_core.abc_benchmark.mapper_files import EPSILON
from attrib_core.features.heads.head_files import SIDES, head_tensors
from attrib_core.features.heads.heads import Heads, Mlp


def checkpoint(heads: Heads) -> dict[str, dict[str, Any]]:
    """Return `real_mapper` and `synth_mapper` as state dicts of float32 tensors; a shared head is in both."""
    import torch

    if heads.real_head is None or heads.synth_head is None:
        raise ValueError("there are no heads to write")
    states = (
        _sequential(head) if isinstance(head, Mlp) else head_tensors(head)
        for head in (heads.real_head, heads.synth_head)
    )
    return {
        side: {name: torch.from_numpy(np.array(value, order="C")) for name, value in state.items()}
        for side, state in zip(SIDES, states, strict=True)
    }


def _sequential(head: Mlp) -> dict[str, np.ndarray]:
    """Return the state dict of linear, batch norm, ReLU, dropout, linear, batch norm: numbers 0 to 5."""
    dim, _ = head.shape
    skip = np.eye(dim, dtype=np.float32) if head.skip is None else head.skip
    identity = np.eye(dim, dtype=np.float32)
    hidden, zero = 2 * dim + len(head.inner.bias), np.zeros(2 * dim, np.float32)
    norm = {"weight": np.ones(hidden, np.float32), "bias": np.concatenate([zero, head.inner.bias])}
    return {
        "0.weight": np.concatenate([skip, -skip, head.inner.weight]),
        **{
            f"1.{name}": value
            for name, value in (norm | _shift_statistics(np.zeros(hidden, np.float32))).items()
        },
        "4.weight": np.concatenate([identity, -identity, head.outer.weight], axis=1),
        **{f"5.{name}": value for name, value in _shift_statistics(-head.outer.bias).items()},
    }


def _shift_statistics(mean: np.ndarray) -> dict[str, np.ndarray]:
    """Return the statistics of a batch norm that subtracts `mean` and does not scale."""
    return {
        "running_mean": mean,
        "running_var": np.full(len(mean), 1 - EPSILON, np.float32),
        "num_batches_tracked": np.array(0, np.int64),
    }
