"""FAISS indices against exact search: time to build, size, time a query, agreement.

    OMP_NUM_THREADS=2 python benchmarks/index.py --pools 20000 200000 1000000 --dim 512

For each pool size the factory strings that `--factories` gives, or those below. Vectors are random
directions around random centres, one centre a hundred rows, so that neighbours mean something; all
kinds of index find more in them than in isotropic noise, and other than in features of pictures. One
thread unless OMP_NUM_THREADS says otherwise. Agreement is the share of the true 10 nearest that the
index returns, as the workflow measures it. Nothing is written outside a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
sys.path.insert(0, str(Path(__file__).parent.parent))

import faiss
import numpy as np
import pyarrow.parquet as pq

from attrib_core import heads, index, tables

PART = 50000
ROWS_OF_A_CENTRE = 100
TRAIN_ROWS = 262144
DEFAULTS = ((100000, ("Flat",)), (10**9, ("IVF4096,SQ8", "Flat")))
"""Factory strings up to so many rows; the first of each is the recommended one."""


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Build and measure all indices; prints a table and returns its rows."""
    options = _options(arguments)
    faiss.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rows = []
    head = ("build s", "size MB", "ms a query", f"true {options.k}")
    for pool in options.pools:
        print(f"{pool} x {options.dim} pool, {options.queries} queries")
        print(f"  {'':14}{'probes':>8}" + "".join(f"{name:>12}" for name in head))
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            parts, queries = _write(Path(folder), pool, options)
            for factory in options.factories or _defaults(pool):
                for row in _measure(factory, parts, queries, Path(folder), options):
                    rows.append({"pool": pool, "factory": factory} | row)
                    values = f"{row['seconds']:12.1f}{row['megabytes']:12.1f}{row['ms']:12.3f}{row['recall']:12.3f}"
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


def _defaults(rows: int) -> tuple[str, ...]:
    return next(factories for most, factories in DEFAULTS if rows <= most)


def _measure(
    factory: str, parts: list[Path], queries: list[Path], folder: Path, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    plain = heads.load(None)
    started = time.perf_counter()
    built = index.build(
        parts, heads=plain, excluded=(), factory=factory, probes=None, train_rows=TRAIN_ROWS, seed=options.seed
    )  # fmt: skip
    seconds = time.perf_counter() - started
    path = folder / "index.faiss"
    faiss.write_index(built.index, str(path))
    lists = faiss.try_extract_index_ivf(built.index)
    asked = np.concatenate(
        [tables.vectors(table.column("embedding")) for table in map(pq.read_table, queries)]
    )
    for probes in (options.probes or [lists.nprobe]) if lists is not None else [None]:
        if probes is not None:
            lists.nprobe = probes
        built.index.search(asked[:8], options.k)
        started = time.perf_counter()
        built.index.search(asked, options.k)
        ms = 1000 * (time.perf_counter() - started) / len(asked)
        found = index.recall_against_exact(
            built, parts, queries, heads=plain, excluded=(), count=options.queries, k=options.k, seed=options.seed
        )  # fmt: skip
        yield {
            "probes": probes,
            "seconds": seconds,
            "megabytes": path.stat().st_size / 1e6,
            "ms": ms,
            "recall": found["recall_at_k"],
        }


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
