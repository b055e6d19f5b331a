"""What calibration knows of a query: how similar its exemplars and every distractor of the pool are.

The most similar distractors stand singly, all others as bins of a histogram with the mean similarity
in each, so a sum over a pool of any size is a sum over some hundred entries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
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
BATCH = 512  # queries held at once; a histogram is large before its empty bins are dropped


@dataclass(frozen=True, eq=False)
class Evidence:
    """Some queries and all their candidates: first the exemplars, then the top, then bins of the rest.

    queries, kinds  names of the queries and kinds of their sets
    sets            names of their exemplar sets, one customized model each
    query           (entries,) index of the entry's query
    similarity      (entries,) float64, cosine; of a bin the mean
    gap             (entries,) similarity less the highest of the query, 0 or below
    count           (entries,) candidates of the entry: 1, or those in the bin
    exemplars, top  how many entries are exemplars, and how many are single distractors
    ids             names of these two
    ahead           (exemplars,) distractors that rank before the exemplar, half of the tied ones among them
    siblings        (exemplars,) siblings that do
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
    ahead: np.ndarray
    siblings: np.ndarray

    def total(self, values: np.ndarray, entries: slice = slice(None)) -> np.ndarray:
        """Sums of a value per entry over the entries of each query, (queries,) float64."""
        return np.bincount(self.query[entries], weights=values, minlength=len(self.queries))

    def n_exemplars(self) -> np.ndarray:
        """Exemplars of each query, (queries,) int64."""
        return np.bincount(self.query[: self.exemplars], minlength=len(self.queries))

    def places(self) -> np.ndarray:
        """Position (0, 1, ...) of each single distractor among those of its query, (top,)."""
        top = self.query[self.exemplars : self.exemplars + self.top]
        return np.arange(len(top)) - np.searchsorted(top, top)

    def n_candidates(self) -> np.ndarray:
        """Exemplars and distractors of each query, (queries,) float64."""
        return self.total(self.count)


def gather(
    ranks: pa.Table,
    candidates: Path,
    exemplars: pa.Table,
    split: str,
    kinds: Collection[str] | None = None,
    condition: str = CONDITION,
) -> Iterator[Evidence]:
    """The evidence of the queries of a split, some hundred queries at a time.

    `kinds` are the kinds of exemplar sets whose queries count, None for all; `condition` is
    'customized' or 'control'.

    Columns as in RANK_COLUMNS, CANDIDATE_COLUMNS, EXEMPLAR_COLUMNS. Raises InputError where an
    exemplar set is unknown, a query has no row among the candidates, or not as many candidates as
    were ranked.
    """
    own = _Own(ranks, exemplars, split, kinds, condition)
    for batch in tables.iterate([candidates], CANDIDATE_COLUMNS, BATCH):
        names = batch.column("query_id").to_pylist()
        found = [number for number, name in enumerate(names) if name in own.left]
        if found:
            yield _evidence(
                own, [own.take(names[number]) for number in found], batch.take(pa.array(found)), candidates
            )
    if own.left:
        raise InputError(f"{candidates}: no row for query {min(own.left)!r}, which is ranked")


class _Own:
    """The exemplars of the wanted queries, as columns sorted by query and rank; queries are taken once."""

    def __init__(
        self,
        ranks: pa.Table,
        exemplars: pa.Table,
        split: str,
        kinds: Collection[str] | None,
        condition: str,
    ) -> None:
        about = {row["exemplar_set"]: row for row in exemplars.select(EXEMPLAR_COLUMNS).to_pylist()}
        unknown = set(ranks.column("exemplar_set").unique().to_pylist()) - set(about)
        if unknown:
            raise InputError(f"ranks: exemplar set {min(unknown)!r} is not in the table of exemplars")
        wanted = [
            name
            for name, row in about.items()
            if row["split"] == split and (kinds is None or row["kind"] in kinds)
        ]
        sets = pa.array(wanted, pa.string())
        chosen = pc.and_(
            pc.equal(ranks.column("condition"), condition),
            pc.is_in(ranks.column("exemplar_set"), value_set=sets),
        )
        order = [(name, "ascending") for name in ("query_id", "n_siblings_above", "exemplar_id")]
        table = ranks.filter(chosen).sort_by(order)
        self.columns = {name: table.column(name).to_numpy(zero_copy_only=False) for name in RANK_COLUMNS}
        queries, starts, counts = np.unique(self.columns["query_id"], return_index=True, return_counts=True)
        ends = starts + counts
        self.left = {name: slice(a, b) for name, a, b in zip(queries.tolist(), starts, ends, strict=True)}
        self._kinds = {name: row["kind"] for name, row in about.items()}

    def take(self, query: str) -> slice:
        """The rows of a query."""
        return self.left.pop(query)

    def kind(self, rows: slice) -> str:
        return str(self._kinds[self.set(rows)])

    def set(self, rows: slice) -> str:
        return str(self.columns["exemplar_set"][rows.start])

    def of(self, name: str, rows: list[slice]) -> np.ndarray:
        return np.concatenate([self.columns[name][some] for some in rows])


