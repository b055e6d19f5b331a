"""Evaluation of the published benchmark's files, held to its protocol written out."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import average_precision_score

from attrib_core.abc_benchmark import evaluate, feature_files, test_cases
from attrib_core.abc_benchmark.mapper_files import UNTUNED, read_mapper
from attrib_core.storage import tables
from attrib_core.storage.schemas.registry import abc_per_query_schema
from tests.abc_benchmark.abc_fixtures import AbcCase, abc_case, mappers, protocol, run_evaluate, unit
from tests.attribution.ranking_fixtures import write_parts

KS = [5, 10, 100]


def results(out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return pq.read_table(out / "per_query.parquet").to_pylist(), pq.read_table(
        out / "metrics.parquet"
    ).to_pylist()


@pytest.mark.parametrize("mapper", ["untuned", "linear", "mlp", "channel"])
def test_every_query_is_as_the_published_protocol_has_it(mapper: str, tmp_path: Path) -> None:
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
def test_average_precision_is_that_of_scikit_learn(dim: int) -> None:
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


def memory_case(case: AbcCase) -> tuple[feature_files.Matrix, test_cases.TestCase]:
    """Pool and test case as if read from files."""

    def matrix(name: str, vectors: np.ndarray) -> feature_files.Matrix:
        def blocks(step: int) -> Any:
            for start in range(0, len(vectors), step):
                yield feature_files.Block(start, vectors[start : start + step], None)

        return feature_files.Matrix(name, *vectors.shape, blocks)

    queries = [
        test_cases.Queries(kind, matrix(kind, rows), np.array(case.models[kind]), None)
        for kind, rows in case.queries.items()
    ]
    test = test_cases.TestCase(
        Path("case.pth"), matrix("exemplars", case.exemplars), None, np.array(case.chunks), queries
    )
    return matrix("pool", case.pool), test


def counts(case: AbcCase, **options: Any) -> list[tuple[test_cases.Queries, evaluate.Counts]]:
    pool, test = memory_case(case)
    return [(one, evaluate.count(pool, test, one, **options)) for one in test.queries]


def crowded(seed: int, dim: int) -> AbcCase:
    """Pool rows equal to exemplars, to each other, and scaled copies: ties everywhere."""
    case = abc_case(seed, rows=210, dim=dim)
    rng = np.random.default_rng(seed)
    copied = rng.integers(len(case.exemplars), size=90)
    case.pool[:90] = case.exemplars[copied]
    case.pool[90:120] = 2 * case.pool[60:90]
    case.exemplars[5] = case.exemplars[6]
    return case


@pytest.mark.parametrize("dim", [3, 33, 1024])
def test_counts_hang_on_no_block(dim: int) -> None:
    case = crowded(3, dim)
    whole = counts(case)
    for pool_block, query_block, query_group in [(1, 5, 7), (7, 1, 20), (64, 3, 1), (210, 20, 20)]:
        cut = counts(case, pool_block=pool_block, query_block=query_block, query_group=query_group)
        for (_, a), (_, b) in zip(whole, cut, strict=True):
            for name in ("query", "exemplar", "siblings_above", "above", "tied"):
                assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert sum(int(found.tied.sum()) for _, found in whole) > 100


@pytest.mark.parametrize("dim", [3, 64])
def test_ties_are_counted_as_a_plain_comparison_counts_them(dim: int) -> None:
    case = crowded(4, dim)
    pool, exemplars = unit(case.pool, None), unit(case.exemplars, None)
    for queries, found in counts(case):
        asked = unit(case.queries[queries.prompt_kind], None)
        for query, exemplar, above, tied in zip(
            found.query, found.exemplar, found.above, found.tied, strict=True
        ):
            difference = pool @ asked[query] - exemplars[exemplar] @ asked[query]
            assert (above, tied) == ((difference > 1e-12).sum(), (np.abs(difference) <= 1e-12).sum())


def test_tie_policies_are_bounds_and_the_middle() -> None:
    case = crowded(5, 8)
    pool, test = memory_case(case)
    counted = counts(case)
    value = {
        ties: evaluate.system(pool.rows, test, counted, recall_ks=KS, ties=ties).values["median_rank", None]
        for ties in ("above", "half", "below")
    }
    np.testing.assert_allclose(value["half"], (value["above"] + value["below"]) / 2)
    assert (value["above"] > value["below"]).any() and (value["above"] >= value["below"]).all()


@pytest.mark.parametrize(
    "kind",
    [
        "npy",
        "fortran",
        "npy64",
        "parquet",
        "parts",
        "half",
        "double",
        "old",
        "transposed",
        "bfloat16",
        "view",
    ],
)
def test_a_pool_reads_alike_from_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    case = abc_case(6, rows=50, dim=8)
    case.pool = case.pool.astype(np.float16).astype(np.float32)
    if kind == "bfloat16":
        case.pool = torch.from_numpy(case.pool).bfloat16().float().numpy()
    whole, names = torch.from_numpy(case.pool), [f"{i}.jpg" for i in range(50)]
    path = tmp_path / "pool.pth"
    if kind in ("npy", "fortran", "npy64"):
        path = tmp_path / "pool.npy"
        saved = {
            "npy": case.pool,
            "fortran": np.asfortranarray(case.pool),
            "npy64": case.pool.astype(np.float64),
        }
        np.save(path, saved[kind])
    elif kind == "parquet":
        path = write_parts(tmp_path, names, case.pool, 99)[0]
    elif kind == "parts":
        path = tmp_path / "parts"
        write_parts(path, names, case.pool, 20)
    elif kind == "old":
        torch.save({"feats": whole, "paths": names}, path, _use_new_zipfile_serialization=False)
    else:
        stand_in = {
            "half": whole.half(), "double": whole.double(), "transposed": whole.T.contiguous().T,
            "bfloat16": whole.bfloat16(), "view": torch.cat([whole[:3], whole])[3:],
        }  # fmt: skip
        torch.save({"junk": torch.ones(7), "feats": stand_in[kind], "paths": names}, path)
    pool = feature_files.open_pool(path)
    assert (pool.rows, pool.dim) == (50, 8)
    for step in (7, 50, 1000):
        blocks = list(pool.blocks(step))
        assert np.array_equal(np.concatenate([block.vectors for block in blocks]), case.pool)
        assert all(block.vectors.dtype == np.float32 for block in blocks)
        starts = np.cumsum([0] + [len(block.vectors) for block in blocks])[:-1]
        assert [block.start for block in blocks] == starts.tolist()
        if "npy" not in path.name:
            assert [name for block in blocks for name in block.names or []] == names


@pytest.mark.parametrize("kind", ["pth", "npy", "parquet"])
def test_a_pool_is_never_in_memory_as_a_whole(kind: str, tmp_path: Path) -> None:
    """Memory that Python and NumPy take in a pass over a file of 32 MB, read 1 MB at a time."""
    rows, dim = 32768, 256
    vectors = np.random.default_rng(0).standard_normal((rows, dim), np.float32)
    path = tmp_path / f"pool.{kind}"
    if kind == "pth":
        torch.save({"feats": torch.from_numpy(vectors)}, path)
    elif kind == "npy":
        np.save(path, vectors)
    else:
        with tables.writer(path, tables.embedding_schema(dim)) as sink:
            for start in range(0, rows, 1024):
                names = [str(i) for i in range(start, start + 1024)]
                sink.write(tables.embedding_table(names, vectors[start : start + 1024]))
    case = abc_case(1, rows=1, dim=dim)
    _, test = memory_case(case)
    del vectors
    pool = feature_files.open_pool(path)
    tracemalloc.start()
    evaluate.count(pool, test, test.queries[0], pool_block=1024)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 14 * 2**20  # a block thrice, in float64 in part, and scores


def test_maps_of_a_file_are_let_go(tmp_path: Path) -> None:
    """Mapped pages count as memory of the process, so no more than a block or two may stay mapped."""
    code = """
