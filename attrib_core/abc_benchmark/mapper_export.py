"""Heads of this project as mapper checkpoints of the published layout, which `mappers` reads.

An mlp here is residual, x + W2 relu(W1 x + b1) + b2; there it is a Sequential of linear layers without
bias, batch norms and ReLU. Since x = relu(x) - relu(-x), it is written as one with 2 dim hidden units
more, weights (I; -I; W1) and (I, -I, W2), and with the biases in the batch norms: exact but for rounding.
The published class has to be told the sizes, hidden 2 dim + hidden and output dim.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attrib_core.abc_benchmark.mapper_files import EPSILON
from attrib_core.features.heads.head_files import SIDES, tensors
from attrib_core.features.heads.heads import Head, Heads, Mlp


def checkpoint(heads: Heads) -> dict[str, dict[str, Any]]:
    """`real_mapper` and `synth_mapper` as state dicts of float32 tensors; a shared head stands in both."""
    import torch

    if heads.real_head is None or heads.synth_head is None:
        raise ValueError("there are no heads to write")
    return {
        side: {name: torch.from_numpy(np.array(value, order="C")) for name, value in _state(head).items()}
        for side, head in zip(SIDES, (heads.real_head, heads.synth_head), strict=True)
    }


def _state(head: Head) -> dict[str, np.ndarray]:
    return _sequential(head) if isinstance(head, Mlp) else tensors(head)


def _sequential(head: Mlp) -> dict[str, np.ndarray]:
    """Linear, batch norm, ReLU, dropout, linear, batch norm without factors: numbers 0 to 5."""
    dim, _ = head.shape
    straight = np.eye(dim, dtype=np.float32) if head.skip is None else head.skip
    both = np.eye(dim, dtype=np.float32)
    hidden, zero = 2 * dim + len(head.inner.bias), np.zeros(2 * dim, np.float32)
    norm = {"weight": np.ones(hidden, np.float32), "bias": np.concatenate([zero, head.inner.bias])}
    return {
        "0.weight": np.concatenate([straight, -straight, head.inner.weight]),
        **{f"1.{name}": value for name, value in (norm | _still(np.zeros(hidden, np.float32))).items()},
        "4.weight": np.concatenate([both, -both, head.outer.weight], axis=1),
        **{f"5.{name}": value for name, value in _still(-head.outer.bias).items()},
    }


def _still(mean: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of a batch norm that takes off `mean` and scales nothing."""
    return {
        "running_mean": mean,
        "running_var": np.full(len(mean), 1 - EPSILON, np.float32),
        "num_batches_tracked": np.array(0, np.int64),
    }
