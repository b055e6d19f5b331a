"""Build a FAISS index of the pool for retrieval, and measure its recall against exact search.

Headline metrics never use it: a neighbour that the index misses would make recall look better than it is. The index is
built from a stream: memory is that of a block of embeddings, a bounded training sample, a shard of the index (see
`inverted_lists`) and the names of the rows. It is searched from the file, which is memory-mapped.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from attrib_core.common.errors import InputError
from attrib_core.features.embedding import embedding_tables
from attrib_core.features.heads.heads import Heads
from attrib_core.features.index.factory_string import resolve
from attrib_core.features.index.inverted_lists import ShardedIndex
from attrib_core.runtime.progress import progress
from attrib_core.storage import atomic, parquet_files, tables

TOLERANCE = 1e-6
"""Similarities that differ by less count as equal: about the precision of float32 sums of unit vectors."""
LISTS_PER_PROBE = 32
"""Inverted lists for each one that a query visits, by default."""
BLOCK = 8192
"""Rows added at once."""


@dataclass(frozen=True, eq=False)
class PoolIndex:
    """An inner-product index of unit vectors, memory-mapped from its file, and the image_id of each row."""

    index: Any
    ids: list[str]
    factory: str
    path: Path


def build(
    pool: Sequence[Path],
    path: Path,
    *,
    heads: Heads,
    excluded: Collection[str],
    factory: str,
    probes: int | None,
    train_rows: int,
    seed: int,
) -> PoolIndex:
    """Index the mapped pool without the excluded rows, in the order of its parts, and write the index to a file.

    The file is written atomically, for `faiss.read_index`. `factory` is a FAISS factory string, or 'auto', which
    depends on the number of rows, see `factory_string`. An index that needs training is trained on a sample of at most
    `train_rows` rows, which does not depend on part sizes. `probes` is the number of inverted lists that a query
    visits, by default one in 32. Deterministic on one machine with one thread; if FAISS has a GPU, it trains there, and
    some rows may be in other lists.

    Raises InputError for a factory string that FAISS does not know or that does not fit the dimension, too few rows to
    train on, and an empty pool.
    """
    left_out = frozenset(excluded)
    factory, probes = resolve(factory, probes, parquet_files.count_rows(pool))
    sharded: ShardedIndex | None = None
    ids: list[str] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic.writing(path) as temporary,
        tempfile.TemporaryDirectory(
            dir=path.parent, prefix=f".{path.name}.", suffix=f".{os.getpid()}.tmp"
        ) as folder,
    ):
        for names, mapped in _mapped(pool, heads, left_out):
            if sharded is None:
                index = _create_index(factory, mapped.shape[1])
                if not index.is_trained:
                    _train(index, pool, heads, left_out, factory=factory, rows=train_rows, seed=seed)
                _set_probes(index, factory, probes)
                sharded = ShardedIndex(index, Path(folder))
            sharded.add(mapped)
            ids += names
        if sharded is None:
            raise InputError(
                f"index: no rows in {len(pool)} parts of the pool ({len(left_out)} are excluded)"
            )
        sharded.write(temporary)
    return PoolIndex(open_index(path), ids, factory, path)


def open_index(path: Path) -> Any:
    """Open an index file for search; it is memory-mapped, and rows are paged in as they are read."""
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def _set_probes(index: Any, factory: str, probes: int | None) -> None:
    lists = _lists(index)
    if lists is not None:
        lists.nprobe = min(lists.nlist, probes or max(1, lists.nlist // LISTS_PER_PROBE))
    elif probes is not None:
        raise InputError(
            f"index.probes: {probes}, but index {factory!r} has no inverted lists; set it to null"
        )


def _mapped(
    pool: Sequence[Path], heads: Heads, excluded: frozenset[str]
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield names and mapped vectors of the pool in blocks of one size, whatever the part sizes.

    Some index types come out differently if they are built from other blocks.
    """
    names: list[str] = []
    vectors: list[np.ndarray] = []
    for found, values in embedding_tables.stream(pool):
        rows = [row for row, name in enumerate(found) if name not in excluded]
        names += [found[row] for row in rows]
        vectors.append(values[rows])
        while len(names) >= BLOCK:
            joined = np.concatenate(vectors)
            yield names[:BLOCK], heads.real(joined[:BLOCK], ids=names)
            names, vectors = names[BLOCK:], [joined[BLOCK:]]
    if names:
        yield names, heads.real(np.concatenate(vectors), ids=names)


