"""Exact ranks against integer arithmetic, for all sizes of blocks and parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attrib_core.attribution.ranking import embedding_stream, fixed_point, rank
from attrib_core.attribution.ranking.accumulator import RankAccumulator
from attrib_core.common.errors import InputError
from attrib_core.features.heads import heads
from tests.attribution.ranking_fixtures import World, ranked, unit, world, write_parts

TIE = 2**29


def integers(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors as int64 in units of 2**-26; int64 products are exact in any order."""
    return np.rint(vectors.astype(np.float64) * 2**26).astype(np.int64)


def sorted_list(case: World, top_k: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of ranks and candidates from a list of all integer similarities of each query, sorted and counted."""
    kept = [i for i, name in enumerate(case.pool_ids) if name not in set(case.excluded)]
    ids, pool = [case.pool_ids[i] for i in kept], integers(case.pool[kept])
    ranks, candidates = [], []
    for name, vectors in case.queries.items():
        own = integers(case.exemplars[name])
        for number, query in enumerate(integers(vectors)):
            scores, siblings = (pool @ query).tolist(), (own @ query).tolist()
            for i, score in enumerate(siblings):
                others = [other for j, other in enumerate(siblings) if j != i]
                ranks.append(
                    {
                        "query_id": f"{name}-q{number}",
                        "exemplar_id": f"{name}-e{i}",
                        "n_above": sum(other > score + TIE for other in scores),
                        "n_tied": sum(abs(other - score) <= TIE for other in scores),
                        "n_siblings_above": sum(other > score + TIE for other in others),
                        "n_siblings_tied": sum(abs(other - score) <= TIE for other in others),
                    }
                )
            order = sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))
            candidates.append({"candidate_ids": [ids[i] for i in order[:top_k]]})
    return ranks, candidates


CASES = [
    {"rows": 257, "dim": 3, "set_sizes": [1, 4, 1], "duplicates": 60},
    {"rows": 400, "dim": 64, "set_sizes": [67, 1, 5], "duplicates": 90},
    {"rows": 120, "dim": 1024, "set_sizes": [1, 2], "duplicates": 0},
    {"rows": 5, "dim": 16, "set_sizes": [3], "duplicates": 5},
]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_counts_and_top_equal_those_of_a_sorted_list(number: int, tmp_path: Path) -> None:
    case = world(number, **CASES[number])
    case.excluded = case.pool_ids[1::7]
    found = ranked(case.write(tmp_path, pool_part=100), top_k=20, bins=50, query_block=4, pool_block=33)
    ranks, candidates = sorted_list(case, 20)
    columns = list(ranks[0])
    assert found.ranks.select(columns).to_pylist() == ranks
    assert set(found.ranks.column("n_distractors").to_pylist()) == {len(case.pool) - len(case.excluded)}
    assert found.candidates.select(["candidate_ids"]).to_pylist() == candidates


def test_the_cases_have_ties(tmp_path: Path) -> None:
    found = ranked(world(1, **CASES[1]).write(tmp_path))
    assert np.count_nonzero(found.ranks.column("n_tied").to_numpy()) > 50


def random_heads(dim: int) -> heads.Heads:
    rng = np.random.default_rng(5)
    sides = [
        heads.Linear(
            (np.eye(dim) + 0.2 * rng.standard_normal((dim, dim)) / np.sqrt(dim)).astype(np.float32),
            (0.01 * rng.standard_normal(dim)).astype(np.float32),
        )
        for _ in range(2)
    ]
    return heads.Heads(*sides)


@pytest.mark.parametrize("tuned", [False, True])
def test_nothing_depends_on_block_group_or_part_sizes(tuned: bool, tmp_path: Path) -> None:
    case = world(11, rows=90, dim=37, set_sizes=[1, 9, 3], duplicates=30, queries_each=4)
    case.excluded = case.pool_ids[5:70:13]
    head = random_heads(37) if tuned else heads.load(None)
    whole = ranked(case.write(tmp_path / "whole"), head, query_block=10**6, pool_block=10**6)
    for number, (query_block, pool_block, query_group, pool_part, query_part) in enumerate(
        [(1, 1, 10**6, 90, 12), (3, 64, 5, 37, 4), (4, 31, 8, 20, 1), (10**6, 90, 4, 45, 11)]
    ):
        written = case.write(tmp_path / str(number), pool_part=pool_part, query_part=query_part)
        cut = ranked(written, head, query_block=query_block, pool_block=pool_block, query_group=query_group)
        assert cut.ranks.equals(whole.ranks)
        assert cut.candidates.equals(whole.candidates)


def test_nothing_depends_on_the_order_of_the_pool(tmp_path: Path) -> None:
    case = world(12, rows=300, dim=24, set_sizes=[2, 5], duplicates=150)
    straight = ranked(case.write(tmp_path / "straight"), top_k=30)
    written = case.write(tmp_path / "shuffled")
    order = np.random.default_rng(0).permutation(len(case.pool))
    written["pool"] = write_parts(
        tmp_path / "again", [case.pool_ids[i] for i in order], case.pool[order], 10**9
    )
    shuffled = ranked(written, top_k=30)
    assert shuffled.ranks.equals(straight.ranks) and shuffled.candidates.equals(straight.candidates)


def test_agrees_with_a_full_float64_sort(tmp_path: Path) -> None:
    """With the unrounded vectors, of which no two similarities are within the rounding."""
    case = world(3, rows=500, dim=128, set_sizes=[4, 1])
    found = ranked(case.write(tmp_path))
    ranks = {(row["query_id"], row["exemplar_id"]): row for row in found.ranks.to_pylist()}
    for name, vectors in case.queries.items():
        for number, query in enumerate(vectors.astype(np.float64)):
            scores = np.concatenate([case.pool, case.exemplars[name]]).astype(np.float64) @ query
            assert np.diff(np.sort(scores)).min() > 1e-7, "the case must have no near ties"
            position = np.argsort(np.argsort(-scores)) + 1
            for i, expected in enumerate(position[len(case.pool) :]):
                row = ranks[f"{name}-q{number}", f"{name}-e{i}"]
                assert 1 + row["n_above"] + row["n_siblings_above"] == expected
                assert row["n_tied"] == row["n_siblings_tied"] == 0
                assert row["similarity"] == pytest.approx(scores[len(case.pool) + i], abs=1e-7)


def test_products_are_exact_for_every_shape() -> None:
    rng = np.random.default_rng(0)
    for dim in (3, 17, 512, 1024):
        a, b = (unit(rng.standard_normal((rows, dim))) for rows in (130, 90))
        b[:5] = a[:5]  # similarity 1 is the largest sum
        expected = integers(a) @ integers(b).T
        a, b = fixed_point.fixed_point(a), fixed_point.fixed_point(b)
        for rows, columns in [(130, 90), (1, 90), (130, 1), (7, 5)]:
            found = fixed_point.similarities(a[:rows], b[:columns]) * fixed_point.ONE
            assert np.array_equal(found.astype(np.int64), expected[:rows, :columns])


def test_rounding_moves_a_similarity_by_less_than_a_tie() -> None:
    rng = np.random.default_rng(1)
    for dim in (3, 64, 512, 1280):
        a, b = (unit(rng.standard_normal((200, dim))) for _ in range(2))
        found = fixed_point.similarities(fixed_point.fixed_point(a), fixed_point.fixed_point(b))
        assert np.abs(found - a.astype(np.float64) @ b.astype(np.float64).T).max() < 6e-8


def test_ties_at_the_border_of_the_top_are_settled_by_name(tmp_path: Path) -> None:
    case = world(4, rows=40, dim=8, set_sizes=[1])
    case.pool[:] = case.pool[0]
    row = ranked(case.write(tmp_path), top_k=6, pool_block=7).candidates.to_pylist()[0]
    assert row["candidate_ids"] == case.pool_ids[:6]
    assert sum(row["histogram"]) == 34


def test_a_tie_is_a_difference_of_at_most_two_to_the_minus_23() -> None:
    for exemplars in ([0.5], [0.5, 0.25, 0.125]):
        step = 2**27  # float32 has multiples of 2**-25 from 0.25 on
        steps = np.array([-TIE - step, -TIE, 0, TIE, TIE + step, 2 * TIE]) / 2**52
        pool = directions(exemplars[-1] / 2 + steps)
        accumulator = accumulate([np.array(exemplars) / 2], pool, list("abcdef"))
        assert (accumulator.counter.above[-1], accumulator.counter.tied[-1]) == (2, 3)


def directions(cosines: np.ndarray) -> np.ndarray:
    """Unit vectors of these cosines to (1, 0, 0), exact in float32, with lengths that float32 rounds."""
    return np.stack([cosines, np.sqrt(1 - cosines**2), np.zeros(len(cosines))], axis=1).astype(np.float32)


def accumulate(
    thresholds: list[np.ndarray], pool: np.ndarray, names: list[str], block: int = 2
) -> RankAccumulator:
    query = fixed_point.vectors(np.array([[1, 0, 0]], np.float32))
    accumulator = RankAccumulator(thresholds, query, top_k=2, bins=4, query_block=1)
    for start in range(0, len(pool), block):
        some = slice(start, start + block)
        accumulator.add(np.array(names[some], object), pool[some])
    return accumulator


def test_an_equal_candidate_of_a_later_block_enters_by_name() -> None:
    accumulator = accumulate([np.zeros(1)], directions(np.full(6, 0.5)), list("mnzaby"))
    best = accumulator.top.of_query(0)
    assert best.ids.tolist() == ["a", "b"]
    assert accumulator.rest(0, best.products)[0].tolist() == [0, 0, 0, 4]


@pytest.mark.parametrize("reuse", [False, True])
def test_regroup_keeps_rows_and_order(reuse: bool) -> None:
    blocks = [
        embedding_stream.EmbeddingBlock([f"{i}-{j}" for j in range(n)], np.full((n, 2), i))
        for i, n in enumerate([3, 1, 8, 2])
    ]
    groups = [
        group._replace(unit=group.unit.copy())
        for group in embedding_stream.regroup(iter(blocks), 4, reuse=reuse)
    ]
    assert [len(group.ids) for group in groups] == [4, 4, 4, 2]
    assert [name for group in groups for name in group.ids] == [
        name for block in blocks for name in block.ids
    ]
    assert np.array_equal(np.concatenate([g.unit for g in groups]), np.concatenate([b.unit for b in blocks]))


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("pool", np.nan, ["pool/part-0001.parquet", "'p00012'", "not finite"]),
        ("pool", 0.0, ["pool/part-0001.parquet", "'p00012'", "zeros"]),
        ("queries", np.inf, ["queries/part-0000.parquet", "'s00-q2'", "not finite"]),
        ("exemplars", 0.0, ["exemplars/part-0000.parquet", "'s00-e0'", "zeros"]),
    ],
)
def test_errors_name_bad_vectors(where: str, value: float, words: list[str], tmp_path: Path) -> None:
    case = world(5, rows=20, dim=4, set_sizes=[1])
    if where == "pool":
        case.pool[12] = value
    elif where == "queries":
        case.queries["s00"][2] = value
    else:
        case.exemplars["s00"][0] = value
    with pytest.raises(InputError) as error:
        ranked(case.write(tmp_path, pool_part=10))
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def broken(case: World, written: dict[str, Any], what: str, folder: Path) -> dict[str, Any]:
    """The arguments of `rank` with one error."""
    if what == "excluded":
        return written | {"excluded": pa.table({"image_id": ["p99999"]})}
    if what == "all excluded":
        return written | {"excluded": pa.table({"image_id": case.pool_ids})}
    if what == "exemplars":
        more = pa.Table.from_pylist([{"exemplar_id": "s77-e0", "exemplar_set": "s77"}])
        return written | {"exemplar_rows": pa.concat_tables([case.exemplar_rows(), more])}
    if what == "missing query":
        return written | {"queries": write_parts(folder, ["s00-q0"], case.queries["s00"][:1], 9)}
    if what == "unknown query":
        return written | {"queries": write_parts(folder, ["who"], case.queries["s00"][:1], 9)}
    if what == "query twice":
        return written | {"queries": write_parts(folder, ["s00-q0"] * 2, case.queries["s00"][:2], 9)}
    if what == "width":
        return written | {"pool": write_parts(folder, case.pool_ids, np.ones((20, 5), np.float32), 99)}
    if what == "widths":
        other = write_parts(folder, ["x"], np.ones((1, 5), np.float32), 99)
        return written | {"pool": written["pool"] + other}
    if what == "no file":
        return written | {"pool": [folder / "none.parquet"]}
    return written | {what: 0}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("excluded", ["'p99999'", "not in the pool"]),
        ("all excluded", ["all 20 rows", "excluded"]),
        ("exemplars", ["'s77-e0'", "no embedding"]),
        ("missing query", ["'s00-q1'", "2 of 3"]),
        ("unknown query", ["'who'", "no query"]),
        ("query twice", ["'s00-q0'", "twice"]),
        ("width", ["5 and 4 dimensions"]),
        ("widths", ["part-0000.parquet", "5 dimensions", "have 4"]),
        ("no file", ["none.parquet", "no such table"]),
        ("top_k", ["ranking.top_k: 0"]),
        ("bins", ["ranking.bins: 0", "2 to"]),
        ("pool_block", ["ranking.pool_block: 0"]),
    ],
)
def test_errors_name_what_does_not_fit(what: str, words: list[str], tmp_path: Path) -> None:
    case = world(6, rows=20, dim=4, set_sizes=[1])
    arguments = broken(case, case.write(tmp_path), what, tmp_path / "broken")
    with pytest.raises(InputError) as error:
        ranked(arguments)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_groups_are_yielded_one_by_one(tmp_path: Path) -> None:
    case = world(7, rows=30, dim=4, set_sizes=[1, 2])
    groups = rank.rank(encoder="e", mapper="m", heads=heads.load(None), query_group=2, **case.write(tmp_path))
    assert next(groups).candidates.column("query_id").to_pylist() == ["s00-q0", "s00-q1"]
