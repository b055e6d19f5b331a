"""Indices hold the mapped distractors in order, do not depend on part sizes, and report their recall."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from attrib_core.common.errors import InputError
from attrib_core.config.schema_evaluation import Index
from attrib_core.features.heads import heads
from attrib_core.features.index import build as index
from attrib_core.features.index import factory_string
from attrib_core.storage import tables
from tests.features.embedding_fixtures import write_embeddings, write_parts

pytestmark = pytest.mark.usefixtures("one_faiss_thread")
DIM, ROWS = 8, 400
UNTUNED = heads.load(None)
OPTIONS: dict[str, Any] = {
    "heads": UNTUNED,
    "excluded": [],
    "factory": "Flat",
    "probes": None,
    "train_rows": 1000,
    "seed": 1,
}


def vectors(rows: int = ROWS, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)


def ids(rows: int = ROWS) -> list[str]:
    return [f"p{number}" for number in range(rows)]


def build(pool: list[Path], path: Path | None = None, **changes: Any) -> index.PoolIndex:
    return index.build(pool, path or pool[0].parent / "built.faiss", **(OPTIONS | changes))


def recall(
    built: index.PoolIndex, pool: list[Path], queries: list[Path], k: int = 10, **changes: Any
) -> dict[str, Any]:
    options: dict[str, Any] = {"heads": UNTUNED, "excluded": [], "count": 50, "seed": 1}
    return index.recall_against_exact(built, pool, queries, k=k, **(options | changes))


@pytest.fixture
def pool(tmp_path: Path) -> list[Path]:
    return write_parts(tmp_path / "pool", ids(), vectors(), 90)


@pytest.fixture
def queries(tmp_path: Path) -> list[Path]:
    return write_parts(tmp_path / "queries", [f"q{number}" for number in range(80)], vectors(80, seed=7), 30)


def random_heads() -> heads.Heads:
    random = np.random.default_rng(3)
    parts = [
        heads.Linear(random.normal(size=(DIM, DIM)).astype(np.float32), np.ones(DIM, np.float32))
        for _ in "ab"
    ]
    return heads.Heads(*parts)


def test_a_flat_index_holds_the_mapped_rows_without_the_excluded_in_order(pool, tmp_path):
    both = random_heads()
    path = tmp_path / "deep" / "linear.faiss"
    built = build(pool, path, heads=both, excluded=["p3", "p399", "stranger"])
    expected = [name for name in ids() if name not in ("p3", "p399")]
    assert built.ids == expected
    read = faiss.read_index(str(path))
    assert index.describe(built)["bytes"] == path.stat().st_size
    assert read.ntotal == len(expected) and read.metric_type == faiss.METRIC_INNER_PRODUCT
    kept = [int(name[1:]) for name in expected]
    assert np.array_equal(read.reconstruct_n(0, read.ntotal), both.real(vectors()[kept]))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["linear.faiss"]


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "IVF8,SQ8", "HNSW8,Flat", "PCA4,IVF4,Flat"])
def test_bytes_do_not_depend_on_part_sizes(tmp_path, monkeypatch, factory):
    monkeypatch.setattr(index, "BLOCK", 64)
    files = []
    for size in (400, 33, 150):
        parts = write_parts(tmp_path / str(size), ids(), vectors(), size)
        built = build(parts, tmp_path / f"{size}.faiss", factory=factory, excluded=["p5", "p100"])
        assert built.ids == [name for name in ids() if name not in ("p5", "p100")]
        files.append((tmp_path / f"{size}.faiss").read_bytes())
    assert files[0] == files[1] == files[2]


def test_a_flat_index_finds_all(pool, queries, monkeypatch):
    monkeypatch.setattr(index, "BLOCK", 70)
    assert recall(build(pool), pool, queries) == {"queries": 50, "k": 10, "recall_at_k": 1.0}


def test_recall_of_an_approximate_index_against_a_plain_search(pool, queries, monkeypatch):
    monkeypatch.setattr(index, "BLOCK", 70)
    both = random_heads()
    out = ["p7", "p8"]
    built = build(pool, factory="IVF16,Flat", probes=2, heads=both, excluded=out)
    got = recall(built, pool, queries, heads=both, excluded=out, count=80)
    kept = [row for row, name in enumerate(ids()) if name not in out]
    mapped_queries = both.synth(vectors(80, seed=7))
    exact = np.argsort(-(mapped_queries @ both.real(vectors()[kept]).T), axis=1)[:, :10]
    found = built.index.search(mapped_queries, 10)[1]
    expected = np.mean([len(set(one) & set(other)) / 10 for one, other in zip(found, exact, strict=True)])
    assert got["recall_at_k"] == pytest.approx(expected)
    assert 0.1 < got["recall_at_k"] < 0.95
    more = recall(build(pool, factory="IVF16,Flat", probes=16), pool, queries)
    assert more["recall_at_k"] == 1.0


def test_recall_does_not_depend_on_part_sizes(tmp_path, pool, queries):
    parts = write_parts(tmp_path / "other", ids(), vectors(), 17)
    other_queries = write_parts(
        tmp_path / "other-queries", [f"q{number}" for number in range(80)], vectors(80, seed=7), 80
    )
    assert recall(build(pool, factory="IVF16,SQ8"), pool, queries) == recall(
        build(parts, factory="IVF16,SQ8"), parts, other_queries
    )


def test_equal_images_may_replace_each_other(tmp_path, queries):
    doubled = np.repeat(vectors(20), 10, axis=0)
    parts = write_parts(tmp_path / "pool", ids(200), doubled, 64)
    assert recall(build(parts), parts, queries, k=5)["recall_at_k"] == 1.0


def test_more_neighbours_than_rows(tmp_path, queries):
    parts = write_parts(tmp_path / "pool", ids(4), vectors(4), 3)
    assert recall(build(parts), parts, queries)["k"] == 4


def test_probes_are_written_into_the_index(pool, tmp_path):
    for probes, expected in ((None, 2), (5, 5), (500, 64)):
        built = build(pool, tmp_path / "x.faiss", factory="IVF64,Flat", probes=probes)
        read = faiss.read_index(str(tmp_path / "x.faiss"))
        assert faiss.extract_index_ivf(read).nprobe == index.describe(built)["probes"] == expected


def test_description(pool):
    built = build(pool, excluded=["p1"])
    assert index.describe(built) == {
        "factory": "Flat",
        "bytes": built.path.stat().st_size,
        "metric": "inner product of unit vectors",
        "dim": DIM,
        "rows": ROWS - 1,
        "probes": None,
    }


@pytest.mark.parametrize("factory", ["Flat", "IVF8,SQ8"])
def test_the_file_is_memory_mapped_for_search(pool, factory):
    """Rows that change in the file change in the index, so they were not read into memory."""
    built = build(pool, factory=factory, probes=8 if factory != "Flat" else None)
    query_vectors = vectors(5, seed=9)
    before = built.index.search(query_vectors, 3)[0]
    with built.path.open("r+b") as stream:
        stream.seek(-8 * ROWS, 2)  # a half of all codes and numbers, or a quarter of the vectors
        stream.write(bytes(8 * ROWS))
    assert not np.array_equal(built.index.search(query_vectors, 3)[0], before)


def test_auto_depends_on_the_rows_of_the_pool(pool, monkeypatch):
    assert index.describe(build(pool, factory="auto"))["factory"] == "Flat"
    table = ((ROWS - 1, factory_string.Choice("Flat", None)), (None, factory_string.Choice("IVF16,SQ8", 5)))
    monkeypatch.setattr(factory_string, "BY_SIZE", table)
    described = index.describe(build(pool, factory="auto"))
    assert (described["factory"], described["probes"]) == ("IVF16,SQ8", 5)
    assert index.describe(build(pool, factory="auto", probes=2))["probes"] == 2
    assert index.describe(build(pool, factory="Flat"))["factory"] == "Flat"


def test_the_table_of_sizes_is_sorted_and_described_in_the_config() -> None:
    limits = [limit for limit, _ in factory_string.BY_SIZE]
    assert limits[:-1] == sorted(limits[:-1]) and limits[-1] is None
    described = Index.model_fields["factory"].description or ""
    for limit, (factory, probes) in factory_string.BY_SIZE:
        faiss.index_factory(7, factory, faiss.METRIC_INNER_PRODUCT)
        assert f"`{factory}`" in described and (limit is None or f"{limit:,}" in described)
        assert probes is None or str(probes) in described
        assert factory_string.for_rows(limit or 10**9).factory == factory


def test_training_rows_are_bounded(pool, monkeypatch):
    sampled = []
    sample = index.embedding_tables.sample

    def counted(paths: Any, **options: Any) -> Any:
        names, values = sample(paths, **options)
        sampled.append(names)
        return names, values

    monkeypatch.setattr(index.embedding_tables, "sample", counted)
    build(pool, factory="IVF4,Flat", train_rows=100, excluded=["p1"])
    assert len(sampled[0]) == 100 and "p1" not in sampled[0]
    build(pool, factory="Flat", train_rows=100)
    assert len(sampled) == 1  # nothing to train


def test_a_gpu_trains_the_lists_only_where_faiss_has_one(pool, monkeypatch):
    """The CPU wheel has no GPU code, so the move to the GPU is replaced by a function that records it."""
    moved = []

    def move(flat: Any) -> Any:
        moved.append(flat)
        return flat

    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", move, raising=False)
    expected = build(pool, factory="IVF8,Flat")
    assert not moved
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    built = build(pool, factory="IVF8,Flat")
    assert len(moved) == 1 and faiss.extract_index_ivf(built.index).clustering_index is None
    query_vectors = vectors(5, seed=9)
    assert np.array_equal(built.index.search(query_vectors, 3)[1], expected.index.search(query_vectors, 3)[1])
    build(pool, factory="Flat")
    assert len(moved) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factory": "Nope"}, "index.factory: FAISS cannot build 'Nope' for 8 dimensions .*could not parse"),
        ({"factory": "PQ3"}, r"index.factory: FAISS cannot build 'PQ3' for 8 dimensions \(The dimension"),
        ({"factory": "IVF500,Flat"}, "'IVF500,Flat' has 500 lists, but there are 400 rows"),
        ({"factory": "PQ4", "train_rows": 20}, "index.factory: 'PQ4' cannot be trained on 20 rows"),
        ({"probes": 3}, "index.probes: 3, but index 'Flat' has no inverted lists"),
        ({"excluded": ids()}, r"index: no rows in 5 parts of the pool \(400 are excluded\)"),
    ],
)
def test_an_index_that_cannot_be_built_is_an_error_of_the_config(pool, changes, message):
    with pytest.raises(InputError, match=message):
        build(pool, **changes)


def test_a_zero_embedding_is_named(tmp_path):
    values = vectors(5)
    values[2] = 0
    with pytest.raises(InputError, match="embedding of 'p2' is zero"):
        build([write_embeddings(tmp_path / "a.parquet", ids(5), values)])


@pytest.mark.parametrize("tuned", [False, True])
def test_the_script_writes_index_ids_and_report(run_script, tmp_path, pool, queries, tuned):
    heads.save(tmp_path / "linear.safetensors", random_heads(), {})
    tables.write(
        tmp_path / "excluded.parquet",
        "excluded",
        [{"image_id": "p9", "reason": "exemplar", "exemplar_id": "x"}],
    )
    out = {name: str(tmp_path / "out" / name) for name in ("faiss", "ids", "report")}
    run_script(
        "index",
        input={
            "pool": [str(path) for path in pool],
            "queries": [str(path) for path in queries],
            "excluded": str(tmp_path / "excluded.parquet"),
            "mapper": [str(tmp_path / "linear.safetensors")] if tuned else [],
        },
        output=out,
        params={
            "settings": {"factory": "IVF16,SQ8", "probes": None, "train_rows": 300},
            "check": {"count": 20, "k": 5},
            "seed": 1,
            "code": "x",
        },
        wildcards={"encoder": "e", "mapper": "linear" if tuned else "untuned"},
    )
    report = json.loads(Path(out["report"]).read_text())
    assert 0 < report.pop("recall_at_k") < 1
    assert report == {
        "encoder": "e",
        "mapper": "linear" if tuned else "untuned",
        "factory": "IVF16,SQ8",
        "metric": "inner product of unit vectors",
        "dim": DIM,
        "rows": 399,
        "excluded": 1,
        "probes": 1,
        "k": 5,
        "queries": 20,
        "bytes": Path(out["faiss"]).stat().st_size,
    }
    rows = tables.read(Path(out["ids"]), "index_ids")
    assert rows["row"].to_pylist() == list(range(399))
    read = faiss.read_index(out["faiss"])
    both = random_heads() if tuned else UNTUNED
    best = read.search(both.real(vectors()[50:51]), 1)[1][0, 0]
    assert rows["image_id"][int(best)].as_py() == "p50"
