"""Time of exact ranks: the published loop, ours, the bare matrix product, and FAISS Flat.

    python benchmarks/ranking.py --pool 1000000 --dim 512 --queries 1024

Random unit vectors, one thread unless OMP_NUM_THREADS says otherwise, one exemplar a query. Prints
milliseconds a query, the median of the repeats, and how many times faster than the published loop.
The published evaluation (PeterWang512/GenDataAttribution) joins pool and exemplars, multiplies and
sorts everything for each query anew, in PyTorch; here it is written anew from that description, in
PyTorch and, since libraries sort at different speed, in NumPy. FAISS gives the 100 nearest alone: no
rank beyond them, and no histogram. Ours reads the pool from Parquet and yields ranks, ties, the top
100 and the histogram of the rest; what it spends on reading is shared by all queries, so few of them
show it at its worst. Nothing is written outside a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pyarrow as pa

from attrib_core import heads, metrics, ranking, tables
from attrib_core.ranking import exact

GENERATED = 65536  # rows made at once
TOP = 100


def main(arguments: list[str] | None = None) -> list[tuple[str, float]]:
    """Run all methods; prints a table and returns (method, milliseconds a query)."""
    options = _options(arguments)
    pool, queries, exemplars = (
        _unit(options.seed + i, rows, options.dim)
        for i, rows in enumerate((options.pool, options.queries, options.queries))
    )
    exemplars += 0.15 * queries  # some signal
    exemplars /= np.linalg.norm(exemplars, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        files = _files(Path(folder), pool, queries, exemplars, options.part)
        published = min(options.published, options.queries)
        methods: list[tuple[str, int, Callable[[], object]]] = [
            ("published loop, PyTorch", published, _published_torch(pool, queries[:published], exemplars)),
            ("published loop, NumPy", published, lambda: _published(pool, queries[:published], exemplars)),
            ("ours", options.queries, lambda: _ours(files, options)),
            ("matrix product, float32", options.queries, lambda: _product(pool, queries)),
            ("matrix product, float64", options.queries, lambda: _exact_product(pool, queries)),
        ]
        if options.faiss:
            methods.append(("FAISS Flat, 100 nearest", options.queries, _faiss(pool, queries)))
        rows = [(name, _milliseconds(call, options.repeats) / count) for name, count, call in methods]
        _check(_ours(files, options), _published(pool, queries[:published], exemplars))
    print(f"{options.pool} x {options.dim} pool, {options.queries} queries, {options.repeats} repeats")
    print(f"{'method':28}{'ms a query':>12}{'times':>8}")
    for name, value in rows:
        print(f"{name:28}{value:12.3f}{rows[0][1] / value:8.1f}")
    return rows


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=int, default=20000, help="distractors")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=512)
    parser.add_argument("--published", type=int, default=8, help="queries given to the published loop")
    parser.add_argument("--part", type=int, default=100000, help="rows of a part of the pool")
    parser.add_argument("--query-block", type=int, default=512)
    parser.add_argument("--pool-block", type=int, default=16384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-faiss", dest="faiss", action="store_false")
    return parser.parse_args(arguments)


def _unit(seed: int, rows: int, dim: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    vectors = np.empty((rows, dim), np.float32)
    for start in range(0, rows, GENERATED):
        some = vectors[start : start + GENERATED]
        some[:] = rng.standard_normal(some.shape, np.float32)
        some /= np.linalg.norm(some, axis=1, keepdims=True)
    return vectors


def _files(
    folder: Path, pool: np.ndarray, queries: np.ndarray, exemplars: np.ndarray, part: int
) -> dict[str, object]:
    def write(name: str, start: int, vectors: np.ndarray) -> Path:
        path = folder / f"{name}-{start}.parquet"
        with tables.writer(path, tables.embedding_schema(vectors.shape[1])) as sink:
            sink.write(tables.embedding_table([f"{name}{start + i}" for i in range(len(vectors))], vectors))
        return path

    names = [f"s{i}" for i in range(len(queries))]
    query_ids = [f"q{i}" for i in range(len(queries))]
    labels = {"condition": ["customized"] * len(names), "prompt_kind": ["scene"] * len(names)}
    return {
        "pool": [write("p", start, pool[start : start + part]) for start in range(0, len(pool), part)],
        "queries": [write("q", 0, queries)],
        "exemplars": write("e", 0, exemplars),
        "excluded": pa.table({"image_id": pa.array([], pa.string())}),
        "query_rows": pa.table({"query_id": query_ids, "exemplar_set": names, **labels}),
        "exemplar_rows": pa.table(
            {"exemplar_id": [f"e{i}" for i in range(len(names))], "exemplar_set": names}
        ),
    }


def _published(pool: np.ndarray, queries: np.ndarray, exemplars: np.ndarray) -> np.ndarray:
    """Rank of each query's exemplar, (queries,)."""
    ranks = []
    for query, exemplar in zip(queries, exemplars, strict=False):
        order = np.argsort(-(np.concatenate([pool, exemplar[None]]) @ query))
        ranks.append(int(np.flatnonzero(order == len(pool))[0]) + 1)
    return np.array(ranks)


def _published_torch(pool: np.ndarray, queries: np.ndarray, exemplars: np.ndarray) -> Callable[[], object]:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    candidates, own = torch.from_numpy(pool), torch.from_numpy(exemplars)

    def run() -> None:
        for query, exemplar in zip(torch.from_numpy(queries), own, strict=False):
            order = torch.argsort(torch.cat([candidates, exemplar[None]]) @ query, descending=True)
            (order >= len(candidates)).nonzero()

    return run


def _ours(files: dict[str, object], options: argparse.Namespace) -> pa.Table:
    groups = ranking.rank(
        encoder="random",
        mapper="untuned",
        heads=heads.load(None),
        query_block=options.query_block,
        pool_block=options.pool_block,
        top_k=TOP,
        **files,  # type: ignore[arg-type]
    )
    return pa.concat_tables([group.ranks for group in groups])


def _product(pool: np.ndarray, queries: np.ndarray) -> None:
    for start in range(0, len(pool), 16384):
        for first in range(0, len(queries), 512):
            queries[first : first + 512] @ pool[start : start + 16384].T


def _exact_product(pool: np.ndarray, queries: np.ndarray) -> None:
    """The product alone, of integers in float64."""
    left = exact.fixed_point(queries)
    for start in range(0, len(pool), 16384):
        right = exact.fixed_point(pool[start : start + 16384])
        for first in range(0, len(left), 512):
            exact.similarities(left[first : first + 512], right)


def _faiss(pool: np.ndarray, queries: np.ndarray) -> Callable[[], object]:
    import faiss

    faiss.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    index = faiss.IndexFlatIP(pool.shape[1])
    index.add(pool)
    return lambda: index.search(queries, TOP)


def _milliseconds(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1000.0 * float(np.median(times))


def _check(ours: pa.Table, published: np.ndarray) -> None:
    """Both must agree, or the times mean nothing; float32 swaps near ties."""
    found = metrics.positions(ours.slice(0, len(published))).position
    largest = np.abs(found - published).max()
    print(f"largest difference of a rank between the published loop and ours: {largest:g}")
    if largest > 3:
        raise SystemExit(f"ranks differ by {largest:g}, expected a few near ties at most")


if __name__ == "__main__":
    main()
