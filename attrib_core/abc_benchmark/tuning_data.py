"""Read the tuning data of a mapper from AbC files: features of two splits, and a sample of a pool.

A model is one set: its exemplars, and its synthesized images of all prompt kinds. A model without
synthesized images is left out. Only the sampled rows of the pool are kept in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from attrib_core.abc_benchmark.evaluate import check_dimensions
from attrib_core.abc_benchmark.feature_files import Matrix
from attrib_core.abc_benchmark.mapper_files import UNTUNED
from attrib_core.abc_benchmark.test_cases import TestCase, check_disjoint, exemplar_digest
from attrib_core.abc_benchmark.unit_vectors import rows_at_once
from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.features.mapper import tuning_data
from attrib_core.features.mapper.exemplar_sets import ExemplarSets
from attrib_core.features.mapper.tuning_data import TuningData

LOGGER = logging.getLogger(__name__)


def read_tuning_data(
    pool: Matrix,
    train: Sequence[TestCase],
    validation: Sequence[TestCase],
    *,
    validation_distractors: int,
    distractors: int,
    seed: int,
) -> TuningData:
    """Read both splits, and sample the pool: distractors for validation, negatives for training.

    The result depends neither on the order of the files nor on the blocks in which they are read. Raises
    InputError for features of different dimensions, fewer than two train models, a validation model that is
    also in train, vectors that are zero or not finite, and a pool that is too small.
    """
    for test in (*train, *validation):
        check_dimensions(pool, test, UNTUNED)
    train_sets, validation_sets = (
        _sets(sorted(tests, key=lambda one: one.path.stem)) for tests in (train, validation)
    )
    if len(train_sets.names) < 2:
        files = ", ".join(str(one.path) for one in train)
        raise InputError(
            f"--train: {len(train_sets.names)} model with synthesized images in {files}; contrastive training needs 2"
            " or more"
        )
    _check_splits(train_sets, validation_sets)
    count = tuning_data.pool_sample_size(validation_distractors, distractors)
    drawn = sample(pool, count=count, key=(seed, "mapper pool"))
    LOGGER.info(
        "%d models to train on (%d images), %d to validate on (%d images), %d of %d distractors",
        len(train_sets.names), len(train_sets.synth), len(validation_sets.names), len(validation_sets.synth),
        len(drawn), pool.rows,
    )  # fmt: skip
    return TuningData(
        train_sets,
        validation_sets,
        *tuning_data.split_pool_sample(drawn, validation_distractors, distractors),
    )


def sample(pool: Matrix, *, count: int, key: Sequence[object], block: int | None = None) -> np.ndarray:
    """Sample up to `count` random rows of a matrix, (count, dim) float32, reading it in blocks."""
    chosen = hashing.generator(*key).choice(pool.rows, min(count, pool.rows), replace=False)
    order = np.argsort(chosen)
    rows = chosen[order]
    values = np.empty((len(chosen), pool.dim), np.float32)
    for one in pool.blocks(block or rows_at_once(pool.dim)):
        first, last = np.searchsorted(rows, (one.start, one.start + len(one.vectors)))
        vectors = one.vectors[rows[first:last] - one.start]
        _check(vectors, pool.where, rows[first:last])
        values[order[first:last]] = vectors
    return values


def _sets(tests: Sequence[TestCase]) -> ExemplarSets:
    names: list[str] = []
    groups: dict[str, list[np.ndarray]] = {"real": [], "real_set": [], "synth": [], "synth_set": []}
    for test in tests:
        models = np.concatenate([queries.models for queries in test.queries])
        kept = np.unique(models)
        number = np.full(len(test.chunks), -1)
        number[kept] = np.arange(len(kept)) + len(names)
        rows = [np.arange(*test.chunks[model]) for model in kept]
        names += [f"{test.path.stem}/{model}" for model in kept]
        groups["real"].append(_read(test.exemplars)[np.concatenate(rows)])
        groups["real_set"].append(np.repeat(number[kept], [len(one) for one in rows]))
        groups["synth"] += [_read(queries.features) for queries in test.queries]
        groups["synth_set"].append(number[models])
    return ExemplarSets(tuple(names), **{name: np.concatenate(parts) for name, parts in groups.items()})


def _read(matrix: Matrix) -> np.ndarray:
    values = np.empty((matrix.rows, matrix.dim), np.float32)
    for block in matrix.blocks(rows_at_once(matrix.dim)):
        rows = np.arange(block.start, block.start + len(block.vectors))
        values[rows] = block.vectors
        _check(block.vectors, matrix.where, rows)
    return values


def _check(vectors: np.ndarray, where: str, rows: np.ndarray) -> None:
    bad = np.flatnonzero(~(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)))
    if len(bad):
        raise InputError(
            f"{where}: row {rows[bad[0]]} is zero or not finite, expected a finite vector with a direction"
        )


def _check_splits(train: ExemplarSets, validation: ExemplarSets) -> None:
    """Raise InputError where a model is in both splits; log how many single exemplars are."""
    reason = "the choice is made on training data"
    check_disjoint(_models(train), _models(validation), option="--validation", of="--train", reason=reason)
    common = len({row.tobytes() for row in train.real} & {row.tobytes() for row in validation.real})
    if common:
        LOGGER.info("note: %d exemplars are in both splits, in different models", common)


def _models(sets: ExemplarSets) -> Iterator[tuple[str, str]]:
    """Yield each model and the digest of its exemplars."""
    for number, name in enumerate(sets.names):
        yield name, exemplar_digest(sets.real[sets.real_set == number])
