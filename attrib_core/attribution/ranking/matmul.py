"""Float32 matrix products on the CPU or a GPU; both err by no more than `counting.error_bound`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Multiply = Callable[[np.ndarray, np.ndarray], None]
"""Takes vectors (rows, dim), and an array (rows, columns) that it fills with their products."""
Product = Callable[[np.ndarray], Multiply]
"""Takes vectors (columns, dim), and keeps them for several products."""


def numpy_product(block: np.ndarray) -> Multiply:
    """Products by the library that NumPy uses, on its threads."""

    def multiply(vectors: np.ndarray, out: np.ndarray) -> None:
        np.matmul(vectors, block.T, out=out)

    return multiply


def torch_product(device: str) -> Product:
    """Products on a device of torch, such as 'cuda', in whole float32: TF32 has too few digits."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False

    def prepare(block: np.ndarray) -> Multiply:
        right = torch.from_numpy(np.ascontiguousarray(block)).to(device).T

        def multiply(vectors: np.ndarray, out: np.ndarray) -> None:
            left = torch.from_numpy(np.ascontiguousarray(vectors)).to(device)
            torch.from_numpy(out).copy_(left @ right)

        return multiply

    return prepare


def on(device: str) -> Product:
    """The product for a device as `attrib_core.runtime.devices.choose` names it."""
    return torch_product(device) if device.startswith("cuda") else numpy_product