def _evidence(own: _Own, rows: list[slice], batch: pa.RecordBatch, where: Path) -> Evidence:
    """The queries of a batch, whose exemplars stand in these rows."""
    names = [str(own.columns["query_id"][some.start]) for some in rows]
    found = _distractors(batch)
    for number, some in enumerate(rows):
        total, ranked = found.total(number), own.columns["n_distractors"][some.start]
        if total != ranked:
            raise InputError(
                f"{where}: query {names[number]!r} has {total} candidates, but {ranked} were ranked"
            )
    return _assembled(
        found,
        queries=names,
        kinds=[own.kind(some) for some in rows],
        sets=[own.set(some) for some in rows],
        exemplars=[some.stop - some.start for some in rows],
        similarity=own.of("similarity", rows),
        ids=own.of("exemplar_id", rows).tolist(),
        ahead=own.of("n_above", rows) + own.of("n_tied", rows) // 2,
    )


def of_candidates(candidates: pa.Table, kinds: Sequence[str]) -> Evidence:
    """The evidence of queries whose exemplars nobody knows: all that was ranked, and no entry is an exemplar.

    candidates  rows of the table `candidates`, CANDIDATE_COLUMNS
    kinds       of sets that each query is to be taken for, (queries,)
    """
    names = candidates.column("query_id").to_pylist()
    return _assembled(
        _distractors(candidates),
        queries=names,
        kinds=list(kinds),
        sets=[""] * len(names),
        exemplars=[0] * len(names),
        similarity=np.empty(0),
        ids=[],
        ahead=np.empty(0, np.int64),
    )


@dataclass(frozen=True, eq=False)
class _Distractors:
    """What was ranked for some queries: the most similar ones singly, the others in bins."""

    ids: list[list[str]]
    similarities: list[np.ndarray]
    counts: list[np.ndarray]
    """Of each bin that is not empty."""
    means: list[np.ndarray]

    def total(self, query: int) -> int:
        """How many they are."""
        return len(self.similarities[query]) + int(self.counts[query].sum())


def _distractors(batch: pa.RecordBatch | pa.Table) -> _Distractors:
    similarities, histograms, sums = (_arrays(batch.column(name)) for name in CANDIDATE_COLUMNS[2:])
    filled = [np.flatnonzero(histogram) for histogram in histograms]
    counts = [h[i] for h, i in zip(histograms, filled, strict=True)]
    means = [s[i] / h[i] for h, s, i in zip(histograms, sums, filled, strict=True)]
    return _Distractors(batch.column("candidate_ids").to_pylist(), similarities, counts, means)


def _assembled(
    found: _Distractors,
    *,
    queries: list[str],
    kinds: list[str],
    sets: list[str],
    exemplars: list[int],
    similarity: np.ndarray,
    ids: list[str],
    ahead: np.ndarray,
) -> Evidence:
    """Evidence of the distractors, behind exemplars: how many a query has, and what is known of them in its order."""
    every = np.concatenate([similarity, *found.similarities, *found.means]).astype(np.float64)
    lengths = [exemplars, [len(one) for one in found.similarities], [len(one) for one in found.means]]
    query = np.concatenate([np.repeat(np.arange(len(queries)), length) for length in lengths])
    highest = np.full(len(queries), -np.inf)
    np.maximum.at(highest, query, every)
    single = sum(lengths[0]) + sum(lengths[1])
    return Evidence(
        queries=queries,
        kinds=kinds,
        sets=sets,
        query=query,
        similarity=every,
        gap=every - highest[query],
        count=np.concatenate([np.ones(single), *found.counts]).astype(np.float64),
        exemplars=sum(lengths[0]),
        top=sum(lengths[1]),
        ids=[*ids, *(name for some in found.ids for name in some)],
        ahead=ahead,
        siblings=np.concatenate([np.arange(length) for length in exemplars]),
    )


def _arrays(column: pa.Array | pa.ChunkedArray) -> list[np.ndarray]:
    """A column of lists of numbers, one array a row."""
    return [row.values.to_numpy(zero_copy_only=False) for row in column]
