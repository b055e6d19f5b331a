"""A FAISS index of the pool for retrieval, held against exact search.

Headline metrics never use it: a neighbour that an index misses would make recall look
better than it is. Built in streams: memory is a block of embeddings, a bounded sample for
training, a shard of the index (`lists`) and the names of the rows. Searched from the file,
which is mapped into memory and not read.
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
import pyarrow.parquet as pq

from attrib_core.common.errors import InputError
from attrib_core.features.embedding import embedding_tables
from attrib_core.features.heads.heads import Heads
from attrib_core.features.index.factory_string import AUTO, BY_SIZE, Choice, for_rows, resolve
from attrib_core.features.index.inverted_lists import Growing
from attrib_core.runtime.progress import progress
from attrib_core.storage import atomic, tables

__all__ = [
    "AUTO", "BY_SIZE", "Built", "Choice", "build", "describe", "for_rows", "opened", "recall_against_exact",
    "save_ids",
]  # fmt: skip

NEAR = 1e-6
"""Similarities closer than this count as equal: about what float32 sums of unit vectors resolve."""
LISTS_PER_PROBE = 32
BLOCK = 8192
"""Rows added at once."""


@dataclass(frozen=True, eq=False)
class Built:
    """An index of unit vectors by inner product, mapped from its file, and the image_id of each of its rows."""

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
) -> Built:
    """Index the mapped pool, without the excluded rows, in the order of the parts, in a file.

    The file is written for `faiss.read_index`, whole or not at all. `factory` is a FAISS factory
    string, or 'auto': by the rows of the pool's parts, see `choice`. Where the index must be trained,
    it is trained on at most `train_rows` rows of a sample that does not depend on the cut of the
    parts. `probes` is how many inverted lists a query visits, by default one in 32. Deterministic on
    one machine with one thread; where FAISS has a GPU, it trains there, and the lists of such an
    index may differ in some rows.

    Raises InputError for a factory string that FAISS does not know or that does not fit the
    dimension, too few rows to train on, and an empty pool.
    """
    left_out = frozenset(excluded)
    factory, probes = resolve(factory, probes, sum(pq.read_metadata(part).num_rows for part in pool))
    growing: Growing | None = None
    ids: list[str] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic.writing(path) as temporary,
        tempfile.TemporaryDirectory(
            dir=path.parent, prefix=f".{path.name}.", suffix=f".{os.getpid()}.tmp"
        ) as folder,
    ):
        for names, mapped in _mapped(pool, heads, left_out):
            if growing is None:
                index = _empty(factory, mapped.shape[1])
                if not index.is_trained:
                    _train(index, pool, heads, left_out, factory=factory, rows=train_rows, seed=seed)
                _set_probes(index, factory, probes)
                growing = Growing(index, Path(folder))
            growing.add(mapped)
            ids += names
        if growing is None:
            raise InputError(
                f"index: no rows in {len(pool)} parts of the pool ({len(left_out)} are excluded)"
            )
        growing.write(temporary)
    return Built(opened(path), ids, factory, path)


def opened(path: Path) -> Any:
    """An index in a file, for search: rows are mapped and paged in as they are looked at."""
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
    """Names and mapped vectors of the pool's distractors, in blocks that do not follow the cut of the
    parts: some kinds of index are built differently from other blocks."""
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


def _empty(factory: str, dim: int) -> Any:
    try:
        return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise InputError(
            f"index.factory: FAISS cannot make {factory!r} for {dim} dimensions ({_reason(error)});"
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
    del vectors  # FAISS makes copies of its own
    lists = _lists(index)
    if lists is not None and len(ids) < lists.nlist:
        raise InputError(
            f"index.factory: {factory!r} has {lists.nlist} lists, but there are {len(ids)} rows to train it on;"
            " choose fewer lists, 'Flat', or a larger index.train_rows"
        )
    if lists is not None and faiss.get_num_gpus() > 0:
        assigner = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(lists.d))  # the name must outlive training
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
    """FAISS's own words, without the place in its source."""
    return str(error).strip().splitlines()[-1].rpartition(": ")[2].rpartition("failed: ")[2]


def _lists(index: Any) -> Any:
    """The part of an index that has inverted lists, None where there is none."""
    return faiss.try_extract_index_ivf(index)


def describe(built: Built) -> dict[str, Any]:
    """What the index is, as plain values."""
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
    built: Built,
    pool: Sequence[Path],
    queries: Sequence[Path],
    *,
    heads: Heads,
    excluded: Collection[str],
    count: int,
    k: int,
    seed: int,
) -> dict[str, Any]:
    """Share of the true k nearest rows that the index finds, over a sample of the queries.

    `queries` are parts of embeddings of synthesized images; a seeded sample of `count` is
    asked. The pool is read once more and every similarity computed; a row that the index
    returns is right if it is as similar as the true k-th (within 1e-6, so that equal images
    may stand for each other). Fewer than k rows in the pool: all of them.
    """
    names, vectors = embedding_tables.sample(queries, count=count, key=(seed, "index queries"))
    asked = heads.synth(vectors, ids=names)
    k = min(k, len(built.ids))
    _, found = built.index.search(asked, k)
    best = np.full((len(asked), k), -np.inf, dtype=np.float32)
    returned = np.full(found.shape, -np.inf, dtype=np.float32)  # -1, nothing found, stays -inf
    start = 0
    blocks = -(-len(built.ids) // BLOCK)
    for ids, mapped in progress(
        _mapped(pool, heads, frozenset(excluded)), total=blocks, what="blocks of the pool"
    ):
        similar = asked @ mapped.T
        query, place = np.nonzero((found >= start) & (found < start + len(ids)))
        returned[query, place] = similar[query, found[query, place] - start]
        best = -np.partition(-np.concatenate([best, similar], axis=1), k - 1, axis=1)[:, :k]
        start += len(ids)
    right = returned >= best.min(axis=1, keepdims=True) - NEAR
    return {"queries": len(asked), "k": k, "recall_at_k": float(right.mean())}


def save_ids(built: Built, path: Path) -> None:
    """Write the table `index_ids`: which image each row of the index is."""
    rows = pa.array(np.arange(len(built.ids)), pa.int64())
    table = pa.Table.from_arrays([rows, pa.array(built.ids, pa.string())], names=["row", "image_id"])
    tables.write(path, "index_ids", table)
