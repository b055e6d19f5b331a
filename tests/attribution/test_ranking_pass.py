"""The pass by float32 products against the pass in float64: counts and top are equal, histograms within their error."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attrib_core.attribution.ranking import (
    accumulator,
    fixed_point,
    matmul,
    mixed_precision,
    rank,
    torch_matmul,
)
from attrib_core.attribution.ranking.rank import Ranked
from attrib_core.common.errors import InputError
from tests.attribution.ranking_fixtures import World, ranked, unit, world
from tests.attribution.ranking_oracle import Expected, float64_pass

BINS, TOP = 50, 20
CASES: dict[str, dict[str, Any]] = {
    "few exemplars, far from the pool": {"rows": 3000, "dim": 96, "set_sizes": [1, 2, 3], "signal": 0.7},
    "within the pool": {"rows": 1500, "dim": 512, "set_sizes": [1, 9, 4], "signal": 0.05, "duplicates": 200},
    "many exemplars": {"rows": 700, "dim": 48, "set_sizes": [67, 40], "signal": 0.3, "duplicates": 100},
    "two dimensions": {"rows": 900, "dim": 2, "set_sizes": [3, 1], "duplicates": 300},
    "more dimensions than the grid is fine for": {
        "rows": 300,
        "dim": 6000,
        "set_sizes": [2],
        "duplicates": 60,
    },
    "fewer rows than the top": {"rows": 11, "dim": 16, "set_sizes": [3], "duplicates": 5},
}


def largest_error(dim: int) -> float:
    """A bound of `grid_bound`, as `test_the_bounds_hold` has it."""
    return 3.5e-3 * max(1.0, (dim / 512) ** 0.5)


def check(found: Ranked, expected: Expected, dim: int) -> None:
    """Counts and the top must equal; the histogram is of similarities off by at most a known bound."""
    for name in ("above", "tied", "distractors"):
        assert found.ranks.column(f"n_{name}").to_pylist() == getattr(expected, name)
    assert found.ranks.column("similarity").to_pylist() == expected.similarity
    for name in ("candidate_ids", "similarities"):
        assert found.candidates.column(name).to_pylist() == getattr(expected, name)
    edges, error = np.linspace(-1, 1, BINS + 1)[1:-1], largest_error(dim)
    for histogram, rest in zip(found.candidates.column("histogram").to_pylist(), expected.rest, strict=True):
        assert sum(histogram) == len(rest)
        below = np.cumsum(histogram)[:-1]
        sorted_rest = np.sort(rest)
        assert (below >= np.searchsorted(sorted_rest, edges - error)).all()
        assert (below <= np.searchsorted(sorted_rest, edges + error)).all()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("blocks", [(512, 16384), (4, 250)])
def test_equals_the_pass_in_float64(name: str, blocks: tuple[int, int], tmp_path: Path) -> None:
    case = world(len(name), **CASES[name])
    case.excluded = case.pool_ids[3::11]
    query_block, pool_block = blocks
    found = ranked(case.write(tmp_path), top_k=TOP, bins=BINS, query_block=query_block, pool_block=pool_block)
    check(found, float64_pass(case, TOP), case.pool.shape[1])


@pytest.mark.parametrize("operations", [1, 1 << 40])
@pytest.mark.parametrize("few", [0, 10**6])
def test_nothing_depends_on_when_a_second_look_is_taken(
    operations: int, few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = world(8, **CASES["within the pool"])
    taken = []
    monkeypatch.setattr(accumulator, "OPERATIONS_A_PAIR", operations)
    monkeypatch.setattr(accumulator, "FEW", few)
    monkeypatch.setattr(accumulator, "Look", lambda *values: taken.append(values) or LOOK(*values))
    found = ranked(case.write(tmp_path), top_k=TOP, bins=BINS)
    check(found, float64_pass(case, TOP), case.pool.shape[1])
    second = [values for values in taken if len(values) == 3]
    assert bool(second) == (operations > 1 and few == 0)


LOOK = accumulator.Look


def test_sums_are_those_of_the_similarities(tmp_path: Path) -> None:
    case = world(4, rows=4000, dim=256, set_sizes=[2, 1])
    found = ranked(case.write(tmp_path), top_k=TOP, bins=64)
    expected = float64_pass(case, TOP)
    for row, rest in zip(found.candidates.to_pylist(), expected.rest, strict=True):
        sums, counts = np.array(row["histogram_sums"]), np.array(row["histogram"])
        assert abs(sums.sum() - rest.sum()) < len(rest) * 2e-5  # errors of 1e-4 cancel in a sum
        exact = np.histogram(rest, 64, (-1, 1))
        assert np.abs(np.cumsum(counts) - np.cumsum(exact[0])).max() < 0.01 * len(rest)
        filled = counts > 50
        means = np.histogram(rest, 64, (-1, 1), weights=rest)[0][filled] / exact[0][filled]
        assert np.abs(sums[filled] / counts[filled] - means).max() < 1e-3
        assert (sums >= np.linspace(-1, 1, 65)[:-1] * counts - 1e-9).all()
        assert (sums <= np.linspace(-1, 1, 65)[1:] * counts + 1e-9).all()


@pytest.mark.parametrize("dim", [1, 3, 17, 512, 1280, 20000])
def test_products_on_the_grid_are_exact_in_any_order(dim: int) -> None:
    rng = np.random.default_rng(dim)
    vectors = np.concatenate([unit(rng.standard_normal((40, dim))), unit(np.ones((1, dim))), np.eye(3, dim)])
    longest = (vectors * fixed_point.MAX_LENGTH).astype(np.float32)
    for some in (vectors.astype(np.float32), longest):
        grid = mixed_precision.round_to_grid(some, fixed_point.MAX_LENGTH, 0.0)
        steps = grid.steps.astype(np.int64)
        assert (steps == grid.steps).all() and ((steps * steps).sum(axis=1) <= 2**24).all()
        exact = steps @ steps.T
        assert np.array_equal(grid.steps @ grid.steps.T, exact)
        halves = grid.steps[:, ::2] @ grid.steps[:, ::2].T + grid.steps[:, 1::2] @ grid.steps[:, 1::2].T
        one_by_one = np.zeros(exact.shape, np.float32)
        for column in rng.permutation(dim)[:2000]:
            one_by_one += np.outer(grid.steps[:, column], grid.steps[:, column])
        assert np.array_equal(halves, exact)
        if dim <= 2000:
            assert np.array_equal(one_by_one, exact)


@pytest.mark.parametrize("dim", [1, 3, 17, 512, 6000])
def test_the_bounds_hold(dim: int) -> None:
    rng = np.random.default_rng(dim)
    found = fixed_point.vectors(unit(np.concatenate([rng.standard_normal((60, dim)), rng.random((60, dim))])))
    grid, points = found.on_grid(), found.points(np.arange(120))
    assert (np.linalg.norm(grid.steps / grid.scale - points, axis=1) <= grid.error).all()
    assert np.linalg.norm(found.unit - points, axis=1).max() <= found.error
    bound = mixed_precision.grid_bound(grid, grid, fixed_point.LONGEST)
    off = np.abs((grid.steps @ grid.steps.T) / grid.scale**2 - points @ points.T)
    assert (off <= bound[:, None]).all()
    assert bound.max() < largest_error(dim)
    if dim == 512:
        assert off.std() < 1.1e-4


def left_out(case: World) -> dict[str, list[str]]:
    """Rows for some sets: the best candidates, others, one that is excluded for all, and none."""
    best = float64_pass(case, 30)
    return {
        "s00": best.candidate_ids[0][:25] + case.pool_ids[50:90] + case.excluded[:2],
        "s01": case.pool_ids[60:70],
        "s02": [],
    }


@pytest.mark.parametrize("pool_block", [10**6, 37, 1])
def test_rows_left_out_of_a_set_are_as_if_they_were_not_there(pool_block: int, tmp_path: Path) -> None:
    case = world(3, rows=260, dim=64, set_sizes=[3, 1, 2, 1], duplicates=60)
    case.excluded = case.pool_ids[1::9]
    rows = left_out(case)
    found = ranked(
        case.write(tmp_path), left_out=rows, top_k=TOP, bins=BINS, pool_block=pool_block, query_block=5
    )
    check(found, float64_pass(case, TOP, rows), case.pool.shape[1])
    assert len(set(found.ranks.column("n_distractors").to_pylist())) == 3
    for number, name in enumerate(case.queries):  # tables of a pool that does not have the rows at all
        apart = World(case.pool, {name: case.exemplars[name]}, {name: case.queries[name]})
        apart.excluded = sorted({*case.excluded, *rows.get(name, ())})
        alone = ranked(apart.write(tmp_path / str(number)), top_k=TOP, bins=BINS)
        for table, part in zip(found, alone, strict=True):
            mine = np.array([one.startswith(f"{name}-") for one in table["query_id"].to_pylist()])
            assert table.filter(mine).equals(part)


def test_a_left_out_row_does_not_enter_a_top_that_is_not_full(tmp_path: Path) -> None:
    case = world(3, rows=30, dim=8, set_sizes=[1, 1])
    rows = {"s00": case.pool_ids[:18]}
    check(
        ranked(case.write(tmp_path), left_out=rows, top_k=TOP, bins=BINS),
        float64_pass(case, TOP, rows),
        case.pool.shape[1],
    )


@pytest.mark.parametrize(
    ("ids", "words"), [(["p99999"], ["'p99999'", "not in the pool"]), (None, ["all 20 rows", "'s00'"])]
)
def test_errors_name_what_cannot_be_left_out(ids: list[str] | None, words: list[str], tmp_path: Path) -> None:
    case = world(6, rows=20, dim=4, set_sizes=[1])
    with pytest.raises(InputError) as error:
        ranked(case.write(tmp_path), left_out={"s00": case.pool_ids if ids is None else ids})
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("compared", [torch_matmul.COMPARED, 1000])
def test_torch_gives_the_same_tables(
    device: str, compared: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    case = world(8, rows=400, dim=64, set_sizes=[9, 1, 30], signal=0.2, duplicates=80)
    rows = left_out(case)
    options = {"left_out": rows, "top_k": TOP, "bins": BINS, "pool_block": 90, "query_block": 7}
    by_numpy = ranked(case.write(tmp_path), **options)
    monkeypatch.setattr(torch_matmul, "COMPARED", compared)
    on_device = functools.partial(rank.rank_group, products=lambda: torch_matmul.TorchProducts(device))
    monkeypatch.setattr(rank, "rank_group", on_device)
    by_torch = ranked(case.write(tmp_path), **options)
    assert by_torch.ranks.equals(by_numpy.ranks) and by_torch.candidates.equals(by_numpy.candidates)


def test_pairs_are_passed_on_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = world(2, **CASES["many exemplars"])
    whole = ranked(case.write(tmp_path), top_k=TOP)
    monkeypatch.setattr(matmul, "MAX_PENDING", 13)
    parts = ranked(case.write(tmp_path), top_k=TOP)
    assert parts.ranks.equals(whole.ranks) and parts.candidates.equals(whole.candidates)
