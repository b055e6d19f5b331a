"""Types of heads: a linear map, a factor for each dimension, or a residual network with one hidden layer.

    Linear   W x + b
    Channel  s * x, elementwise
    Mlp      x + W2 relu(W1 x + b1) + b2, or S x + ... if it was trained on whitened features

All compute in float64, and the bits of a row depend on that row and the head only. A floating-point matrix product
adds in an order that changes with its shape, its threads and the position of a row. In `exact_product` the order cannot
matter: x and the rows of W, scaled to a length of at most 1, are rounded to multiples of 2**-26. Products are then
multiples of 2**-52 and partial sums are at most 1 (Cauchy-Schwarz), so float64 represents all of them exactly. The
rounding moves a vector of 1,000 dimensions by about 1e-7 of its length, as float32 does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GRID = 2.0**26
"""Grid points per unit to which vectors are rounded before the matrix product."""


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear head: weight (out, dim) and bias (out), float32."""

    weight: np.ndarray
    bias: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Return the dimensions of output and input."""
        return self.weight.shape[0], self.weight.shape[1]

    def __call__(self, block: np.ndarray, norms: np.ndarray) -> np.ndarray:
        """Map (rows, dim) float64, with the norms (rows,) of its rows, to (rows, out) float64."""
        return exact_product(block, norms, self.weight) + self.bias


@dataclass(frozen=True, eq=False)
class Channel:
    """An elementwise head: factors (dim,), float32."""

    factors: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Return the dimensions of output and input."""
        return len(self.factors), len(self.factors)

    def __call__(self, block: np.ndarray, norms: np.ndarray) -> np.ndarray:
        """Map (rows, dim) float64 to (rows, dim) float64; the norms are not used."""
        return block * self.factors


@dataclass(frozen=True, eq=False)
class Mlp:
    """A residual head: inner (hidden, dim) and outer (dim, hidden) layers with biases, float32.

    skip (dim, dim) is S; None: the identity.
    """

    inner: Linear
    outer: Linear
    skip: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Return the dimensions of output and input."""
        return self.outer.shape[0], self.inner.shape[1]

    def __call__(self, block: np.ndarray, norms: np.ndarray) -> np.ndarray:
        """Map (rows, dim) float64, with the norms (rows,) of its rows, to (rows, dim) float64."""
        hidden = np.maximum(self.inner(block, norms), 0.0)
        residual = self.outer(hidden, row_norms(hidden))
        skipped = block if self.skip is None else exact_product(block, norms, self.skip)
        return skipped + residual


Head = Linear | Channel | Mlp


def exact_product(block: np.ndarray, norms: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Compute W x, (rows, out) float64, independent of the order of summation; rows or weights may be zero."""
    rounded_rows = np.rint(block / np.where(norms > 0, norms, 1.0)[:, None] * GRID)
    scale = row_norms(weight).max() or 1.0
    rounded_weight = np.rint(weight / scale * GRID)
    result: np.ndarray = (rounded_rows @ rounded_weight.T) * (norms[:, None] * (scale / GRID**2))
    return result


def row_norms(rows: np.ndarray) -> np.ndarray:
    """Compute the Euclidean norm of each row, (rows,) float64."""
    exact = rows.astype(np.float64, copy=False)
    norms: np.ndarray = np.sqrt(np.einsum("ij,ij->i", exact, exact))
    return norms
