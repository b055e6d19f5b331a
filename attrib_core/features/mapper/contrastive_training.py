"""Contrastive training of heads: the loss, the directions they may change, the pairs of a step.

The loss, for pairs (exemplar i, query i) with unit vectors r_i = real head, s_i = synth head
and a temperature t:

    -1/2 mean_i [ log softmax_j (s_i . r_j / t) at i  +  log softmax_j (s_j . r_i / t) at i ]

(NT-Xent between the two kinds of images, both directions). Other images of the same
model are no negatives and are left out of the sums; distractors, where given, are further
negatives of the queries. To it is added, for each head that is trained, penalty * drift (see `forms`),
which keeps angles as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from attrib_core.common import hashing
from attrib_core.features.mapper.pairs import Sets


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
        order = hashing.generator(*key, "order", epoch, turn).permutation(count)
        for step, start in enumerate(range(0, count - width + 1, width)):
            random = hashing.generator(*key, "pairs", epoch, turn, step)
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
