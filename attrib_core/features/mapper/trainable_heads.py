"""Trainable heads, which start at the identity.

    linear   H = I + V M V^T and b = V c; penalty on ||H^T H - I||_F^2
    channel  x -> s * x; penalty on ||diag(s)^2 - I||_F^2, the same for a diagonal matrix
    mlp      x -> x + V (B relu(A V^T x + a) + c); penalty on sum_k |A_k|^2 |B_k|^2 over hidden units k,
             with input weights A_k (rank) and output weights B_k (rank)

V (dim, rank) are the leading orthonormal directions of the training embeddings: all that the loss can change lies in
their span. So the cost does not grow with dim cubed, and directions outside stay as the encoder gave them.
||H^T H - I||_F is then ||(I + M)^T (I + M) - I||_F.

The penalty of the mlp is invariant to scaling A_k up and B_k down, which changes nothing; a change that is spread over
more units costs less. B and c start at zero, A is random. The batch norm of the published mlp is left out: with it the
features of an image would depend on the other images, and no initialization would be the identity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.features.heads import heads
from attrib_core.features.mapper.exemplar_sets import ExemplarSets

State = Sequence[np.ndarray]
"""A copy of a head's parameters, float32, in the order of `parameters`."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """Embeddings in the scale of training, (n, dim), and their coordinates V^T x, (n, rank)."""

    embeddings: torch.Tensor
    coordinates: torch.Tensor


