"""Counts from float32 products equal exact counts, with many ties and near ties."""

from __future__ import annotations

import numpy as np
import pytest

from attrib_core.attribution.ranking import fixed_point, float32_counts, matmul, mixed_precision
from attrib_core.attribution.ranking.float32_counts import Counter
from attrib_core.attribution.ranking.mixed_precision import MixedPrecision, error_bound
from attrib_core.attribution.ranking.torch_matmul import TorchProducts
from tests.attribution.ranking_fixtures import unit


def on_grid(vectors: np.ndarray) -> MixedPrecision:
    """Float32 unit vectors, with fixed-point float64 vectors: their products are exact."""
    return MixedPrecision(
        vectors, lambda rows: fixed_point.fixed_point(vectors[rows]) / fixed_point.COMPONENT
    )


def normalised(vectors: np.ndarray) -> MixedPrecision:
    """Vectors with float64 unit vectors."""
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return MixedPrecision(wide.astype(np.float32), lambda rows: wide[rows])


def crowded(
    seed: int, dim: int, rows: int, sizes: list[int]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Pool, queries and exemplars with equal rows, and rows that differ from an exemplar by a last bit."""
    rng = np.random.default_rng(seed)
    own = [unit(rng.standard_normal((size, dim))) for size in sizes]
    queries = unit(np.stack([one.mean(axis=0) + 0.3 * rng.standard_normal(dim) for one in own]))
    pool = unit(rng.standard_normal((rows, dim)))
    exemplars = np.concatenate(own)
    for row in range(0, rows, 3):
        source = exemplars[rng.integers(len(exemplars))]
        nudged = source if row % 2 else np.nextafter(source, np.float32(rng.choice([-1, 1])))
        pool[row] = nudged
    pool[-rows // 10 :] = pool[: rows // 10]
    return pool, queries, own


@pytest.mark.parametrize("dim", [3, 17, 64, 512, 1024])
@pytest.mark.parametrize("sizes", [[1] * 9, [1, 67, 5, 2]])
def test_counts_equal_integer_counts_for_every_block(dim: int, sizes: list[int]) -> None:
    pool, queries, own = crowded(dim, dim, 240, sizes)
    units = [fixed_point.fixed_point(vectors).astype(np.int64) for vectors in (pool, queries)]
    scores = units[1] @ units[0].T  # in units of 2**-52
    thresholds = [
        fixed_point.fixed_point(one).astype(np.int64) @ query
        for one, query in zip(own, units[1], strict=True)
    ]
    differences = np.concatenate(
        [row[None] - values[:, None] for row, values in zip(scores, thresholds, strict=True)]
    )
    tie = int(float32_counts.TIE * fixed_point.ONE)
    above = np.count_nonzero(differences > tie, axis=1)
    tied = np.count_nonzero(np.abs(differences) <= tie, axis=1)
    near = np.count_nonzero(np.abs(differences) <= fixed_point.TIE * fixed_point.ONE, axis=1)
    assert near.sum() > len(tied) and tied.sum() > 10  # more of them than float32 can tell apart
    for pool_block, query_block in [(1, 1), (7, 2), (50, 100), (240, 3)]:
        counter = Counter([values / fixed_point.ONE for values in thresholds])
        for start in range(0, len(pool), pool_block):
            block = pool[start : start + pool_block]
            counter.add(on_grid(queries), on_grid(block), query_block=query_block)
        assert np.array_equal(counter.above, above) and np.array_equal(counter.tied, tied)


def own_similarities(queries: np.ndarray, own: list[np.ndarray]) -> list[np.ndarray]:
    """Float64 similarities of each query and its own exemplars."""
    vectors = normalised(queries).points(np.arange(len(queries)))
    return [
        normalised(one).points(np.arange(len(one))) @ query for one, query in zip(own, vectors, strict=True)
    ]


@pytest.mark.parametrize("dim", [3, 64, 1024])
def test_counts_equal_a_sort_in_float64(dim: int) -> None:
    pool, queries, own = crowded(dim + 1, dim, 300, [1, 4, 67])
    candidates, vectors = normalised(pool), normalised(queries).points(np.arange(3))
    counter = Counter(own_similarities(queries, own))
    counter.add(normalised(queries), candidates, query_block=2)
    scores = vectors @ candidates.points(np.arange(300)).T
    for query in range(3):
        for exemplar in range(counter.starts[query], counter.starts[query + 1]):
            difference = scores[query] - counter.thresholds[exemplar]
            assert counter.above[exemplar] == (difference > 1e-12).sum()
            assert counter.tied[exemplar] == (np.abs(difference) <= 1e-12).sum()


def test_equal_vectors_tie_in_float64() -> None:
    rng = np.random.default_rng(5)
    row = rng.standard_normal((1, 768)).astype(np.float32)
    pool = np.repeat(row, 500, axis=0)
    query = rng.standard_normal((1, 768)).astype(np.float32)
    counter = Counter(own_similarities(query, [row]))
    counter.add(normalised(query), normalised(pool), query_block=1)
    assert (counter.above[0], counter.tied[0]) == (0, 500)


@pytest.mark.parametrize("dim", [3, 64, 512, 2048])
def test_no_float32_product_errs_by_more_than_the_bound(dim: int) -> None:
    rng = np.random.default_rng(dim)
    a, b = (unit(np.abs(rng.standard_normal((60, dim)))) for _ in range(2))  # sums without cancelling
    true = a.astype(np.float64) @ b.astype(np.float64).T
    worst = np.zeros_like(true, dtype=np.float32)
    for column in range(dim):  # one rounding a step
        worst += np.outer(a[:, column], b[:, column])
    for found in (a @ b.T, worst):
        assert np.abs(found - true).max() <= error_bound(dim)


def test_many_near_ties_are_computed_again_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, queries, own = crowded(9, 16, 200, [3, 1, 1])
    pool[:] = own[0][0]
    at_once = Counter(own_similarities(queries, own))
    at_once.add(normalised(queries), normalised(pool), query_block=9)
    monkeypatch.setattr(mixed_precision, "CACHED", 7 * 16)
    monkeypatch.setattr(matmul, "MAX_PENDING", 11)
    in_parts = Counter(own_similarities(queries, own))
    in_parts.add(normalised(queries), normalised(pool), query_block=9)
    assert np.array_equal(at_once.above, in_parts.above) and np.array_equal(at_once.tied, in_parts.tied)
    assert at_once.tied[0] == 200


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_products_by_torch_give_the_same_counts(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pool, queries, own = crowded(11, 64, 500, [1, 12, 3])
    thresholds = own_similarities(queries, own)
    by_numpy, by_torch = Counter(thresholds), Counter(thresholds, products=TorchProducts(device))
    for counter in (by_numpy, by_torch):
        for start in range(0, 500, 130):
            counter.add(normalised(queries), normalised(pool[start : start + 130]), query_block=2)
    assert np.array_equal(by_numpy.above, by_torch.above) and np.array_equal(by_numpy.tied, by_torch.tied)
    assert by_torch.tied.sum() > 0
