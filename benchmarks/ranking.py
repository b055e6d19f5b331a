"""Measure time and memory of exact ranks: the published way, ours, the matrix product, FAISS Flat.

    OMP_NUM_THREADS=2 python benchmarks/ranking.py --pools 20000 200000 1000000 --dim 512 --queries 1024

Random unit vectors in the layout of the published benchmark, one exemplar per query; one thread unless
OMP_NUM_THREADS is set. Each method runs in a separate process, so that its peak memory is known. Data is in
memory before the clock starts, except for ours, which streams its file within the measured time. The methods:

    published      for each query concatenate pool and exemplar, multiply, sort everything, in PyTorch; the
                   protocol of PeterWang512/GenDataAttribution, reimplemented from its description
    ours           ranks and ties from the pass of `abc evaluate` over the pool
    ours, all      ranks, ties, the top 100 and a histogram of the rest: the workflow's pass
    product        queries times pool in float32, results discarded: an upper bound for any exact method
    FAISS Flat     only the 100 nearest: no rank beyond them

Output: milliseconds per query (median of the repeats), peak resident memory, the ratio to the published way, and the
fraction of the product's speed. `--enforce` exits with status 1 if a limit is missed at the largest pool. Ours, all
reads its file once for 4,096 queries; with fewer, reading has a larger share. Only a temporary folder is written to.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

GENERATED = 65536  # rows made at once
TOP, GIGABYTES = 100, 1.5
LIMITS = {
    "ours": (80.0, 0.7),
    "ours, all": (100.0, 0.65),
}  # times faster than published, fraction of the product
COLUMNS = ("ms a query", "peak MB", "times", "of product")


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run all methods at all sizes; prints tables and returns a row for each method and size."""
    options = _options(arguments)
    if options.method:
        print(json.dumps(_run(options.method, Path(options.folder), options)))
        return []
    rows: list[dict[str, Any]] = []
    for pool in options.pools:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            _generate(Path(folder), pool, options)
            rows += _compare(pool, Path(folder), options)
    met = _limits(rows[-len(METHODS) :])
    if options.enforce and not met:
        raise SystemExit(1)
    return rows


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pools", type=int, nargs="+", default=[5000, 20000, 80000], help="distractors")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--published", type=int, default=8, help="queries given to the published way")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where temporary folders are made")
    parser.add_argument("--enforce", action="store_true", help="status 1 where a limit is missed")
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _compare(pool: int, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    settings = ["--queries", options.queries, "--published", options.published, "--repeats", options.repeats]
    rows = []
    for method in METHODS:
        command = [sys.executable, __file__, "--folder", folder, "--method", method, *settings]
        done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
        rows.append({"pool": pool, "method": method} | json.loads(done.stdout))
    _check(rows)
    by_method = {row["method"]: row for row in rows}
    print(f"{pool} x {options.dim} pool, {options.queries} queries, {os.environ['OMP_NUM_THREADS']} threads")
    print(f"  {'':12}" + "".join(f"{name:>12}" for name in COLUMNS))
    for row in rows:
        row["times"] = by_method["published"]["ms"] / row["ms"]
        row["fraction"] = by_method["product"]["ms"] / row["ms"]
        values = f"{row['ms']:12.3f}{row['peak_mb']:12.0f}{row['times']:12.1f}{row['fraction']:12.2f}"
        print(f"  {row['method']:12}{values}", flush=True)
    return rows


def _check(rows: list[dict[str, Any]]) -> None:
    """All must find the same ranks, or the times mean nothing; float32 swaps near ties."""
    published, *others = (row.pop("ranks") for row in rows)
    for row, ranks in zip(rows[1:], others, strict=True):
        if ranks is not None and max(abs(a - b) for a, b in zip(published, ranks, strict=False)) > 3:
            raise SystemExit(
                f"ranks of {row['method']!r} differ from the published ones by more than near ties"
            )


def _limits(rows: list[dict[str, Any]]) -> bool:
    all_met = True
    for row in rows:
        if row["method"] not in LIMITS:
            continue
        times, fraction = LIMITS[row["method"]]
        for met, words in (
            (row["times"] >= times, f"{row['times']:.0f} times faster than published, at least {times:.0f}"),
            (
                row["fraction"] >= fraction,
                f"{row['fraction']:.2f} of the product's speed, at least {fraction}",
            ),
            (row["peak_mb"] <= 1000 * GIGABYTES, f"{row['peak_mb']:.0f} MB, at most {1000 * GIGABYTES:.0f}"),
        ):
            print(f"{'met   ' if met else 'MISSED'} {row['method']}: {words}")
            all_met = all_met and met
    return all_met


def _generate(folder: Path, pool: int, options: argparse.Namespace) -> None:
    """Write pool and test features in the released layout."""
    import torch

    torch.save({"feats": torch.from_numpy(_unit(options.seed, pool, options.dim))}, folder / "pool.pth")
    queries, exemplars = (_unit(options.seed + 1 + i, options.queries, options.dim) for i in range(2))
    exemplars += 0.15 * queries  # some signal
    exemplars /= np.linalg.norm(exemplars, axis=1, keepdims=True)
    content = {
        "exemplar_paths": [f"{i}.png" for i in range(options.queries)],
        "exemplar_chunks": [(i, i + 1) for i in range(options.queries)],
        "exemplar_tensors": torch.from_numpy(exemplars),
        "synth_paths": {"gpt": [f"{i}.png" for i in range(options.queries)]},
        "synth_ids": {"gpt": list(range(options.queries))},
        "synth_tensors": {"gpt": torch.from_numpy(queries)},
    }
    torch.save(content, folder / "test.pth")


def _unit(seed: int, rows: int, dim: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    vectors = np.empty((rows, dim), np.float32)
    for start in range(0, rows, GENERATED):
        some = vectors[start : start + GENERATED]
        some[:] = rng.standard_normal(some.shape, np.float32)
        some /= np.linalg.norm(some, axis=1, keepdims=True)
    return vectors


def _run(method: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One method in this process: milliseconds a query, peak memory, ranks of the exemplars."""
    call, queries = METHODS[method](folder, options)
    times = []
    for _ in range(options.repeats):
        started = time.perf_counter()
        ranks = call()
        times.append(time.perf_counter() - started)
    return {
        "ms": 1000.0 * float(np.median(times)) / queries,
        "peak_mb": _peak(),
        "ranks": None if ranks is None else [float(rank) for rank in ranks[: options.published]],
    }


def _peak() -> float:
    """Largest resident memory of this process in MB; ru_maxrss begins at that of the parent, VmHWM does not."""
    if (status := Path("/proc/self/status")).exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


Method = tuple[Callable[[], Any], int]


def _loaded(folder: Path) -> tuple[Any, Any, Any]:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    test = torch.load(folder / "test.pth", weights_only=True)
    pool = torch.load(folder / "pool.pth", weights_only=True)["feats"]
    return pool, test["synth_tensors"]["gpt"], test["exemplar_tensors"]


def _published(folder: Path, options: argparse.Namespace) -> Method:
    import torch

    pool, queries, exemplars = _loaded(folder)
    limit = min(options.published, options.queries)

    def run() -> list[int]:
        ranks = []
        for query, exemplar in zip(queries[:limit], exemplars[:limit], strict=True):
            order = torch.argsort(torch.cat([pool, exemplar[None]]) @ query, descending=True)
            ranks.append(int((order >= len(pool)).nonzero()[0, 0]) + 1)
        return ranks

    return run, limit


def _ours(folder: Path, options: argparse.Namespace) -> Method:
    import torch  # noqa: F401  the time is that of ranking, not of importing what reads the files

    from attrib_core.abc_benchmark import evaluate, feature_files, test_cases

    def run() -> np.ndarray:
        test = test_cases.read_test(folder / "test.pth")
        found = evaluate.count(feature_files.open_pool(folder / "pool.pth"), test, test.queries[0])
        return 1 + found.above + found.tied / 2

    return run, options.queries


def _ours_all(folder: Path, options: argparse.Namespace) -> Method:
    import pyarrow as pa
    import torch

    from attrib_core.abc_benchmark import feature_files
    from attrib_core.attribution.metrics import per_query
    from attrib_core.attribution.ranking import rank as ranking
    from attrib_core.features.heads import heads
    from attrib_core.storage import tables

    def write(name: str, blocks: Iterable[np.ndarray], dim: int) -> Path:
        path, start = folder / f"{name}.parquet", 0
        with tables.writer(path, tables.embedding_schema(dim)) as sink:
            for vectors in blocks:
                ids = [f"{name}{start + i:08d}" for i in range(len(vectors))]
                sink.write(tables.embedding_table(ids, vectors))
                start += len(vectors)
        return path

    test = torch.load(folder / "test.pth", weights_only=True)
    pool = feature_files.open_pool(folder / "pool.pth")
    names = [f"s{i}" for i in range(options.queries)]
    labels = {"condition": ["customized"] * len(names), "prompt_kind": ["scene"] * len(names)}
    ids = {kind: [f"{kind}{i:08d}" for i in range(options.queries)] for kind in "qe"}
    files: dict[str, Any] = {
        "pool": [write("p", (block.vectors for block in pool.blocks(GENERATED)), pool.dim)],
        "queries": [write("q", [test["synth_tensors"]["gpt"].numpy()], pool.dim)],
        "exemplars": write("e", [test["exemplar_tensors"].numpy()], pool.dim),
        "excluded": pa.table({"image_id": pa.array([], pa.string())}),
        "query_rows": pa.table({"query_id": ids["q"], "exemplar_set": names, **labels}),
        "exemplar_rows": pa.table({"exemplar_id": ids["e"], "exemplar_set": names}),
    }

    def run() -> np.ndarray:
        groups = ranking.rank(encoder="random", mapper="untuned", heads=heads.load(None), top_k=TOP, **files)
        ranks = pa.concat_tables([group.ranks for group in groups])
        return per_query.positions(ranks).position

    return run, options.queries


def _product(folder: Path, options: argparse.Namespace) -> Method:
    pool, queries, _ = (tensor.numpy() for tensor in _loaded(folder))

    def run() -> None:
        for start in range(0, len(pool), 32768):
            for first in range(0, len(queries), 1024):
                queries[first : first + 1024] @ pool[start : start + 32768].T

    return run, options.queries


def _faiss(folder: Path, options: argparse.Namespace) -> Method:
    import faiss

    faiss.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    pool, queries, _ = (tensor.numpy() for tensor in _loaded(folder))
    index = faiss.IndexFlatIP(pool.shape[1])
    index.add(pool)

    def run() -> None:
        index.search(queries, TOP)

    return run, options.queries


METHODS: dict[str, Callable[[Path, argparse.Namespace], Method]] = {
    "published": _published,
    "ours": _ours,
    "ours, all": _ours_all,
    "product": _product,
    "FAISS Flat": _faiss,
}


if __name__ == "__main__":
    main()
