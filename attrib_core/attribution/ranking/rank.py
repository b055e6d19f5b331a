"""Rank exemplars exactly in a pool of any size, without sorting it.

The candidates of a query are the pool without its excluded rows, and the exemplars of its own set. The rank
of an exemplar follows from counts: distractors above it, distractors tied with it, and siblings (other
exemplars of its set) above and tied. Counts add up over blocks, so the pool is read once for each group of
queries, in constant memory. In the same pass the most similar distractors are kept by name and all others
are counted in a histogram, from which calibration computes its sums over the whole pool. How ties count is
decided later, in `metrics.per_query`.

Results do not depend on block, group or part sizes, nor on the order of the pool: see `mixed_precision`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from attrib_core.attribution.ranking import embedding_stream, fixed_point
from attrib_core.attribution.ranking.accumulator import RankAccumulator
from attrib_core.attribution.ranking.distractors import LeftOut, count_distractors
from attrib_core.attribution.ranking.matmul import NumpyProducts, Products
from attrib_core.common.errors import InputError
from attrib_core.features.heads.heads import Heads
from attrib_core.storage import tables

QUERY_COLUMNS = ("query_id", "exemplar_set", "condition", "prompt_kind")
EXEMPLAR_COLUMNS = ("exemplar_id", "exemplar_set")
MAX_BINS = 1 << 20


class Ranked(NamedTuple):
    """Rows of the tables `ranks` and `candidates` of a group of queries."""

    ranks: pa.Table
    candidates: pa.Table


class ExemplarSet(NamedTuple):
    """The ids of the exemplars of a set, and their vectors (exemplars, dim) of `fixed_point.fixed_point`."""

    ids: list[str]
    vectors: np.ndarray


class Labels(NamedTuple):
    """Columns of the rows besides the counts; `queries` has a row of QUERY_COLUMNS by query_id."""

    encoder: str
    mapper: str
    queries: dict[str, dict[str, str]]

    def exemplar_set(self, query: str) -> str:
        """Return the exemplar set of a query."""
        return self.queries[query]["exemplar_set"]


def rank(
    *,
    encoder: str,
    mapper: str,
    heads: Heads,
    pool: Sequence[Path],
    queries: Sequence[Path],
    exemplars: Path,
    excluded: pa.Table,
    query_rows: pa.Table,
    exemplar_rows: pa.Table,
    left_out: Mapping[str, Collection[str]] | None = None,
    top_k: int = 100,
    bins: int = 2048,
    query_block: int = 512,
    pool_block: int = 32768,
    query_group: int = 4096,
) -> Iterator[Ranked]:
    """Rank the exemplars of every query in the pool; yields the results of one group after another.

    pool, queries, exemplars   embedding files; queries keep the order of their files
    excluded                   column image_id: rows of the pool that are not distractors
    query_rows                 columns QUERY_COLUMNS of `synthesized`: the queries to rank, all of them
    exemplar_rows              columns EXEMPLAR_COLUMNS of `exemplars`
    left_out                   by exemplar set the image_id of rows of the pool that are no distractors of its queries
    top_k, bins                candidates kept by name; histogram bins over [-1, 1] for the others
    query_block, pool_block    rows of one matrix product; 512 and 32768 or more are fast
    query_group                queries for which the pool is read once; each takes about 16 bytes
                               a bin, 20 a top candidate and 8 a dimension

    Raises InputError for settings out of range; for vectors that are not finite or have length 0; and where
    embeddings, queries, exemplars and excluded rows do not belong together.
    """
    _check_settings(
        top_k=top_k, bins=bins, query_block=query_block, pool_block=pool_block, query_group=query_group
    )
    labels = Labels(encoder, mapper, {row["query_id"]: row for row in query_rows.to_pylist()})
    sets = _exemplar_sets(exemplars, heads, exemplar_rows)
    without = pa.array(sorted(set(excluded.column("image_id").to_pylist())), pa.string())
    omitted = LeftOut(left_out or {})
    distractors = count_distractors(pool, without, omitted)
    unranked = set(labels.queries)
    for group in embedding_stream.regroup(
        embedding_stream.read_blocks(queries, heads.synth, rows=query_group), query_group
    ):
        own = _own_sets(group.ids, labels, sets, unranked, queries)
        _check_width(group.unit, own[0].vectors, exemplars)
        rows = min(pool_block, embedding_stream.READ_ROWS)
        read = embedding_stream.read_blocks(pool, heads.real, rows=rows, without=without)
        yield rank_group(
            group,
            own,
            embedding_stream.regroup(_check_widths(read, group.unit, pool), pool_block, reuse=True),
            labels=labels,
            distractors=[distractors.get(labels.exemplar_set(name), distractors[None]) for name in group.ids],
            left_out=omitted,
            top_k=top_k,
            bins=bins,
            query_block=query_block,
        )
    if unranked:
        raise InputError(
            f"{embedding_stream.list_files(queries)}: no embedding of query {min(unranked)!r}"
            f" ({len(unranked)} of {len(labels.queries)} are missing)"
        )


def rank_group(
    group: embedding_stream.EmbeddingBlock,
    own: Sequence[ExemplarSet],
    pool: Iterable[embedding_stream.EmbeddingBlock],
    *,
    labels: Labels,
    distractors: int | Sequence[int],
    top_k: int,
    bins: int,
    query_block: int,
    left_out: LeftOut | None = None,
    products: Callable[[], Products] = NumpyProducts,
) -> Ranked:
    """Rank the exemplars `own` of each query of a group in one pass over the pool.

    distractors  rows of the pool, without those that are left out: of each query, or one number for all
    products     how to multiply, see `RankAccumulator`

    The vectors of group and pool are of unit length and one width; see `rank` for the other options.
    """
    accumulator = RankAccumulator(
        _thresholds(group.unit, own),
        fixed_point.vectors(group.unit),
        top_k=top_k,
        bins=bins,
        query_block=query_block,
        products=products,
    )
    sets = [labels.exemplar_set(name) for name in group.ids] if left_out is not None else []
    for block in pool:
        rows = None if left_out is None else left_out.rows(block.ids, sets)
        accumulator.add(np.array(block.ids, object), block.unit, rows)
    ranks = _rank_rows(group.ids, own, accumulator, labels, distractors)
    return Ranked(ranks, _candidate_rows(group.ids, accumulator, labels))


def _check_widths(
    blocks: Iterable[embedding_stream.EmbeddingBlock], queries: np.ndarray, pool: Sequence[Path]
) -> Iterator[embedding_stream.EmbeddingBlock]:
    for block in blocks:
        _check_width(block.unit, queries, embedding_stream.list_files(pool))
        yield block


def _thresholds(queries: np.ndarray, own: Sequence[ExemplarSet]) -> list[np.ndarray]:
    """Compute the exact similarities of each query to the exemplars of its own set."""
    return [
        fixed_point.similarities(fixed_point.fixed_point(query[None]), exemplars.vectors)[0]
        for query, exemplars in zip(queries, own, strict=True)
    ]


def _siblings(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count for each exemplar of a set how many others are more similar, and how many equally similar."""
    difference = similarity[None, :] - similarity[:, None]
    above = np.count_nonzero(difference > fixed_point.TIE, axis=1)
    tied = np.count_nonzero(np.abs(difference) <= fixed_point.TIE, axis=1) - 1
    return above, tied


