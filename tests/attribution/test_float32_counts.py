"""Counts from float32 products: held to exact counts, where ties are many and near."""

from __future__ import annotations

import numpy as np
import pytest

from attrib_core.attribution.ranking import fixed_point, float32_counts
from attrib_core.attribution.ranking.accumulator import Tally
from attrib_core.attribution.ranking.float32_counts import FLOAT64, GRID, Counter, Side
from attrib_core.attribution.ranking.matmul import torch_product
from tests.attribution.ranking_fixtures import unit


def grid(vectors: np.ndarray) -> Side:
    """Float32 unit vectors with the exact points of `exact`."""
    return Side(vectors, lambda rows: fixed_point.fixed_point(vectors[rows]))


def plain(vectors: np.ndarray) -> Side:
    """Vectors with float64 unit vectors as exact points."""
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return Side(wide.astype(np.float32), lambda rows: wide[rows])


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
def test_counts_equal_the_exact_ones_for_every_block(dim: int, sizes: list[int]) -> None:
    pool, queries, own = crowded(dim, dim, 240, sizes)
    thresholds = [
        fixed_point.similarities(fixed_point.fixed_point(query[None]), fixed_point.fixed_point(one))[0]
        for query, one in zip(queries, own, strict=True)
    ]
    names = np.array([f"p{i:04d}" for i in range(len(pool))], object)
    tally = Tally(thresholds, top_k=7, bins=8)
    tally.add(
        0, fixed_point.similarities(fixed_point.fixed_point(queries), fixed_point.fixed_point(pool)), names
    )
    assert tally.tied.sum() > len(tally.tied)
    for pool_block, query_block in [(1, 1), (7, 2), (50, 100), (240, 3)]:
        counter = Counter(thresholds, dim, GRID, top_k=7)
        for start in range(0, len(pool), pool_block):
            some = slice(start, start + pool_block)
            counter.add(
                grid(queries),
                grid(pool[some]),
                query_block=query_block,
                ids=lambda rows, a=some: names[a][rows],
            )
        assert np.array_equal(counter.above, tally.above) and np.array_equal(counter.tied, tally.tied)
        for query in range(len(queries)):
            scores, found = tally.top(query)
            assert counter.top(query)[1] == found
            assert np.array_equal(counter.top(query)[0], scores / fixed_point.ONE)


@pytest.mark.parametrize("dim", [3, 64, 1024])
def test_counts_equal_a_sort_in_float64(dim: int) -> None:
    pool, queries, own = crowded(dim + 1, dim, 300, [1, 4, 67])
    asked, candidates, exemplars = plain(queries), plain(pool), [plain(one) for one in own]
    everything = np.arange
    thresholds = [
        one.points(everything(len(one.unit))) @ asked.points(np.array([i]))[0]
        for i, one in enumerate(exemplars)
    ]
    counter = Counter(thresholds, dim, FLOAT64)
    counter.add(asked, candidates, query_block=2)
    scores = asked.points(everything(3)) @ candidates.points(everything(300)).T
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
    threshold = plain(row).points(np.array([0])) @ plain(query).points(np.array([0]))[0]
    counter = Counter([threshold], 768, FLOAT64)
    counter.add(plain(query), plain(pool), query_block=1)
    assert (counter.above[0], counter.tied[0]) == (0, 500)


@pytest.mark.parametrize("dim", [3, 64, 512, 2048])
def test_no_float32_product_is_off_by_more_than_the_bound(dim: int) -> None:
    rng = np.random.default_rng(dim)
    a, b = (unit(np.abs(rng.standard_normal((60, dim)))) for _ in range(2))  # sums without cancelling
    true = a.astype(np.float64) @ b.astype(np.float64).T
    worst = np.zeros_like(true, dtype=np.float32)
    for column in range(dim):  # the plainest order, one rounding a step
        worst += np.outer(a[:, column], b[:, column])
    for found in (a @ b.T, worst):
        assert np.abs(found - true).max() <= float32_counts.error_bound(dim)


def test_many_near_ties_are_taken_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, queries, own = crowded(9, 16, 200, [3, 1, 1])
    pool[:] = own[0][0]
    thresholds = [
        plain(one).points(np.arange(len(one))) @ plain(queries).points(np.array([i]))[0]
        for i, one in enumerate(own)
    ]
    whole = Counter(thresholds, 16, FLOAT64)
    whole.add(plain(queries), plain(pool), query_block=9)
    monkeypatch.setattr(float32_counts, "PAIRS", 7)
    monkeypatch.setattr(float32_counts, "WAITING", 11)
    cut = Counter(thresholds, 16, FLOAT64)
    cut.add(plain(queries), plain(pool), query_block=9)
    assert np.array_equal(whole.above, cut.above) and np.array_equal(whole.tied, cut.tied)
    assert whole.tied[0] == 200


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_products_by_torch_count_alike(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pool, queries, own = crowded(11, 64, 500, [1, 12, 3])
    asked = plain(queries).points(np.arange(3))
    thresholds = [plain(one).points(np.arange(len(one))) @ asked[i] for i, one in enumerate(own)]
    plainly, other = (
        Counter(thresholds, 64, FLOAT64),
        Counter(thresholds, 64, FLOAT64, product=torch_product(device)),
    )
    for counter in (plainly, other):
        for start in range(0, 500, 130):
            counter.add(plain(queries), plain(pool[start : start + 130]), query_block=2)
    assert np.array_equal(plainly.above, other.above) and np.array_equal(plainly.tied, other.tied)
    assert other.tied.sum() > 0
