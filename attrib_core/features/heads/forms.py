"""The forms of a head: a linear map, a factor a dimension, or a residual network of one hidden layer.

    Linear   W x + b
    Channel  s * x, elementwise
    Mlp      x + W2 relu(W1 x + b1) + b2, or S x + ... where it starts from whitened features

All compute in float64, in bits that depend on the row and the head alone. A floating-point matrix
product adds in an order that changes with its shape, its threads and the position of a row. In
`product` the order cannot matter: x and the rows of W, scaled to a length of at most 1, are rounded to
multiples of 2**-26. Products are then multiples of 2**-52 and partial sums are at most 1
(Cauchy-Schwarz), so float64 holds every one of them exactly. The rounding moves a vector of 1,000
dimensions by about 1e-7 of its length, as float32 does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GRID = 2.0**26
"""Steps to the unit in which vectors enter the matrix product."""


@dataclass(frozen=True, eq=False)
class Linear:
    """weight (out, dim) and bias (out), float32."""

    weight: np.ndarray
    bias: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Dimensions out and in."""
        return self.weight.shape[0], self.weight.shape[1]

    def __call__(self, block: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """(rows, dim) float64, with the lengths (rows,) of its rows, to (rows, out) float64."""
        return product(block, lengths, self.weight) + self.bias


@dataclass(frozen=True, eq=False)
class Channel:
    """factors (dim,), float32."""

    factors: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Dimensions out and in."""
        return len(self.factors), len(self.factors)

    def __call__(self, block: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """(rows, dim) float64 to the same; the lengths are not needed."""
        return block * self.factors


@dataclass(frozen=True, eq=False)
class Mlp:
    """inner (hidden, dim) with its bias (hidden), outer (dim, hidden) with its bias (dim), float32.

    skip (dim, dim) stands for S; None: the identity.
    """

    inner: Linear
    outer: Linear
    skip: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Dimensions out and in."""
        return self.outer.shape[0], self.inner.shape[1]

    def __call__(self, block: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """(rows, dim) float64, with the lengths (rows,) of its rows, to the same form."""
        hidden = np.maximum(self.inner(block, lengths), 0.0)
        moved = self.outer(hidden, row_lengths(hidden))
        straight = block if self.skip is None else product(block, lengths, self.skip)
        return straight + moved


Head = Linear | Channel | Mlp


def product(block: np.ndarray, lengths: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """W x, (rows, out) float64, whatever the order of its sums; a row or a weight may be zero."""
    points = np.rint(block / np.where(lengths > 0, lengths, 1.0)[:, None] * GRID)
    longest = row_lengths(weight).max() or 1.0
    grid = np.rint(weight / longest * GRID)
    found: np.ndarray = (points @ grid.T) * (lengths[:, None] * (longest / GRID**2))
    return found


def row_lengths(rows: np.ndarray) -> np.ndarray:
    """Euclidean lengths, (rows,) float64."""
    wide = rows.astype(np.float64, copy=False)
    lengths: np.ndarray = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    return lengths
