"""Rank exemplars exactly in a pool of any size, without sorting it.

The candidates of a query are the pool without its excluded rows, and the exemplars of its own set. The rank
of an exemplar follows from counts: distractors above it, distractors tied with it, and siblings (other
exemplars of its set) above and tied. Counts add up over blocks, so the pool is read once for each group of
queries, in constant memory. In the same pass the most similar distractors are kept by name and all others
are counted in a histogram, from which calibration computes its sums over the whole pool. How ties count is
decided later, in `metrics.per_query`.

Results do not depend on block, group or part sizes, nor on the order of the pool: see `fixed_point`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attrib_core.attribution.ranking import embedding_stream, fixed_point
from attrib_core.attribution.ranking.accumulator import RankAccumulator
from attrib_core.common.errors import InputError
from attrib_core.features.heads.heads import Heads
from attrib_core.storage import tables, vector_columns

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
    top_k: int = 100,
    bins: int = 2048,
    query_block: int = 512,
    pool_block: int = 16384,
    query_group: int = 4096,
) -> Iterator[Ranked]:
    """Rank the exemplars of every query in the pool; yields the results of one group after another.

    pool, queries, exemplars   embedding files; queries keep the order of their files
    excluded                   column image_id: rows of the pool that are not distractors
    query_rows                 columns QUERY_COLUMNS of `synthesized`: the queries to rank, all of them
    exemplar_rows              columns EXEMPLAR_COLUMNS of `exemplars`
    top_k, bins                candidates kept by name; histogram bins over [-1, 1] for the others
    query_block, pool_block    rows of one matrix product; 512 and 16384 or more are fast
    query_group                queries for which the pool is read once; each takes about 16 bytes
                               a bin, 16 a top candidate and 4 a dimension

    Raises InputError for settings out of range; for vectors that are not finite or have length 0; and where
    embeddings, queries, exemplars and excluded rows do not belong together.
    """
    _check_settings(
        top_k=top_k, bins=bins, query_block=query_block, pool_block=pool_block, query_group=query_group
    )
    labels = Labels(encoder, mapper, {row["query_id"]: row for row in query_rows.to_pylist()})
    sets = _exemplar_sets(exemplars, heads, exemplar_rows)
    without = pa.array(sorted(set(excluded.column("image_id").to_pylist())), pa.string())
    distractors = _count_pool(pool, without) - len(without)
    unranked = set(labels.queries)
    for group in embedding_stream.regroup(
        embedding_stream.read_blocks(queries, heads.synth, rows=query_group), query_group
    ):
        own = _own_sets(group.ids, labels, sets, unranked, queries)
        _check_width(group.unit, own[0].vectors, exemplars)
        blocks = embedding_stream.read_blocks(pool, heads.real, rows=pool_block, without=without)
        yield rank_group(
            group,
            own,
            _check_widths(blocks, group.unit, pool),
            labels=labels,
            distractors=distractors,
            top_k=top_k,
            bins=bins,
            query_block=query_block,
        )
    if unranked:
        raise InputError(
            f"{_names(queries)}: no embedding of query {min(unranked)!r}"
            f" ({len(unranked)} of {len(labels.queries)} are missing)"
        )


def rank_group(
    group: embedding_stream.EmbeddingBlock,
    own: Sequence[ExemplarSet],
    pool: Iterable[embedding_stream.EmbeddingBlock],
    *,
    labels: Labels,
    distractors: int,
    top_k: int,
    bins: int,
    query_block: int,
) -> Ranked:
    """Rank the exemplars `own` of each query of a group in one pass over a pool of `distractors` rows.

    The vectors of group and pool are of unit length and one width; see `rank` for the options.
    """
    accumulator = RankAccumulator(_thresholds(group.unit, own), top_k=top_k, bins=bins)
    for block in pool:
        _add(accumulator, group.unit, block, query_block)
    ranks = _rank_rows(group.ids, own, accumulator, labels, distractors)
    return Ranked(ranks, _candidate_rows(group.ids, accumulator, labels))


def _check_widths(
    blocks: Iterable[embedding_stream.EmbeddingBlock], queries: np.ndarray, pool: Sequence[Path]
) -> Iterator[embedding_stream.EmbeddingBlock]:
    for block in blocks:
        _check_width(block.unit, queries, _names(pool))
        yield block


def _add(
    accumulator: RankAccumulator,
    queries: np.ndarray,
    block: embedding_stream.EmbeddingBlock,
    query_block: int,
) -> None:
    """Add one block of the pool to the accumulator, `query_block` queries at a time."""
    candidates, ids = fixed_point.fixed_point(block.unit), np.array(block.ids, object)
    for first in range(0, len(queries), query_block):
        some = fixed_point.fixed_point(queries[first : first + query_block])
        accumulator.add(first, fixed_point.similarities(some, candidates), ids)


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
    ids: list[str], own: Sequence[ExemplarSet], accumulator: RankAccumulator, labels: Labels, distractors: int
) -> pa.Table:
    repeats = np.diff(accumulator.starts)
    siblings = [
        _siblings(accumulator.thresholds[a:b])
        for a, b in zip(accumulator.starts, accumulator.starts[1:], strict=False)
    ]
    rows = [labels.queries[name] for name, count in zip(ids, repeats, strict=True) for _ in range(count)]
    columns: dict[str, Any] = {
        "encoder": [labels.encoder] * len(rows),
        "mapper": [labels.mapper] * len(rows),
        **{name: [row[name] for row in rows] for name in QUERY_COLUMNS},
        "exemplar_id": [name for exemplars in own for name in exemplars.ids],
        "similarity": fixed_point.cosine(accumulator.thresholds),
        "n_above": accumulator.above,
        "n_tied": accumulator.tied,
        "n_siblings_above": np.concatenate([above for above, _ in siblings]),
        "n_siblings_tied": np.concatenate([tied for _, tied in siblings]),
        "n_distractors": np.full(len(rows), distractors),
    }
    return _table("ranks", columns)


def _candidate_rows(ids: list[str], accumulator: RankAccumulator, labels: Labels) -> pa.Table:
    top = [accumulator.top(query) for query in range(len(ids))]
    rest = [accumulator.rest(query) for query in range(len(ids))]
    columns: dict[str, Any] = {
        "encoder": [labels.encoder] * len(ids),
        "mapper": [labels.mapper] * len(ids),
        "query_id": ids,
        "candidate_ids": [names for _, names in top],
        "similarities": [fixed_point.cosine(scores) for scores, _ in top],
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
                f"{_names(files)}: embedding of {name!r}, which is no query of the synthesized table"
            )
        if name not in unranked:
            raise InputError(f"{_names(files)}: query {name!r} is embedded twice, expected once")
        unranked.remove(name)
        exemplar_set = labels.queries[name]["exemplar_set"]
        if exemplar_set not in sets:
            raise InputError(
                f"query {name!r} belongs to exemplar set {exemplar_set!r}, which has no exemplars"
            )
        own.append(sets[exemplar_set])
    return own


def _count_pool(pool: Sequence[Path], without: pa.Array) -> int:
    """Count the rows of the pool; InputError where an excluded row is missing, or no other row is left."""
    total, found = 0, set()
    for path in map(Path, pool):
        vector_columns.dimension(path)
        for batch in tables.iterate([path], ["image_id"], 1 << 17):
            names = batch.column("image_id")
            total += len(names)
            found.update(names.filter(pc.is_in(names, value_set=without)).to_pylist())
    missing = set(without.to_pylist()) - found
    if missing:
        raise InputError(
            f"excluded row {min(missing)!r} is not in the pool {_names(pool)}, expected its image_id"
        )
    if total == len(without):
        raise InputError(f"{_names(pool)}: all {total} rows of the pool are excluded, expected distractors")
    return total


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


def _names(paths: Sequence[Path]) -> str:
    """Name files in a message: the first, and how many more."""
    first = str(paths[0]) if paths else "no files"
    return first if len(paths) < 2 else f"{first} and {len(paths) - 1} more"
