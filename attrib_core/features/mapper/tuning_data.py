"""What heads are tuned on, read from the tables and embeddings of a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from attrib_core.common.errors import InputError
from attrib_core.features.embedding import embedding_tables
from attrib_core.features.mapper.pairs import Sets, select
from attrib_core.features.mapper.whitening import Whitening

NEGATIVE_STEPS = 16
"""Further negatives are drawn from a sample of the pool that would serve so many steps."""


@dataclass(frozen=True, eq=False)
class Material:
    """What heads are fitted on: sets of two splits, distractors for validation, negatives for training."""

    train: Sets
    validation: Sets
    distractors: np.ndarray
    negatives: np.ndarray

    def whitened(self, white: Whitening) -> Material:
        """The same with whitened embeddings."""
        return Material(
            white.sets(self.train),
            white.sets(self.validation),
            white.real(self.distractors),
            white.real(self.negatives),
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
) -> Material:
    """Read what tuning needs: never a vector of the test split. Tables and `kind` as in
    `sets.select`.

    Distractors for validation and negatives for training are drawn from the pool, without the
    excluded rows and without a row in common.
    """
    train, validation = (
        select(
            split,
            exemplars=exemplars,
            exemplar_embeddings=[exemplar_embeddings],
            queries=queries,
            query_embeddings=query_embeddings,
            kind=kind,
        )
        for split in ("train", "validation")
    )
    count = drawn(validation_distractors, distractors)
    _, vectors = embedding_tables.sample(pool, count=count, key=(seed, "mapper pool"), excluded=excluded)
    return Material(train, validation, *divided(vectors, validation_distractors, distractors))


def drawn(validation_distractors: int, distractors: int) -> int:
    """How many rows of the pool tuning takes, where there are so many."""
    return validation_distractors + NEGATIVE_STEPS * distractors


def divided(
    vectors: np.ndarray, validation_distractors: int, distractors: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows drawn from the pool as distractors for validation and negatives for training.

    Raises InputError where `distractors` negatives a step are asked for and none are left.
    """
    if distractors and len(vectors) <= validation_distractors:
        raise InputError(
            f"mapper.distractors: {distractors} negatives a step, but the pool's {len(vectors)} distractors are"
            f" all needed for validation; lower mapper.validation_distractors ({validation_distractors})"
        )
    return vectors[:validation_distractors], vectors[validation_distractors:]
