"""`abc evaluate`, compared with the published protocol as plain code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score

from attrib_core.abc_benchmark import evaluate, test_cases
from attrib_core.storage import tables
from attrib_core.storage.schemas.registry import abc_per_query_schema
from tests.abc_benchmark.abc_fixtures import (
    AbcCase,
    abc_case,
    mappers,
    memory_case,
    protocol,
    run_evaluate,
    unit,
)

KS = [5, 10, 100]


def results(out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return pq.read_table(out / "per_query.parquet").to_pylist(), pq.read_table(
        out / "metrics.parquet"
    ).to_pylist()


@pytest.mark.parametrize("mapper", ["untuned", "linear", "mlp", "channel"])
def test_every_query_agrees_with_the_published_protocol(mapper: str, tmp_path: Path) -> None:
    case = abc_case(1, rows=3000, dim=64)
    heads, checkpoint = mappers(mapper, 64, tmp_path)
    paths = case.write(tmp_path)
    assert run_evaluate(paths, tmp_path / "out", *(["--mapper", str(checkpoint)] if checkpoint else [])) == 0
    per_query, metrics = results(tmp_path / "out")
    expected = protocol(case, heads, KS)
    assert [row["prompt_kind"] for row in per_query] == [
        kind for kind in case.queries for _ in case.queries[kind]
    ]
    for row in per_query:
        precision, recall, hits = expected[row["prompt_kind"]][row["query_index"]]
        assert row["model_index"] == case.models[row["prompt_kind"]][row["query_index"]]
        assert row["n_exemplars"] == case.sizes[row["model_index"]]
        assert {k: row[f"recall@{k}"] for k in KS} == recall
        assert row["average_precision"] == pytest.approx(precision, abs=1e-6)
        assert row["best_rank"] == hits[0]
    for row in metrics:
        if row["group_by"] == "all" and row["metric"] in ("recall_at_k", "mean_average_precision"):
            values = [one[1][row["k"]] if row["k"] else one[0] for one in expected[row["prompt_kind"]]]
            assert row["value"] == pytest.approx(np.mean(values), abs=1e-12 if row["k"] else 1e-6)
            assert row["ci_low"] <= row["value"] <= min(row["ci_high"], row["ceiling"] + 1e-12)


@pytest.mark.parametrize("dim", [3, 17, 256, 1024])
def test_average_precision_agrees_with_scikit_learn(dim: int) -> None:
    case = abc_case(dim, rows=300, dim=dim, sizes=[1, 67, 3], each=5)
    counted = counts(case)
    one = evaluate.system(300, memory_case(case)[1], counted, recall_ks=KS)
    pool, exemplars = unit(case.pool, None), unit(case.exemplars, None)
    scores = []
    for kind in case.queries:
        for query, model in zip(unit(case.queries[kind], None), case.models[kind], strict=True):
            own = exemplars[slice(*case.chunks[model])]
            truth = np.repeat([0, 1], [len(pool), len(own)])
            scores.append(average_precision_score(truth, np.concatenate([pool, own]) @ query))
    np.testing.assert_allclose(one.values["mean_average_precision", None], scores, atol=1e-12)


def counts(case: AbcCase, **options: Any) -> list[tuple[test_cases.Queries, evaluate.Counts]]:
    pool, test = memory_case(case)
    return [(one, evaluate.count(pool, test, one, **options)) for one in test.queries]


def tied_case(seed: int, dim: int) -> AbcCase:
    """Return a case full of ties: pool rows equal to exemplars, to each other, and scaled copies."""
    case = abc_case(seed, rows=210, dim=dim)
    rng = np.random.default_rng(seed)
    copied = rng.integers(len(case.exemplars), size=90)
    case.pool[:90] = case.exemplars[copied]
    case.pool[90:120] = 2 * case.pool[60:90]
    case.exemplars[5] = case.exemplars[6]
    return case


@pytest.mark.parametrize("dim", [3, 33, 1024])
def test_counts_do_not_depend_on_blocks(dim: int) -> None:
    case = tied_case(3, dim)
    whole = counts(case)
    for pool_block, query_block, query_group in [(1, 5, 7), (7, 1, 20), (64, 3, 1), (210, 20, 20)]:
        cut = counts(case, pool_block=pool_block, query_block=query_block, query_group=query_group)
        for (_, a), (_, b) in zip(whole, cut, strict=True):
            for name in ("query", "exemplar", "siblings_above", "above", "tied"):
                assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert sum(int(found.tied.sum()) for _, found in whole) > 100


@pytest.mark.parametrize("dim", [3, 64])
def test_ties_are_counted_as_by_plain_comparison(dim: int) -> None:
    case = tied_case(4, dim)
    pool, exemplars = unit(case.pool, None), unit(case.exemplars, None)
    for queries, found in counts(case):
        vectors = unit(case.queries[queries.prompt_kind], None)
        for query, exemplar, above, tied in zip(
            found.query, found.exemplar, found.above, found.tied, strict=True
        ):
            difference = pool @ vectors[query] - exemplars[exemplar] @ vectors[query]
            assert (above, tied) == ((difference > 1e-12).sum(), (np.abs(difference) <= 1e-12).sum())


def test_the_default_tie_policy_is_the_mean_of_the_two_others() -> None:
    case = tied_case(5, 8)
    pool, test = memory_case(case)
    counted = counts(case)
    value = {
        ties: evaluate.system(pool.rows, test, counted, recall_ks=KS, ties=ties).values["median_rank", None]
        for ties in ("above", "half", "below")
    }
    np.testing.assert_allclose(value["half"], (value["above"] + value["below"]) / 2)
    assert (value["above"] > value["below"]).any() and (value["above"] >= value["below"]).all()


def test_tables_have_the_documented_columns_and_groups(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = abc_case(8)
    paths = case.write(tmp_path)
    assert run_evaluate(paths, tmp_path / "out", "--cases", str(paths["cases"]), "--recall-ks", "1", "5") == 0
    table = pq.read_table(tmp_path / "out" / "per_query.parquet")
    assert table.schema.equals(abc_per_query_schema([1, 5]))
    assert pq.read_table(tmp_path / "out" / "metrics.parquet").schema.equals(tables.schema("abc_metrics"))
    per_query, metrics = results(tmp_path / "out")
    assert {row["category"] for row in per_query} == {"dog", "bird", None}
    assert {(row["group_by"], row["group"]) for row in metrics} == {
        ("all", "all"), ("category", ""), ("category", "bird"), ("category", "dog"),
        ("n_exemplars", "1"), ("n_exemplars", "2-4"), ("n_exemplars", "9-16"), ("n_exemplars", "33+"),
    }  # fmt: skip
    for row in metrics:
        if (row["metric"], row["k"]) == ("recall_at_k", 5) and row["group_by"] == "n_exemplars":
            own = [
                one
                for one in per_query
                if one["prompt_kind"] == row["prompt_kind"] and _size(one, row["group"])
            ]
            assert row["value"] == pytest.approx(np.mean([one["recall@5"] for one in own]))
            assert row["ceiling"] == pytest.approx(
                np.mean([min(5, one["n_exemplars"]) / one["n_exemplars"] for one in own])
            )
            assert row["n_queries"] == len(own)
    shown = capsys.readouterr()
    assert (
        "Recall@5" in shown.out and "mAP" in shown.out and "test_case, gpt: 5 models, 20 queries" in shown.out
    )
    assert "blocks of the pool" in shown.err


def _size(row: dict[str, Any], group: str) -> bool:
    low, _, high = group.partition("-")
    return (
        int(low.rstrip("+"))
        <= row["n_exemplars"]
        <= (int(high) if high else 10**9 if "+" in group else int(low))
    )


def test_evaluation_is_reproducible_to_the_byte(tmp_path: Path) -> None:
    paths = abc_case(9).write(tmp_path)
    for name in ("a", "b"):
        run_evaluate(paths, tmp_path / name)
    for name in ("per_query.parquet", "metrics.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_bad_rows_rank_last_with_that_option() -> None:
    case = abc_case(10, rows=60, dim=8, sizes=[1, 3, 2], each=3)
    clean = [found for _, found in counts(case)]
    case.pool = np.insert(case.pool, [0, 30, 60], 0, axis=0)
    case.pool[0], case.pool[31], case.pool[62] = np.nan, 0, np.inf
    for before, (_, after) in zip(clean, counts(case, bad_rows="last", pool_block=20), strict=True):
        assert np.array_equal(before.above, after.above) and np.array_equal(before.tied, after.tied)
    case.exemplars[2] = 0  # the second of the second model
    for before, (_, after) in zip(clean, counts(case, bad_rows="last"), strict=True):
        bad = after.exemplar == 2
        assert (
            (after.above[bad] == 60).all()
            and (after.tied[bad] == 3).all()
            and (after.siblings_above[bad] == 2).all()
        )
        assert np.array_equal(before.above[~bad], after.above[~bad])
    kind = next(iter(case.queries))
    case.queries[kind][4] = np.nan
    _, after = counts(case, bad_rows="last", query_group=2)[0]
    bad = after.query == 4
    assert (after.above[bad] == 63).all() and not after.tied[bad].any()
    case.queries[kind][:] = 0
    assert (counts(case, bad_rows="last")[0][1].above == 63).all()


def test_vectors_of_extreme_length_are_ranked_by_direction() -> None:
    case = abc_case(11, rows=40, dim=8, sizes=[2, 2])
    clean = [found for _, found in counts(case)]
    case.pool[:20] *= np.float32(1e25)
    case.pool[20:] *= np.float32(1e-25)
    for before, (_, after) in zip(clean, counts(case), strict=True):
        assert np.array_equal(before.above, after.above)
