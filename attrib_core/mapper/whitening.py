"""A start for the heads: features centred and whitened by the pool, before anything is learned.

Encoders put most of their variance into what all pictures share, a background or the
look of synthesis, and a cosine is then decided by that. Whitening, x -> C^(-1/2) (x - m),
weighs all directions alike; the covariance C of the pool is shrunk towards a multiple of
the identity (Ledoit and Wolf 2004), since few pictures say little of small directions.
Real and synthesized pictures have a mean m each and share C. The map is linear with a
bias, so heads that start from it have the published form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from attrib_core.heads import Linear
from attrib_core.mapper.sets import Sets


@dataclass(frozen=True, eq=False)
class Whitening:
    """matrix (dim, dim), symmetric; means (dim,) of real and of synthesized pictures; float64."""

    matrix: np.ndarray
    real_mean: np.ndarray
    synth_mean: np.ndarray

    def real(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings of real pictures, (n, dim), whitened; float32."""
        return ((embeddings - self.real_mean) @ self.matrix).astype(np.float32)

    def synth(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings of synthesized pictures, (n, dim), whitened; float32."""
        return ((embeddings - self.synth_mean) @ self.matrix).astype(np.float32)

    def sets(self, sets: Sets) -> Sets:
        """The same sets with whitened embeddings."""
        return replace(sets, real=self.real(sets.real), synth=self.synth(sets.synth))

    def before(self, head: Linear, mean: np.ndarray) -> Linear:
        """One head that whitens around `mean` and then does what `head` does."""
        weight = head.weight.astype(np.float64) @ self.matrix
        bias = head.bias.astype(np.float64) - weight @ mean
        return Linear(weight.astype(np.float32), bias.astype(np.float32))


def fit(pool: np.ndarray, train: Sets, shrinkage: float) -> Whitening:
    """Whitening by pool vectors, (n, dim), with (1 - shrinkage) C + shrinkage tr(C)/dim I for C.

    The mean of synthesized pictures is that of the train queries, each set with the same weight.
    `shrinkage` in (0, 1]; 1 leaves centring and a common scale.
    """
    points = pool.astype(np.float64)
    mean = points.mean(axis=0)
    covariance = np.cov(points - mean, rowvar=False, bias=True).reshape(2 * (len(mean),))
    level = float(np.trace(covariance)) / len(mean)
    values, vectors = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * level * np.eye(len(mean)))
    # relative to the mean variance, so that lengths stay of the encoder's order
    matrix = (vectors * np.sqrt(level / values)) @ vectors.T
    weights = 1 / np.bincount(train.synth_set)[train.synth_set]
    return Whitening(matrix, mean, np.average(train.synth.astype(np.float64), axis=0, weights=weights))