import sys
from pathlib import Path
from attrib_core.abc_benchmark import feature_files
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
pool = feature_files.open_pool(Path(sys.argv[1]))
before = peak()
sum(float(block.vectors.sum()) for block in pool.blocks(1024))
print(peak() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory of a process is read as Linux tells it")
    path = tmp_path / "pool.pth"
    torch.save({"feats": torch.ones(65536, 256)}, path)  # 64 MB, a block 1 MB
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8 * 1024  # kilobytes


def test_tables_are_as_documented(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_evaluating_repeats_to_the_byte(tmp_path: Path) -> None:
    paths = abc_case(9).write(tmp_path)
    for name in ("a", "b"):
        run_evaluate(paths, tmp_path / name)
    for name in ("per_query.parquet", "metrics.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_mlp_of_three_layers_is_applied_as_torch_applies_it(tmp_path: Path) -> None:
    from tests.abc_benchmark.abc_fixtures import mlp

    rng = np.random.default_rng(3)
    heads = [mlp(rng, 16, layers=3) for _ in range(2)]
    torch.save(
        {"real_mapper": heads[0].state_dict(), "synth_mapper": heads[1].state_dict()}, tmp_path / "m.pth"
    )
    found = read_mapper(tmp_path / "m.pth")
    x = rng.standard_normal((9, 16)).astype(np.float32)
    for head, module in zip((found.real, found.synth), heads, strict=True):
        mapped = head(x)
        np.testing.assert_allclose(
            mapped / np.linalg.norm(mapped, axis=1, keepdims=True), unit(x, module), atol=1e-12
        )


def test_biases_of_an_mlp_count(tmp_path: Path) -> None:
    """Before a batch norm and in the last layer, where none follows."""
    torch.manual_seed(4)
    heads = [
        torch.nn.Sequential(
            torch.nn.Linear(16, 12), torch.nn.BatchNorm1d(12), torch.nn.ReLU(), torch.nn.Linear(12, 16)
        )
        for _ in range(2)
    ]
    for head in heads:
        torch.nn.init.normal_(head[1].running_mean)
        torch.nn.init.normal_(head[0].bias)
    torch.save(
        {"real_mapper": heads[0].state_dict(), "synth_mapper": heads[1].state_dict()}, tmp_path / "m.pth"
    )
    found = read_mapper(tmp_path / "m.pth")
    x = torch.randn(9, 16)
    for head, module in zip((found.real, found.synth), heads, strict=True):
        expected = module.double().eval()(x.double()).detach().numpy()
        np.testing.assert_allclose(head(x.numpy()), expected, atol=1e-12)


def test_bad_rows_rank_last_where_that_is_asked_for() -> None:
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


def test_untuned_is_no_mapper() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    assert np.array_equal(UNTUNED.real(x), x.astype(np.float64))
