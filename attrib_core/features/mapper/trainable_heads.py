"""Heads in training, from the identity on.

    linear   H = I + V M V^T and b = V c; penalty on ||H^T H - I||_F^2
    channel  x -> s * x; penalty on ||diag(s)^2 - I||_F^2, the same of a diagonal matrix
    mlp      x -> x + V (B relu(A V^T x + a) + c); penalty on sum_k |A_k|^2 |B_k|^2 over hidden units k,
             with A_k (rank) what a unit looks for and B_k (rank) what it adds

V (dim, rank) are the orthonormal directions in which the training embeddings are large: all that the
loss can change lies in their span. So costs do not grow with dim cubed, and directions outside stay
as the encoder gave them. ||H^T H - I||_F is then ||(I + M)^T (I + M) - I||_F.

A unit of the mlp that looks twice as hard and adds half as much computes the same, and the penalty does
not tell them apart; a change that is spread over more units costs less. B and c are zero at the start, A is
drawn. Batch norm, which the published mlp has, is left out: with it an image's features would hang on its
company, and no start could be the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.features.heads import heads
from attrib_core.features.mapper.pairs import Sets

State = Sequence[np.ndarray]
"""The parameters of a head at some moment, float32, in the order of `parameters`."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """Embeddings in the scale of training: whole (n, dim), and their coordinates (n, rank) along V."""

    whole: torch.Tensor
    along: torch.Tensor


class Form(Protocol):
    """A head in training."""

    parameters: list[torch.Tensor]

    def take(self, embeddings: np.ndarray) -> Vectors:
        """Embeddings as the encoder gives them, (n, dim), prepared for `map`."""

    def map(self, vectors: Vectors, rows: torch.Tensor | None = None) -> torch.Tensor:
        """f(x) / ||f(x)|| for all of the vectors or some rows, (n, dim)."""

    def drift(self) -> torch.Tensor:
        """What the penalty weighs: how far the head is from leaving angles as they were; a scalar."""

    def finished(self, state: State) -> heads.Head:
        """The head at some moment, for embeddings as the encoder gives them."""


def start(head: str, train: Sets, basis: np.ndarray, *, hidden: int, key: tuple[object, ...]) -> Form:
    """A head of some form at the identity; basis (dim, rank) is V, `hidden` the units of an mlp.

    Training is in units of the exemplars' mean length, so that a bias moves as fast whatever the
    encoder's scale. A of an mlp is drawn from `key`.
    """
    scale = float(np.linalg.norm(train.real.astype(np.float64), axis=1).mean())
    match head:
        case "linear":
            return Linear(basis, scale)
        case "channel":
            return Channel(len(basis), scale)
        case "mlp":
            drawn = hashing.generator(*key).normal(size=(hidden, basis.shape[1]))
            return Mlp(basis, scale, drawn / np.sqrt(max(basis.shape[1], 1)))
    raise InputError(f"mapper.head: {head!r}, expected one of {', '.join(heads.HEAD_TENSORS)}")


def state(form: Form) -> State:
    """A copy of the parameters."""
    return [value.detach().numpy().copy() for value in form.parameters]


def drift(change: torch.Tensor) -> torch.Tensor:
    """||H^T H - I||_F^2 for H = I + V M V^T, from M (rank, rank): how far H is from a rotation."""
    return (change + change.T + change.T @ change).square().sum()


class Linear:
    """M (rank, rank) and c (rank), both zero at the start."""

    def __init__(self, basis: np.ndarray, scale: float) -> None:
        self._basis, self._scale = basis, scale
        self._across = torch.from_numpy(basis.astype(np.float32))
        rank = basis.shape[1]
        self.change = torch.zeros(rank, rank, requires_grad=True)
        self.shift = torch.zeros(rank, requires_grad=True)
        self.parameters = [self.change, self.shift]

    def take(self, embeddings: np.ndarray) -> Vectors:
        """As in `Form`."""
        return _along(embeddings, self._scale, self._across)

    def map(self, vectors: Vectors, rows: torch.Tensor | None = None) -> torch.Tensor:
        """(H x + b) / ||H x + b||."""
        whole, along = _some(vectors, rows)
        moved = whole + (along @ self.change.T + self.shift) @ self._across.T
        return functional.normalize(moved, dim=1)

    def drift(self) -> torch.Tensor:
        """||H^T H - I||_F^2."""
        return drift(self.change)

    def finished(self, state: State) -> heads.Linear:
        """Weight (dim, dim) and bias (dim)."""
        change, shift = (value.astype(np.float64) for value in state)
        weight = np.eye(len(self._basis)) + self._basis @ change @ self._basis.T
        bias = self._basis @ shift * self._scale
        return _layer(weight, bias)


class Channel:
    """s (dim), one at the start."""

    def __init__(self, dim: int, scale: float) -> None:
        self._scale = scale
        self.factors = torch.ones(dim, requires_grad=True)
        self.parameters = [self.factors]

    def take(self, embeddings: np.ndarray) -> Vectors:
        """As in `Form`; there are no directions."""
        return _along(embeddings, self._scale, torch.zeros(embeddings.shape[1], 0))

    def map(self, vectors: Vectors, rows: torch.Tensor | None = None) -> torch.Tensor:
        """(s * x) / ||s * x||."""
        whole, _ = _some(vectors, rows)
        return functional.normalize(whole * self.factors, dim=1)

    def drift(self) -> torch.Tensor:
        """||diag(s)^2 - I||_F^2."""
        return (self.factors.square() - 1).square().sum()

    def finished(self, state: State) -> heads.Channel:
        """Factors (dim)."""
        return heads.Channel(state[0].astype(np.float32))


class Mlp:
    """A (hidden, rank) as given, a (hidden), B (rank, hidden) and c (rank), these three zero at the start."""

    def __init__(self, basis: np.ndarray, scale: float, drawn: np.ndarray) -> None:
        self._basis, self._scale = basis, scale
        self._across = torch.from_numpy(basis.astype(np.float32))
        hidden, rank = drawn.shape
        self.inner = torch.from_numpy(drawn.astype(np.float32)).requires_grad_()
        self.level = torch.zeros(hidden, requires_grad=True)
        self.outer = torch.zeros(rank, hidden, requires_grad=True)
        self.shift = torch.zeros(rank, requires_grad=True)
        self.parameters = [self.inner, self.level, self.outer, self.shift]

    def take(self, embeddings: np.ndarray) -> Vectors:
        """As in `Form`."""
        return _along(embeddings, self._scale, self._across)

    def map(self, vectors: Vectors, rows: torch.Tensor | None = None) -> torch.Tensor:
        """f(x) / ||f(x)||."""
        whole, along = _some(vectors, rows)
        hidden = functional.relu(along @ self.inner.T + self.level)
        moved = whole + (hidden @ self.outer.T + self.shift) @ self._across.T
        return functional.normalize(moved, dim=1)

    def drift(self) -> torch.Tensor:
        """sum_k |A_k|^2 |B_k|^2."""
        return (self.inner.square().sum(dim=1) * self.outer.square().sum(dim=0)).sum()

    def finished(self, state: State) -> heads.Mlp:
        """Inner (hidden, dim) and outer (dim, hidden) layers with their biases."""
        inner, level, outer, shift = (value.astype(np.float64) for value in state)
        looked, added = inner @ self._basis.T / self._scale, self._basis @ outer * self._scale
        return heads.Mlp(_layer(looked, level), _layer(added, self._basis @ shift * self._scale))


def _layer(weight: np.ndarray, bias: np.ndarray) -> heads.Linear:
    return heads.Linear(weight.astype(np.float32), bias.astype(np.float32))


def _along(embeddings: np.ndarray, scale: float, across: torch.Tensor) -> Vectors:
    whole = torch.from_numpy((embeddings / scale).astype(np.float32))
    return Vectors(whole, whole @ across)


def _some(vectors: Vectors, rows: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    if rows is None:
        return vectors.whole, vectors.along
    return vectors.whole[rows], vectors.along[rows]