class TrainableHead(ABC):
    """A head with trainable parameters, for embeddings divided by `scale`; basis (dim, rank) is V."""

    parameters: list[torch.Tensor]

    def __init__(self, basis: np.ndarray, scale: float) -> None:
        self._basis, self._scale = basis, scale
        self._basis_tensor = torch.from_numpy(basis.astype(np.float32))

    def prepare(self, embeddings: np.ndarray) -> Vectors:
        """Scale embeddings as the encoder gives them, (n, dim), for `map`."""
        scaled = torch.from_numpy((embeddings / self._scale).astype(np.float32))
        return Vectors(scaled, scaled @ self._basis_tensor)

    def map(self, vectors: Vectors, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Compute f(x) / ||f(x)|| for all vectors or for some rows, (n, dim)."""
        embeddings, coordinates = vectors.embeddings, vectors.coordinates
        if rows is not None:
            embeddings, coordinates = embeddings[rows], coordinates[rows]
        return functional.normalize(self.forward(embeddings, coordinates), dim=1)

    @abstractmethod
    def forward(self, embeddings: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
        """Compute f(x) from embeddings (n, dim) and their coordinates (n, rank); (n, dim)."""

    @abstractmethod
    def drift(self) -> torch.Tensor:
        """Compute how much the head changes angles, which the penalty multiplies; a scalar."""

    @abstractmethod
    def export(self, state: State) -> heads.Head:
        """Return the head with these parameters, for embeddings as the encoder gives them."""


def create(
    head: str, train: ExemplarSets, basis: np.ndarray, *, hidden: int, key: tuple[object, ...]
) -> TrainableHead:
    """Create a head at the identity; basis (dim, rank) is V, `hidden` the number of units of an mlp.

    Embeddings are divided by the mean norm of the exemplars, so that a bias learns at the same rate for every encoder.
    A of an mlp is drawn from `key`.
    """
    scale = float(np.linalg.norm(train.real.astype(np.float64), axis=1).mean())
    match head:
        case "linear":
            return Linear(basis, scale)
        case "channel":
            return Channel(len(basis), scale)
        case "mlp":
            normal = hashing.generator(*key).normal(size=(hidden, basis.shape[1]))
            return Mlp(basis, scale, normal / np.sqrt(max(basis.shape[1], 1)))
    raise InputError(f"mapper.head: {head!r}, expected one of {', '.join(heads.HEAD_TENSORS)}")


def copy_state(head: TrainableHead) -> State:
    """Copy the parameters of a head."""
    return [value.detach().numpy().copy() for value in head.parameters]


def drift(change: torch.Tensor) -> torch.Tensor:
    """Compute ||H^T H - I||_F^2 for H = I + V M V^T, from M (rank, rank): how far H is from a rotation."""
    return (change + change.T + change.T @ change).square().sum()


class Linear(TrainableHead):
    """A linear head: M (rank, rank) and c (rank), both initially zero."""

    def __init__(self, basis: np.ndarray, scale: float) -> None:
        super().__init__(basis, scale)
        rank = basis.shape[1]
        self.change = torch.zeros(rank, rank, requires_grad=True)
        self.shift = torch.zeros(rank, requires_grad=True)
        self.parameters = [self.change, self.shift]

    def forward(self, embeddings: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
        """Compute H x + b."""
        return embeddings + (coordinates @ self.change.T + self.shift) @ self._basis_tensor.T

    def drift(self) -> torch.Tensor:
        """Compute ||H^T H - I||_F^2."""
        return drift(self.change)

    def export(self, state: State) -> heads.Linear:
        """Return weight (dim, dim) and bias (dim)."""
        change, shift = (value.astype(np.float64) for value in state)
        weight = np.eye(len(self._basis)) + self._basis @ change @ self._basis.T
        bias = self._basis @ shift * self._scale
        return _to_linear(weight, bias)


class Channel(TrainableHead):
    """A channel head: s (dim), initially one; it has no use for coordinates."""

    def __init__(self, dim: int, scale: float) -> None:
        super().__init__(np.zeros((dim, 0)), scale)
        self.factors = torch.ones(dim, requires_grad=True)
        self.parameters = [self.factors]

    def forward(self, embeddings: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
        """Compute s * x."""
        return embeddings * self.factors

    def drift(self) -> torch.Tensor:
        """Compute ||diag(s)^2 - I||_F^2."""
        return (self.factors.square() - 1).square().sum()

    def export(self, state: State) -> heads.Channel:
        """Return the factors (dim)."""
        return heads.Channel(state[0].astype(np.float32))


class Mlp(TrainableHead):
    """A residual mlp: A (hidden, rank) as given; a (hidden), B (rank, hidden) and c (rank), initially zero."""

    def __init__(self, basis: np.ndarray, scale: float, initial_inner: np.ndarray) -> None:
        super().__init__(basis, scale)
        hidden, rank = initial_inner.shape
        self.inner = torch.from_numpy(initial_inner.astype(np.float32)).requires_grad_()
        self.level = torch.zeros(hidden, requires_grad=True)
        self.outer = torch.zeros(rank, hidden, requires_grad=True)
        self.shift = torch.zeros(rank, requires_grad=True)
        self.parameters = [self.inner, self.level, self.outer, self.shift]

    def forward(self, embeddings: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
        """Compute x + V (B relu(A V^T x + a) + c)."""
        hidden = functional.relu(coordinates @ self.inner.T + self.level)
        return embeddings + (hidden @ self.outer.T + self.shift) @ self._basis_tensor.T

    def drift(self) -> torch.Tensor:
        """Compute sum_k |A_k|^2 |B_k|^2."""
        return (self.inner.square().sum(dim=1) * self.outer.square().sum(dim=0)).sum()

    def export(self, state: State) -> heads.Mlp:
        """Return inner (hidden, dim) and outer (dim, hidden) layers with their biases."""
        inner, level, outer, shift = (value.astype(np.float64) for value in state)
        weight_in, weight_out = inner @ self._basis.T / self._scale, self._basis @ outer * self._scale
        bias_out = self._basis @ shift * self._scale
        return heads.Mlp(_to_linear(weight_in, level), _to_linear(weight_out, bias_out))


def _to_linear(weight: np.ndarray, bias: np.ndarray) -> heads.Linear:
    return heads.Linear(weight.astype(np.float32), bias.astype(np.float32))
