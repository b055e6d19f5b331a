"""Float32 matrix products on the CPU or a GPU, both within `float32_counts.error_bound`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Multiply = Callable[[np.ndarray, np.ndarray], None]
"""Function of vectors (rows, dim) and an output array (rows, columns), which it fills with the products."""
Product = Callable[[np.ndarray], Multiply]
"""Function of vectors (columns, dim), which it keeps for several products."""


def numpy_product(block: np.ndarray) -> Multiply:
    """Multiply with NumPy."""

    def multiply(vectors: np.ndarray, out: np.ndarray) -> None:
        np.matmul(vectors, block.T, out=out)

    return multiply


def torch_product(device: str) -> Product:
    """Multiply on a device of torch, such as 'cuda', in full float32: TF32 has too few digits."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False

    def prepare(block: np.ndarray) -> Multiply:
        right = torch.from_numpy(np.ascontiguousarray(block)).to(device).T

        def multiply(vectors: np.ndarray, out: np.ndarray) -> None:
            left = torch.from_numpy(np.ascontiguousarray(vectors)).to(device)
            torch.from_numpy(out).copy_(left @ right)

        return multiply

    return prepare


def product_for(device: str) -> Product:
    """Return the product for a device that `attrib_core.runtime.devices.choose` returned."""
    return torch_product(device) if device.startswith("cuda") else numpy_product
