"""Starts for the heads: features centred and whitened, before anything is learned by gradients.

Encoders put most of their variance into what all images share, a background or the
look of synthesis, and a cosine is then decided by that. Whitening, x -> A^(-1/2) (x - m),
weighs all directions alike that A finds large. Two choices of A:

- `whitened`: the covariance C of the pool;
- `within`: (1 - share) C + share W, where W is the mean square of what separates a query from
  an exemplar of its own set, each less its own mean, over the train sets and scaled to the
  trace of C. What varies within a set, a scene or a medium, is thus weighed down: the
  within-class covariance normalization of Hatch, Kajarekar and Stolcke (2006).

A is shrunk towards a multiple of the identity (Ledoit and Wolf 2004), since few images say
little of small directions. Real and synthesized images have a mean m each and share A; one head for
both has the middle of both means. The map is linear with a bias, so a linear head that starts from it
has the published form, and a channel head cannot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from attrib_core.features.heads.heads import Head, Linear, Mlp
from attrib_core.features.mapper.pairs import Sets

WITHIN_SHARE = 0.9
"""Of W in A. Flat around this: 0.6 to 0.99 stay within some points of Recall@10 in cross-validation."""


@dataclass(frozen=True, eq=False)
class Whitening:
    """matrix (dim, dim), symmetric; means (dim,) of real and of synthesized images; float64."""

    matrix: np.ndarray
    real_mean: np.ndarray
    synth_mean: np.ndarray

    def real(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings of real images, (n, dim), whitened; float32."""
        return ((embeddings - self.real_mean) @ self.matrix).astype(np.float32)

    def synth(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings of synthesized images, (n, dim), whitened; float32."""
        return ((embeddings - self.synth_mean) @ self.matrix).astype(np.float32)

    def sets(self, sets: Sets) -> Sets:
        """The same sets with whitened embeddings."""
        return replace(sets, real=self.real(sets.real), synth=self.synth(sets.synth))

    def before(self, head: Head, mean: np.ndarray) -> Head:
        """One head that whitens around `mean` and then does what `head` does; no channel head can."""
        if isinstance(head, Linear):
            return self._linear(head, mean)
        if not isinstance(head, Mlp) or head.skip is not None:
            raise TypeError(f"{type(head).__name__} with whitening before it is of no form of head")
        straight = self._linear(Linear(np.eye(len(mean)), head.outer.bias), mean)
        outer = Linear(head.outer.weight, straight.bias)
        return Mlp(self._linear(head.inner, mean), outer, straight.weight)

    def _linear(self, layer: Linear, mean: np.ndarray) -> Linear:
        weight = layer.weight.astype(np.float64) @ self.matrix
        bias = layer.bias.astype(np.float64) - weight @ mean
        return Linear(weight.astype(np.float32), bias.astype(np.float32))


@dataclass(frozen=True, eq=False)
class Spread:
    """A before it is shrunk, by eigenvalues (dim,) and eigenvectors (dim, dim), with both means; float64."""

    values: np.ndarray
    vectors: np.ndarray
    real_mean: np.ndarray
    synth_mean: np.ndarray

    def with_one_mean(self) -> Spread:
        """The same with the middle of both means in place of each, for one head for both."""
        middle = (self.real_mean + self.synth_mean) / 2
        return replace(self, real_mean=middle, synth_mean=middle)

    def whitening(self, shrinkage: float) -> Whitening:
        """Whitening by (1 - shrinkage) A + shrinkage tr(A)/dim I; shrinkage in (0, 1].

        1 leaves centring alone.
        """
        level = float(self.values.mean())
        values = (1 - shrinkage) * self.values.clip(min=0) + shrinkage * level
        # relative to the mean variance, so that lengths stay of the encoder's order
        matrix = (self.vectors * np.sqrt(level / values)) @ self.vectors.T
        return Whitening(matrix, self.real_mean, self.synth_mean)


def spread(pool: np.ndarray, train: Sets, *, within: bool) -> Spread:
    """A of the pool's vectors, (n, dim), and, for `within`, of the train sets.

    The mean of real images is the pool's, that of synthesized ones the train queries', each
    set with the same weight.
    """
    points = pool.astype(np.float64)
    mean = points.mean(axis=0)
    covariance = np.cov(points - mean, rowvar=False, bias=True).reshape(2 * (len(mean),))
    weights = 1 / np.bincount(train.synth_set)[train.synth_set]
    asked = np.average(train.synth.astype(np.float64), axis=0, weights=weights)
    if within:
        inside = _within(train.real - mean, train.synth - asked, train)
        if (trace := float(np.trace(inside))) > 0:
            inside *= np.trace(covariance) / trace
            covariance = (1 - WITHIN_SHARE) * covariance + WITHIN_SHARE * inside
    values, vectors = np.linalg.eigh(covariance)
    return Spread(values, vectors, mean, asked)


def _within(real: np.ndarray, synth: np.ndarray, sets: Sets) -> np.ndarray:
    """Mean over sets of the mean of (s - r)(s - r)^T over a set's queries s and exemplars r, (dim, dim)."""
    total = np.zeros((real.shape[1],) * 2)
    for number in range(len(sets.names)):
        exemplars, queries = real[sets.real_set == number], synth[sets.synth_set == number]
        apart = (queries[:, None] - exemplars[None]).reshape(-1, real.shape[1])
        total += apart.T @ apart / len(apart)
    return total / len(sets.names)
