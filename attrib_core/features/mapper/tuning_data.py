"""The data on which heads are tuned, read from the tables and embeddings of a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from attrib_core.common.errors import InputError
from attrib_core.features.embedding import embedding_tables
from attrib_core.features.mapper.exemplar_sets import ExemplarSets, read_split
from attrib_core.features.mapper.whitening import Whitening

NEGATIVE_STEPS = 16
"""Negatives are drawn from a sample of the pool that is large enough for this number of steps."""


@dataclass(frozen=True, eq=False)
class TuningData:
    """Train and validation sets, distractors for validation, (n, dim), and negatives for training, (m, dim)."""

    train: ExemplarSets
    validation: ExemplarSets
    distractors: np.ndarray
    negatives: np.ndarray

    def whitened(self, whitening: Whitening) -> TuningData:
        """Return the same data with whitened embeddings."""
        return TuningData(
            whitening.sets(self.train),
            whitening.sets(self.validation),
            whitening.real(self.distractors),
            whitening.real(self.negatives),
        )


def gather(
    *,
    exemplars: pa.Table,
    exemplar_embeddings: Path,
    queries: pa.Table,
    query_embeddings: Sequence[Path],
    pool: Sequence[Path],
    excluded: Collection[str],
    kind: str | None,
    validation_distractors: int,
    distractors: int,
    seed: int,
) -> TuningData:
    """Read the data for tuning, which has no vector of the test split; tables and `kind` as in `read_split`.

    Distractors and negatives are disjoint samples of the pool without the excluded rows.
    """
    train, validation = (
        read_split(
            split,
            exemplars=exemplars,
            exemplar_embeddings=[exemplar_embeddings],
            queries=queries,
            query_embeddings=query_embeddings,
            kind=kind,
        )
        for split in ("train", "validation")
    )
    count = pool_sample_size(validation_distractors, distractors)
    _, vectors = embedding_tables.sample(pool, count=count, key=(seed, "mapper pool"), excluded=excluded)
    return TuningData(train, validation, *split_pool_sample(vectors, validation_distractors, distractors))


def pool_sample_size(validation_distractors: int, distractors: int) -> int:
    """Return how many rows of the pool tuning uses at most."""
    return validation_distractors + NEGATIVE_STEPS * distractors


def split_pool_sample(
    vectors: np.ndarray, validation_distractors: int, distractors: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split a sample of the pool into distractors for validation and negatives for training.

    Raises InputError if training needs negatives (`distractors` a step) and none are left.
    """
    if distractors and len(vectors) <= validation_distractors:
        raise InputError(
            f"mapper.distractors: {distractors} negatives a step, but the pool's {len(vectors)} distractors are"
            f" all needed for validation; lower mapper.validation_distractors ({validation_distractors})"
        )
    return vectors[:validation_distractors], vectors[validation_distractors:]
