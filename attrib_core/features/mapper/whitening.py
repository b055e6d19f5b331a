"""Whitening of embeddings, a start for heads that needs no gradients.

Encoders put most of their variance into what all images share, such as a background or the look of synthesized images,
which then dominates a cosine. Whitening, x -> A^(-1/2) (x - m), gives equal weight to all directions in which A has
variance. Two choices of A:

- `whitened`: the covariance C of the pool;
- `within`: (1 - share) C + share W, where W is the mean square of the difference between a query and an exemplar of its
  own set, each minus its mean, over the train sets and scaled to the trace of C. This reduces the weight of directions
  that vary within a set, such as scene or medium: the within-class covariance normalization of Hatch, Kajarekar and
  Stolcke (2006).

A is shrunk towards a multiple of the identity (Ledoit and Wolf, 2004), since a few images do not determine its small
eigenvalues. Real and synthesized images have separate means m and share A; a head shared by both uses the midpoint of
the means. The map is linear with a bias, so a linear head trained after it has the published form; a channel head
cannot represent it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from attrib_core.common.errors import InputError
from attrib_core.features.heads.heads import Head, Linear, Mlp
from attrib_core.features.mapper.exemplar_sets import ExemplarSets

WITHIN_SHARE = 0.9
"""Share of W in A. From 0.6 to 0.99, Recall@10 in cross-validation differs by a few points only."""

ALL_EQUAL = 1e-12
"""Variance, as a share of the mean square, that rounding leaves where vectors are equal."""


@dataclass(frozen=True, eq=False)
class Whitening:
    """A whitening map: matrix (dim, dim), symmetric, and the means (dim,) of real and synthesized images; float64."""

    matrix: np.ndarray
    real_mean: np.ndarray
    synth_mean: np.ndarray

    def real(self, embeddings: np.ndarray) -> np.ndarray:
        """Whiten embeddings of real images, (n, dim); float32."""
        return ((embeddings - self.real_mean) @ self.matrix).astype(np.float32)

    def synth(self, embeddings: np.ndarray) -> np.ndarray:
        """Whiten embeddings of synthesized images, (n, dim); float32."""
        return ((embeddings - self.synth_mean) @ self.matrix).astype(np.float32)

    def sets(self, sets: ExemplarSets) -> ExemplarSets:
        """Whiten the embeddings of exemplar sets."""
        return replace(sets, real=self.real(sets.real), synth=self.synth(sets.synth))

    def compose(self, head: Head, mean: np.ndarray) -> Head:
        """Return one head that whitens around `mean` and then applies a linear head or an mlp without skip matrix."""
        if isinstance(head, Linear):
            return self._compose_linear(head, mean)
        if not isinstance(head, Mlp) or head.skip is not None:
            raise TypeError(f"whitening followed by {type(head).__name__} is not a type of head")
        skip = self._compose_linear(Linear(np.eye(len(mean)), head.outer.bias), mean)
        outer = Linear(head.outer.weight, skip.bias)
        return Mlp(self._compose_linear(head.inner, mean), outer, skip.weight)

    def _compose_linear(self, layer: Linear, mean: np.ndarray) -> Linear:
        weight = layer.weight.astype(np.float64) @ self.matrix
        bias = layer.bias.astype(np.float64) - weight @ mean
        return Linear(weight.astype(np.float32), bias.astype(np.float32))


@dataclass(frozen=True, eq=False)
class Covariance:
    """A before shrinkage, by eigenvalues (dim,) and eigenvectors (dim, dim), with both means; float64."""

    values: np.ndarray
    vectors: np.ndarray
    real_mean: np.ndarray
    synth_mean: np.ndarray

    def with_shared_mean(self) -> Covariance:
        """Return the same with the midpoint of both means for each, for a shared head."""
        midpoint = (self.real_mean + self.synth_mean) / 2
        return replace(self, real_mean=midpoint, synth_mean=midpoint)

    def whitening(self, shrinkage: float) -> Whitening:
        """Return the whitening by (1 - shrinkage) A + shrinkage tr(A)/dim I; shrinkage in (0, 1].

        With shrinkage 1 it only centres.
        """
        level = float(self.values.mean())
        values = (1 - shrinkage) * self.values.clip(min=0) + shrinkage * level
        # relative to the mean variance, so that norms keep the encoder's order of magnitude
        matrix = (self.vectors * np.sqrt(level / values)) @ self.vectors.T
        return Whitening(matrix, self.real_mean, self.synth_mean)


def estimate_covariance(pool: np.ndarray, train: ExemplarSets, *, within: bool) -> Covariance:
    """Estimate A from vectors of the pool, (n, dim), and with `within` also from the train sets.

    The mean of real images is that of the pool, the mean of synthesized images that of the train queries, each set
    with the same weight. Raises InputError where all vectors of the pool are equal.
    """
    points = pool.astype(np.float64)
    real_mean = points.mean(axis=0)
    covariance = np.cov(points - real_mean, rowvar=False, bias=True).reshape(2 * (len(real_mean),))
    if np.trace(covariance) <= ALL_EQUAL * np.mean((points**2).sum(axis=1)):
        raise InputError(
            f"mapper.starts: whitening needs a pool of different vectors, and its {len(points)} sampled ones are equal;"
            " expected identity alone, or another pool"
        )
    weights = 1 / np.bincount(train.synth_set)[train.synth_set]
    synth_mean = np.average(train.synth.astype(np.float64), axis=0, weights=weights)
    if within:
        scatter = _within_scatter(train.real - real_mean, train.synth - synth_mean, train)
        if (trace := float(np.trace(scatter))) > 0:
            scatter *= np.trace(covariance) / trace
            covariance = (1 - WITHIN_SHARE) * covariance + WITHIN_SHARE * scatter
    values, vectors = np.linalg.eigh(covariance)
    return Covariance(values, vectors, real_mean, synth_mean)


def _within_scatter(real: np.ndarray, synth: np.ndarray, sets: ExemplarSets) -> np.ndarray:
    """Average (s - r)(s - r)^T over the queries s and exemplars r of each set, then over sets; (dim, dim)."""
    total = np.zeros((real.shape[1],) * 2)
    for number in range(len(sets.names)):
        exemplars, queries = real[sets.real_set == number], synth[sets.synth_set == number]
        differences = (queries[:, None] - exemplars[None]).reshape(-1, real.shape[1])
        total += differences.T @ differences / len(differences)
    return total / len(sets.names)