def _rank_rows(
    ids: list[str],
    own: Sequence[ExemplarSet],
    accumulator: RankAccumulator,
    labels: Labels,
    distractors: int | Sequence[int],
) -> pa.Table:
    counter = accumulator.counter
    repeats = np.diff(counter.starts)
    siblings = [
        _siblings(counter.thresholds[a:b]) for a, b in zip(counter.starts, counter.starts[1:], strict=False)
    ]
    rows = [labels.queries[name] for name, count in zip(ids, repeats, strict=True) for _ in range(count)]
    columns: dict[str, Any] = {
        "encoder": [labels.encoder] * len(rows),
        "mapper": [labels.mapper] * len(rows),
        **{name: [row[name] for row in rows] for name in QUERY_COLUMNS},
        "exemplar_id": [name for exemplars in own for name in exemplars.ids],
        "similarity": counter.thresholds.astype(np.float32),
        "n_above": counter.above,
        "n_tied": counter.tied,
        "n_siblings_above": np.concatenate([above for above, _ in siblings]),
        "n_siblings_tied": np.concatenate([tied for _, tied in siblings]),
        "n_distractors": np.repeat(np.broadcast_to(distractors, len(ids)), repeats),
    }
    return _table("ranks", columns)


def _candidate_rows(ids: list[str], accumulator: RankAccumulator, labels: Labels) -> pa.Table:
    top = [accumulator.top.of_query(query) for query in range(len(ids))]
    rest = [accumulator.rest(query, best.products) for query, best in enumerate(top)]
    columns: dict[str, Any] = {
        "encoder": [labels.encoder] * len(ids),
        "mapper": [labels.mapper] * len(ids),
        "query_id": ids,
        "candidate_ids": [best.ids.tolist() for best in top],
        "similarities": [best.similarities.astype(np.float32) for best in top],
        "histogram": [counts for counts, _ in rest],
        "histogram_sums": [sums for _, sums in rest],
    }
    return _table("candidates", columns)


