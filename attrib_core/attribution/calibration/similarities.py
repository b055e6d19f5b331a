"""Read the similarities of queries to their exemplars and to every distractor of the pool.

The most similar distractors are single entries, all others are histogram bins with the mean similarity in
each, so a sum over a pool of any size is a sum over some hundred entries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attrib_core.common.errors import InputError
from attrib_core.storage import tables

RANK_COLUMNS = (
    "encoder", "mapper", "query_id", "exemplar_set", "condition", "exemplar_id", "similarity",
    "n_above", "n_tied", "n_siblings_above", "n_distractors",
)  # fmt: skip
CANDIDATE_COLUMNS = ("query_id", "candidate_ids", "similarities", "histogram", "histogram_sums")
EXEMPLAR_COLUMNS = ("exemplar_set", "kind", "split")
CONDITION = "customized"
BATCH = 512  # queries read at once; a histogram is large before its empty bins are dropped


@dataclass(frozen=True, eq=False)
class SimilarityBatch:
    """Queries with all their candidates as entries: exemplars, then the top distractors, then histogram bins.

    queries, kinds     ids of the queries and kinds of their sets
    sets               names of their exemplar sets, one customized model each
    query              (entries,) index of the query
    similarity         (entries,) float64, cosine; of a bin the mean
    gap                (entries,) similarity minus the highest of the query, 0 or below
    count              (entries,) number of candidates: 1, or those in the bin
    exemplars, top     how many entries are exemplars, and how many are top distractors
    ids                of these two
    distractors_above  (exemplars,) distractors that rank above the exemplar, half of the tied ones included
    siblings_above     (exemplars,) exemplars of the same query that do
    """

    queries: list[str]
    kinds: list[str]
    sets: list[str]
    query: np.ndarray
    similarity: np.ndarray
    gap: np.ndarray
    count: np.ndarray
    exemplars: int
    top: int
    ids: list[str]
    distractors_above: np.ndarray
    siblings_above: np.ndarray

    def total(self, values: np.ndarray, entries: slice = slice(None)) -> np.ndarray:
        """Sum a value per entry over the entries of each query, (queries,) float64."""
        return np.bincount(self.query[entries], weights=values, minlength=len(self.queries))

    def n_exemplars(self) -> np.ndarray:
        """Return the number of exemplars of each query, (queries,) int64."""
        return np.bincount(self.query[: self.exemplars], minlength=len(self.queries))

    def n_candidates(self) -> np.ndarray:
        """Return the number of exemplars and distractors of each query, (queries,) float64."""
        return self.total(self.count)

    def top_positions(self) -> np.ndarray:
        """Return the position (0, 1, ...) of each top distractor among those of its query, (top,)."""
        top = self.query[self.exemplars : self.exemplars + self.top]
        return np.arange(len(top)) - np.searchsorted(top, top)

    def highest(self) -> np.ndarray:
        """Return the highest similarity of each query, (queries,)."""
        highest = np.full(len(self.queries), -np.inf)
        np.maximum.at(highest, self.query, self.similarity)
        return highest

    def with_gaps(self) -> SimilarityBatch:
        """Return the batch with `gap` computed from its similarities."""
        return replace(self, gap=self.similarity - self.highest()[self.query])


def read_similarities(
    ranks: pa.Table,
    candidates: Path,
    exemplars: pa.Table,
    split: str,
    kinds: Collection[str] | None = None,
    condition: str = CONDITION,
) -> Iterator[SimilarityBatch]:
    """Read the similarities of the queries of a split, at most BATCH queries at a time.

    ranks, candidates, exemplars  with the columns RANK_COLUMNS, CANDIDATE_COLUMNS, EXEMPLAR_COLUMNS
    kinds                         of exemplar sets whose queries are read, None for all
    condition                     'customized' or 'control'

    Raises InputError where an exemplar set is unknown, a query has no row among the candidates, or not as
    many candidates as were ranked.
    """
    own = _RankedExemplars(ranks, exemplars, split, kinds, condition)
    for record_batch in tables.iterate([candidates], CANDIDATE_COLUMNS, BATCH):
        names = record_batch.column("query_id").to_pylist()
        found = [number for number, name in enumerate(names) if name in own.pending]
        if found:
            rows = [own.pending.pop(names[number]) for number in found]
            yield _joined(own, rows, record_batch.take(pa.array(found)), candidates)
    if own.pending:
        raise InputError(f"{candidates}: no row for query {min(own.pending)!r}, which is ranked")


class _RankedExemplars:
    """Rows of the exemplars of the chosen queries, as columns sorted by query and rank.

    pending  slice of the rows of each query that was not read yet
    """

    def __init__(
        self, ranks: pa.Table, exemplars: pa.Table, split: str, kinds: Collection[str] | None, condition: str
    ) -> None:
        by_set = {row["exemplar_set"]: row for row in exemplars.select(EXEMPLAR_COLUMNS).to_pylist()}
        unknown = set(ranks.column("exemplar_set").unique().to_pylist()) - set(by_set)
        if unknown:
            raise InputError(f"ranks: exemplar set {min(unknown)!r} is not in the table of exemplars")
        sets = [
            name
            for name, row in by_set.items()
            if row["split"] == split and (kinds is None or row["kind"] in kinds)
        ]
        chosen = pc.and_(
            pc.equal(ranks.column("condition"), condition),
            pc.is_in(ranks.column("exemplar_set"), value_set=pa.array(sets, pa.string())),
        )
        order = [(name, "ascending") for name in ("query_id", "n_siblings_above", "exemplar_id")]
        table = ranks.filter(chosen).sort_by(order)
        self.columns = {name: table.column(name).to_numpy(zero_copy_only=False) for name in RANK_COLUMNS}
        queries, starts, counts = np.unique(self.columns["query_id"], return_index=True, return_counts=True)
        ends = starts + counts
        self.pending = {name: slice(a, b) for name, a, b in zip(queries.tolist(), starts, ends, strict=True)}
        self.kinds = {name: str(row["kind"]) for name, row in by_set.items()}

    def of_queries(self, name: str, rows: list[slice]) -> list[str]:
        """Return a column with one value a query."""
        return [str(self.columns[name][some.start]) for some in rows]

    def of_exemplars(self, name: str, rows: list[slice]) -> np.ndarray:
        """Return a column with one value an exemplar."""
        return np.concatenate([self.columns[name][some] for some in rows])


def _joined(
    own: _RankedExemplars, rows: list[slice], record_batch: pa.RecordBatch, path: Path
) -> SimilarityBatch:
    """Join the candidates of queries with their exemplars, which are in these rows."""
    queries, sets = own.of_queries("query_id", rows), own.of_queries("exemplar_set", rows)
    distractors = _distractors(record_batch)
    for number, some in enumerate(rows):
        total, ranked = distractors.total(number), own.columns["n_distractors"][some.start]
        if total != ranked:
            raise InputError(
                f"{path}: query {queries[number]!r} has {total} candidates, but {ranked} were ranked"
            )
    return _batch(
        distractors,
        queries=queries,
        kinds=[own.kinds[name] for name in sets],
        sets=sets,
        n_exemplars=[some.stop - some.start for some in rows],
        similarity=own.of_exemplars("similarity", rows),
        ids=own.of_exemplars("exemplar_id", rows).tolist(),
        distractors_above=own.of_exemplars("n_above", rows) + own.of_exemplars("n_tied", rows) // 2,
    )


def from_candidates(candidates: pa.Table, kinds: Sequence[str]) -> SimilarityBatch:
    """Return the similarities of queries whose exemplars are unknown: no entry is an exemplar.

    candidates  rows of the table `candidates`, CANDIDATE_COLUMNS
    kinds       kind of sets whose parameters each query gets, (queries,)
    """
    queries = candidates.column("query_id").to_pylist()
    return _batch(
        _distractors(candidates),
        queries=queries,
        kinds=list(kinds),
        sets=[""] * len(queries),
        n_exemplars=[0] * len(queries),
        similarity=np.empty(0),
        ids=[],
        distractors_above=np.empty(0, np.int64),
    )


@dataclass(frozen=True, eq=False)
class _Distractors:
    """Distractors of some queries: ids and similarities of the top ones, counts and means of non-empty bins."""

    ids: list[list[str]]
    similarities: list[np.ndarray]
    counts: list[np.ndarray]
    means: list[np.ndarray]

    def total(self, query: int) -> int:
        """Return the number of distractors of a query."""
        return len(self.similarities[query]) + int(self.counts[query].sum())


def _distractors(rows: pa.RecordBatch | pa.Table) -> _Distractors:
    similarities, histograms, sums = (
        [row.values.to_numpy(zero_copy_only=False) for row in rows.column(name)]
        for name in CANDIDATE_COLUMNS[2:]
    )
    filled = [np.flatnonzero(histogram) for histogram in histograms]
    counts = [h[i] for h, i in zip(histograms, filled, strict=True)]
    means = [s[i] / h[i] for h, s, i in zip(histograms, sums, filled, strict=True)]
    return _Distractors(rows.column("candidate_ids").to_pylist(), similarities, counts, means)


def _batch(
    distractors: _Distractors,
    *,
    queries: list[str],
    kinds: list[str],
    sets: list[str],
    n_exemplars: list[int],
    similarity: np.ndarray,
    ids: list[str],
    distractors_above: np.ndarray,
) -> SimilarityBatch:
    """Put entries together; similarity, ids and distractors_above are of the exemplars, query by query."""
    parts = [distractors.similarities, distractors.means]
    entries = np.concatenate([similarity, *parts[0], *parts[1]]).astype(np.float64)
    lengths = [n_exemplars, *([len(one) for one in part] for part in parts)]
    singles = sum(lengths[0]) + sum(lengths[1])
    return SimilarityBatch(
        queries=queries,
        kinds=kinds,
        sets=sets,
        query=np.concatenate([np.repeat(np.arange(len(queries)), length) for length in lengths]),
        similarity=entries,
        gap=np.empty(0),
        count=np.concatenate([np.ones(singles), *distractors.counts]).astype(np.float64),
        exemplars=sum(lengths[0]),
        top=sum(lengths[1]),
        ids=[*ids, *(name for some in distractors.ids for name in some)],
        distractors_above=distractors_above,
        siblings_above=np.concatenate([np.arange(length) for length in n_exemplars]),
    ).with_gaps()
