"""Contrastive training of two linear heads, from the identity.

The loss, for pairs (exemplar i, query i) with unit vectors r_i = real head, s_i = synth head
and a temperature t:

    -1/2 mean_i [ log softmax_j (s_i . r_j / t) at i  +  log softmax_j (s_j . r_i / t) at i ]

(NT-Xent between the two kinds of pictures, both directions). Other pictures of the same
model are no negatives and are left out of the sums; distractors, where given, are further
negatives of the queries. To it is added, for each head, penalty * ||H^T H - I||_F^2, which
keeps angles as they were.

How it is computed: with n training embeddings, all that the loss can change lies in their
span. H = I + V M V^T and b = V c, with V (dim, rank) the orthonormal directions in which the
training embeddings are large, so a head is trained as M (rank, rank) and c (rank), and
||H^T H - I||_F = ||(I + M)^T (I + M) - I||_F: costs do not grow with dim cubed, and directions
outside stay as the encoder gave them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from attrib_core import heads, keys
from attrib_core.mapper.sets import Sets


def contrastive_loss(
    real: torch.Tensor,
    synth: torch.Tensor,
    groups: torch.Tensor,
    *,
    temperature: float,
    negatives: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss above, for real and synth (pairs, dim) of unit length; a scalar.

    groups (pairs,) numbers the model of each pair; negatives (n, dim) are mapped distractors.
    """
    logits = synth @ real.T / temperature
    own = groups[:, None] == groups[None, :]
    own.fill_diagonal_(False)
    logits = logits.masked_fill(own, float("-inf"))
    target = torch.arange(len(logits))
    forward = logits if negatives is None else torch.cat([logits, synth @ negatives.T / temperature], dim=1)
    return (functional.cross_entropy(forward, target) + functional.cross_entropy(logits.T, target)) / 2


def drift(change: torch.Tensor) -> torch.Tensor:
    """||H^T H - I||_F^2 for H = I + V M V^T, from M (rank, rank): how far H is from a rotation."""
    return (change + change.T + change.T @ change).square().sum()


def directions(sets: Sets, rank: int) -> np.ndarray:
    """V, (dim, at most rank) float64: leading eigenvectors of the training embeddings' second moment.

    Every set weighs the same, and so do its exemplars and its queries. Directions without any
    part in the training embeddings are left out. The sign of a direction is that of its
    largest component.
    """
    moment = np.zeros((sets.real.shape[1],) * 2)
    for vectors, numbers in ((sets.real, sets.real_set), (sets.synth, sets.synth_set)):
        weights = np.sqrt(1 / np.bincount(numbers)[numbers])
        weighted = (
            vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True) * weights[:, None]
        )
        moment += weighted.T @ weighted
    values, vectors = np.linalg.eigh(moment)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = vectors[:, : min(rank, int(np.count_nonzero(values > values[0] * 1e-10)))]
    largest = np.abs(kept).argmax(axis=0)
    return np.asarray(kept * np.sign(kept[largest, np.arange(kept.shape[1])]))


@dataclass(frozen=True, eq=False)
class Vectors:
    """Embeddings in the scale of training: whole (n, dim), and their coordinates (n, rank) along V."""

    whole: torch.Tensor
    along: torch.Tensor


@dataclass(frozen=True, eq=False)
class State:
    """M (rank, rank) and c (rank) of a head at some moment, float32."""

    change: np.ndarray
    shift: np.ndarray


class Head:
    """One head in training: M (rank, rank) and c (rank), both zero at the start."""

    def __init__(self, basis: np.ndarray, scale: float) -> None:
        self._basis, self._scale = basis, scale
        self._across = torch.from_numpy(basis.astype(np.float32))
        rank = basis.shape[1]
        self.change = torch.zeros(rank, rank, requires_grad=True)
        self.shift = torch.zeros(rank, requires_grad=True)

    def take(self, embeddings: np.ndarray) -> Vectors:
        """Embeddings as the encoder gives them, (n, dim), prepared for `map`."""
        whole = torch.from_numpy((embeddings / self._scale).astype(np.float32))
        return Vectors(whole, whole @ self._across)

    def map(self, vectors: Vectors, rows: torch.Tensor | None = None) -> torch.Tensor:
        """(H x + b) / ||H x + b|| for all of the vectors or some rows, (n, dim)."""
        whole, along = vectors.whole, vectors.along
        if rows is not None:
            whole, along = whole[rows], along[rows]
        moved = whole + (along @ self.change.T + self.shift) @ self._across.T
        return functional.normalize(moved, dim=1)

    def state(self) -> State:
        """A copy of M and c."""
        return State(self.change.detach().numpy().copy(), self.shift.detach().numpy().copy())

    def linear(self, state: State) -> heads.Linear:
        """Weight (dim, dim) and bias (dim), for embeddings as the encoder gives them."""
        weight = np.eye(len(self._basis)) + self._basis @ state.change.astype(np.float64) @ self._basis.T
        bias = self._basis @ state.shift.astype(np.float64) * self._scale
        return heads.Linear(weight.astype(np.float32), bias.astype(np.float32))


@dataclass(frozen=True)
class Batch:
    """Rows of one step: pair i is exemplar real[i] and query synth[i] of set groups[i]."""

    real: torch.Tensor
    synth: torch.Tensor
    groups: torch.Tensor
    negatives: torch.Tensor


def batches(
    sets: Sets,
    *,
    batch_sets: int,
    images_each: int,
    negatives: int,
    pool: int,
    key: tuple[object, ...],
    epoch: int,
) -> Iterator[Batch]:
    """The steps of an epoch: about every query once, every set as often as any other.

    The sets are shuffled and taken `batch_sets` at a time; each gives `images_each` pairs of a
    random exemplar and a random query (no query twice in a step), so a set with many
    exemplars counts no more than one with one. What is left over at the end of a shuffle
    waits for another epoch. Randomness: key, epoch and step.
    """
    count = len(sets.names)
    width = min(batch_sets, count)
    exemplars = [np.flatnonzero(sets.real_set == number) for number in range(count)]
    queries = [np.flatnonzero(sets.synth_set == number) for number in range(count)]
    rounds = -(-max(len(rows) for rows in queries) // images_each)
    for turn in range(rounds):
        order = keys.generator(*key, "order", epoch, turn).permutation(count)
        for step, start in enumerate(range(0, count - width + 1, width)):
            random = keys.generator(*key, "pairs", epoch, turn, step)
            real, synth, groups = [], [], []
            for number in order[start : start + width]:
                pairs = min(images_each, len(queries[number]))
                synth += random.choice(queries[number], pairs, replace=False).tolist()
                real += random.choice(exemplars[number], pairs).tolist()
                groups += [int(number)] * pairs
            distractors = (
                random.choice(pool, min(negatives, pool), replace=False) if negatives else np.empty(0, int)
            )
            yield Batch(
                *(torch.as_tensor(rows, dtype=torch.int64) for rows in (real, synth, groups, distractors))
            )
