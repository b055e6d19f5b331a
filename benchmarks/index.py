"""Compare FAISS indices with exact search: build time, size, time per query, recall.

    OMP_NUM_THREADS=2 python benchmarks/index.py --pools 20000 200000 1000000 --dim 512

For each pool size, the factory strings of `--factories`, or by default that of `index.factory: auto` and Flat.
An index is built from parts, and searched in a separate process that maps its file: "own MB" is private memory
of that process, "mapped MB" the part of the file in memory after the queries, which the system may drop at any
time. "build MB" is the peak memory of a process that builds it, libraries included. Vectors are random directions
around random centres, one centre per hundred rows, so that there are real neighbours; all kinds of index have a
higher recall on them than on isotropic noise, and another than on features of images. One thread unless
OMP_NUM_THREADS is set. The last column is the share of the true 10 nearest that the index returns, as measured in
the workflow. Nothing is written outside a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
sys.path.insert(0, str(Path(__file__).parent.parent))

import faiss
import numpy as np
import pyarrow.parquet as pq

from attrib_core.features.heads import heads
from attrib_core.features.index import build, factory_string
from attrib_core.storage import tables, vector_columns

PART = 50000
ROWS_OF_A_CENTRE = 100
TRAIN_ROWS = 262144
SEARCH = """
import json, sys, time
import faiss, numpy
from attrib_core.features.index import build
def resident():
    lines = dict(line.split(":")[:2] for line in open("/proc/self/status"))
    return [int(lines[name].split()[0]) / 1000 for name in ("RssAnon", "RssFile")]
path, queries, k, probes = sys.argv[1], numpy.load(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
faiss.omp_set_num_threads(int(sys.argv[5]))
numpy.zeros((512, 512), numpy.float32) @ numpy.zeros((512, 512), numpy.float32)
before = resident()
opened = build.open_index(path)
if probes is not None:
    faiss.extract_index_ivf(opened).nprobe = probes
opened.search(queries, k)
started = time.perf_counter()
opened.search(queries, k)
seconds = time.perf_counter() - started
own, mapped = (after - was for after, was in zip(resident(), before))
print(json.dumps({"ms": 1000 * seconds / len(queries), "own": own, "mapped": mapped}))
"""
BUILD = """
import json, resource, sys, time
from pathlib import Path
import faiss
from attrib_core.features.heads import heads
from attrib_core.features.index import build
parts, path, factory, rows, seed, threads = json.loads(sys.argv[1])
faiss.omp_set_num_threads(threads)
started = time.perf_counter()
build.build(
    [Path(part) for part in parts], Path(path), heads=heads.load(None), excluded=(), factory=factory,
    probes=None, train_rows=rows, seed=seed,
)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
print(json.dumps({"seconds": seconds, "peak": peak}))
"""


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Build and measure all indices; prints a table and returns its rows."""
    options = _options(arguments)
    faiss.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rows = []
    head = ("build s", "build MB", "size MB", "ms a query", "own MB", "mapped MB", f"true {options.k}")
    for pool in options.pools:
        print(f"{pool} x {options.dim} pool, {options.queries} queries")
        print(f"  {'':14}{'probes':>8}" + "".join(f"{name:>12}" for name in head))
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            parts, queries = _write(Path(folder), pool, options)
            for factory in options.factories or dict.fromkeys(
                (factory_string.for_rows(pool).factory, "Flat")
            ):
                for row in _measure(factory, parts, queries, Path(folder), options):
                    rows.append({"pool": pool, "factory": factory} | row)
                    values = (
                        f"{row['seconds']:12.1f}{row['peak']:12.0f}{row['megabytes']:12.1f}{row['ms']:12.3f}"
                    )
                    values += f"{row['own']:12.1f}{row['mapped']:12.1f}{row['recall']:12.3f}"
                    print(f"  {factory:14}{row['probes'] or '-':>8}{values}", flush=True)
    return rows


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pools", type=int, nargs="+", default=[20000], help="rows")
    parser.add_argument("--factories", nargs="+", help="FAISS factory strings; default: by size")
    parser.add_argument("--probes", type=int, nargs="+", help="inverted lists searched; default: 1 in 32")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where temporary folders are made")
    return parser.parse_args(arguments)


def _measure(
    factory: str, parts: list[Path], queries: list[Path], folder: Path, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    plain, threads = heads.load(None), int(os.environ["OMP_NUM_THREADS"])
    path, queries_path = folder / "index.faiss", folder / "queries.npy"
    query_rows = [vector_columns.vectors(table.column("embedding")) for table in map(pq.read_table, queries)]
    np.save(queries_path, np.concatenate(query_rows))
    made = _apart(
        BUILD, json.dumps([[*map(str, parts)], str(path), factory, TRAIN_ROWS, options.seed, threads])
    )
    names = _names(parts)
    built = build.PoolIndex(build.open_index(path), names, factory, path)
    lists = faiss.try_extract_index_ivf(built.index)
    probes = (
        factory_string.for_rows(len(names)).probes
        if factory == factory_string.for_rows(len(names)).factory
        else None
    )
    for number in (options.probes or [probes or lists.nprobe]) if lists is not None else [None]:
        searched = _apart(
            SEARCH, str(path), str(queries_path), str(options.k), json.dumps(number), str(threads)
        )
        if number is not None:
            lists.nprobe = number
        found = build.recall_against_exact(
            built, parts, queries, heads=plain, excluded=(), count=options.queries, k=options.k, seed=options.seed
        )  # fmt: skip
        size = {"megabytes": path.stat().st_size / 1e6}
        yield {"probes": number} | made | size | searched | {"recall": found["recall_at_k"]}


def _apart(code: str, *arguments: str) -> dict[str, float]:
    """Run code in a process of its own, so that its memory is its own; what it printed last, read as JSON."""
    paths = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _names(parts: list[Path]) -> list[str]:
    return [name for part in parts for name in pq.read_table(part, columns=["image_id"])[0].to_pylist()]


def _write(folder: Path, rows: int, options: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    def part(name: str, start: int, vectors: np.ndarray) -> Path:
        path = folder / f"{name}-{start}.parquet"
        with tables.writer(path, tables.embedding_schema(options.dim)) as sink:
            sink.write(tables.embedding_table([f"{name}{start + i}" for i in range(len(vectors))], vectors))
        return path

    centres = np.random.default_rng([options.seed, 7]).standard_normal(
        (max(1, rows // ROWS_OF_A_CENTRE), options.dim), np.float32
    )
    blocks = _blocks(options.seed, rows, centres)
    queries = _blocks(options.seed + 1, options.queries, centres)
    return [part("p", *block) for block in blocks], [part("q", *block) for block in queries]


def _blocks(seed: int, rows: int, centres: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Unit vectors around centres, which pool and queries share."""
    rng = np.random.default_rng(seed)
    for start in range(0, rows, PART):
        count = min(PART, rows - start)
        vectors = centres[rng.integers(len(centres), size=count)]
        vectors += rng.standard_normal(vectors.shape, np.float32)
        yield start, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
