"""Contrastive training of heads: the loss, the subspace in which heads may change, the batches.

The loss, for pairs (exemplar i, query i) with unit vectors r_i = real head, s_i = synth head
and a temperature t:

    -1/2 mean_i [ log softmax_j (s_i . r_j / t) at i  +  log softmax_j (s_j . r_i / t) at i ]

(NT-Xent between real and synthesized images, in both directions). Other images of the same model are not negatives and
are left out of the sums; distractors, if given, are additional negatives of the queries. The objective adds, for each
trained head, penalty * drift (see `trainable_heads`), which keeps angles close to those of the embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from attrib_core.common import hashing
from attrib_core.features.mapper.exemplar_sets import ExemplarSets


def contrastive_loss(
    real: torch.Tensor,
    synth: torch.Tensor,
    groups: torch.Tensor,
    *,
    temperature: float,
    negatives: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the loss above for real and synth (pairs, dim) of unit length; a scalar.

    groups (pairs,) is the number of each pair's model; negatives (n, dim) are mapped distractors.
    """
    logits = synth @ real.T / temperature
    same_model = groups[:, None] == groups[None, :]
    same_model.fill_diagonal_(False)
    logits = logits.masked_fill(same_model, float("-inf"))
    target = torch.arange(len(logits))
    forward = logits if negatives is None else torch.cat([logits, synth @ negatives.T / temperature], dim=1)
    return (functional.cross_entropy(forward, target) + functional.cross_entropy(logits.T, target)) / 2


def leading_directions(sets: ExemplarSets, rank: int) -> np.ndarray:
    """Compute V, (dim, at most rank) float64: leading eigenvectors of the training embeddings' second moment.

    All sets have the same weight, and so have the exemplars and the queries of a set. Directions outside the span of
    the training embeddings are left out. The largest component of a direction is positive.
    """
    second_moment = np.zeros((sets.real.shape[1],) * 2)
    for vectors, numbers in ((sets.real, sets.real_set), (sets.synth, sets.synth_set)):
        weights = np.sqrt(1 / np.bincount(numbers)[numbers])
        weighted = (
            vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True) * weights[:, None]
        )
        second_moment += weighted.T @ weighted
    values, vectors = np.linalg.eigh(second_moment)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = vectors[:, : min(rank, int(np.count_nonzero(values > values[0] * 1e-10)))]
    largest = np.abs(kept).argmax(axis=0)
    return np.asarray(kept * np.sign(kept[largest, np.arange(kept.shape[1])]))


@dataclass(frozen=True)
class Batch:
    """The rows of a step: pair i is exemplar real[i] and query synth[i] of set groups[i]."""

    real: torch.Tensor
    synth: torch.Tensor
    groups: torch.Tensor
    negatives: torch.Tensor


def batches(
    sets: ExemplarSets,
    *,
    batch_sets: int,
    images_each: int,
    negatives: int,
    pool: int,
    key: tuple[object, ...],
    epoch: int,
) -> Iterator[Batch]:
    """Yield the batches of an epoch: about every query once, and all sets equally often.

    The sets are shuffled and taken `batch_sets` at a time; each contributes `images_each` pairs of a random exemplar
    and a random query (no query twice in a step), so a set with many exemplars counts no more than one with a single
    exemplar. Sets that do not fill a batch are left out of that shuffle. Randomness comes from key, epoch and step.
    """
    count = len(sets.names)
    sets_each = min(batch_sets, count)
    exemplars = [np.flatnonzero(sets.real_set == number) for number in range(count)]
    queries = [np.flatnonzero(sets.synth_set == number) for number in range(count)]
    shuffles = -(-max(len(rows) for rows in queries) // images_each)
    for shuffle in range(shuffles):
        order = hashing.generator(*key, "order", epoch, shuffle).permutation(count)
        for step, start in enumerate(range(0, count - sets_each + 1, sets_each)):
            random = hashing.generator(*key, "pairs", epoch, shuffle, step)
            real, synth, groups = [], [], []
            for number in order[start : start + sets_each]:
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