def _create_index(factory: str, dim: int) -> Any:
    try:
        return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise InputError(
            f"index.factory: FAISS cannot build {factory!r} for {dim} dimensions ({_reason(error)});"
            " try 'Flat', 'IVF256,Flat' or 'IVF4096,SQ8'"
        ) from None


def _train(
    index: Any,
    pool: Sequence[Path],
    heads: Heads,
    excluded: frozenset[str],
    *,
    factory: str,
    rows: int,
    seed: int,
) -> None:
    ids, vectors = embedding_tables.sample(pool, count=rows, key=(seed, "index training"), excluded=excluded)
    mapped = heads.real(vectors, ids=ids)
    del vectors  # FAISS copies what it needs
    lists = _lists(index)
    if lists is not None and len(ids) < lists.nlist:
        raise InputError(
            f"index.factory: {factory!r} has {lists.nlist} lists, but there are {len(ids)} rows to train it on;"
            " choose fewer lists, 'Flat', or a larger index.train_rows"
        )
    if lists is not None and faiss.get_num_gpus() > 0:
        assigner = faiss.index_cpu_to_all_gpus(
            faiss.IndexFlatIP(lists.d)
        )  # a Python reference must outlive training
        lists.clustering_index = assigner
    try:
        index.train(mapped)
    except RuntimeError as error:
        raise InputError(
            f"index.factory: {factory!r} cannot be trained on {len(ids)} rows ({_reason(error)})"
        ) from None
    finally:
        if lists is not None:
            lists.clustering_index = None


def _reason(error: RuntimeError) -> str:
    """Return the message of FAISS without the position in its source."""
    return str(error).strip().splitlines()[-1].rpartition(": ")[2].rpartition("failed: ")[2]


def _lists(index: Any) -> Any:
    """Return the part of an index that has inverted lists, or None."""
    return faiss.try_extract_index_ivf(index)


def describe(built: PoolIndex) -> dict[str, Any]:
    """Describe the index as plain values."""
    lists = _lists(built.index)
    return {
        "factory": built.factory,
        "bytes": built.path.stat().st_size,
        "metric": "inner product of unit vectors",
        "dim": built.index.d,
        "rows": built.index.ntotal,
        "probes": None if lists is None else lists.nprobe,
    }


def recall_against_exact(
    built: PoolIndex,
    pool: Sequence[Path],
    queries: Sequence[Path],
    *,
    heads: Heads,
    excluded: Collection[str],
    count: int,
    k: int,
    seed: int,
) -> dict[str, Any]:
    """Compute the share of the true k nearest rows that the index finds, over a random sample of the queries.

    `queries` are parts of embeddings of synthesized images, of which `count` are sampled. The pool is read once more
    and every similarity computed. A returned row is correct if it is as similar as the true k-th within TOLERANCE, so
    equal images may replace each other. If the pool has fewer than k rows, k is their number.
    """
    names, vectors = embedding_tables.sample(queries, count=count, key=(seed, "index queries"))
    mapped_queries = heads.synth(vectors, ids=names)
    k = min(k, len(built.ids))
    _, found = built.index.search(mapped_queries, k)
    best = np.full((len(mapped_queries), k), -np.inf, dtype=np.float32)
    returned = np.full(found.shape, -np.inf, dtype=np.float32)  # a result of -1 (none) keeps -inf
    start = 0
    blocks = -(-len(built.ids) // BLOCK)
    for ids, mapped in progress(
        _mapped(pool, heads, frozenset(excluded)), total=blocks, what="blocks of the pool"
    ):
        similarities = mapped_queries @ mapped.T
        query, rank = np.nonzero((found >= start) & (found < start + len(ids)))
        returned[query, rank] = similarities[query, found[query, rank] - start]
        best = -np.partition(-np.concatenate([best, similarities], axis=1), k - 1, axis=1)[:, :k]
        start += len(ids)
    correct = returned >= best.min(axis=1, keepdims=True) - TOLERANCE
    return {"queries": len(mapped_queries), "k": k, "recall_at_k": float(correct.mean())}


def save_ids(built: PoolIndex, path: Path) -> None:
    """Write the table `index_ids`: the image_id of each row of the index."""
    rows = pa.array(np.arange(len(built.ids)), pa.int64())
    table = pa.Table.from_arrays([rows, pa.array(built.ids, pa.string())], names=["row", "image_id"])
    tables.write(path, "index_ids", table)