def _table(name: str, columns: dict[str, Any]) -> pa.Table:
    expected = tables.schema(name)
    return pa.table([pa.array(columns[field.name], field.type) for field in expected], schema=expected)


def _exemplar_sets(path: Path, heads: Heads, rows: pa.Table) -> dict[str, ExemplarSet]:
    """Read the exact vectors of every exemplar set, exemplars in the order of the table."""
    ids, unit = embedding_stream.read_all([path], heads.real)
    vectors = dict(zip(ids, fixed_point.fixed_point(unit), strict=True))
    members: dict[str, list[str]] = {}
    for row in rows.to_pylist():
        if row["exemplar_id"] not in vectors:
            raise InputError(
                f"{path}: no embedding of exemplar {row['exemplar_id']!r}, expected all exemplars"
            )
        members.setdefault(row["exemplar_set"], []).append(row["exemplar_id"])
    return {name: ExemplarSet(own, np.stack([vectors[one] for one in own])) for name, own in members.items()}


def _own_sets(
    ids: list[str], labels: Labels, sets: dict[str, ExemplarSet], unranked: set[str], files: Sequence[Path]
) -> list[ExemplarSet]:
    """Return the exemplar set of each query, and remove the queries from `unranked`."""
    own = []
    for name in ids:
        if name not in labels.queries:
            raise InputError(
                f"{embedding_stream.list_files(files)}: embedding of {name!r}, which is no query of the"
                " synthesized table"
            )
        if name not in unranked:
            raise InputError(
                f"{embedding_stream.list_files(files)}: query {name!r} is embedded twice, expected once"
            )
        unranked.remove(name)
        exemplar_set = labels.queries[name]["exemplar_set"]
        if exemplar_set not in sets:
            raise InputError(
                f"query {name!r} belongs to exemplar set {exemplar_set!r}, which has no exemplars"
            )
        own.append(sets[exemplar_set])
    return own


def _check_width(vectors: np.ndarray, others: np.ndarray, where: Path | str) -> None:
    if vectors.shape[1] != others.shape[1]:
        raise InputError(
            f"{where}: {vectors.shape[1]} and {others.shape[1]} dimensions, expected one encoder for pool,"
            " exemplars and queries"
        )


def _check_settings(*, bins: int, **others: int) -> None:
    if not 2 <= bins <= MAX_BINS:
        raise InputError(f"ranking.bins: {bins}, expected 2 to {MAX_BINS}")
    for name, value in others.items():
        if value < 1:
            raise InputError(f"ranking.{name}: {value}, expected at least 1")
