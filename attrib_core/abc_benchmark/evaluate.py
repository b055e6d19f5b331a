"""Rank and measure test cases in the published layout, exactly and in constant memory.

As published: the candidates of a query are the whole pool and the exemplars of its own model;
averages are over queries, separately for each prompt kind. What the published code leaves to chance,
the order of equal similarities, is a choice here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attrib_core.abc_benchmark.feature_files import Matrix
from attrib_core.abc_benchmark.mapper_files import UNTUNED, Mapper
from attrib_core.abc_benchmark.test_cases import Queries, TestCase
from attrib_core.abc_benchmark.unit_vectors import (
    BAD_ROWS,
    Vectors,
    prepare,
    read_all,
    read_rows,
    rows_at_once,
)
from attrib_core.attribution.metrics import ceiling_and_chance
from attrib_core.attribution.metrics.measure import Ranking, System, per_query, placed, summarize
from attrib_core.attribution.metrics.strata import cut
from attrib_core.attribution.metrics.summary import check_resamples
from attrib_core.attribution.ranking import matmul
from attrib_core.attribution.ranking.float32_counts import FLOAT64, Counter
from attrib_core.common.errors import InputError
from attrib_core.runtime.progress import progress

TIES = {"half": "half", "above": "worst", "below": "best"}
"""Where tied distractors count: half above the exemplar, all above it, all below it."""
QUERY_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Counts:
    """What is known of the exemplars of some queries; rows in the order of queries, then of exemplars.

    query           (rows,) index of the query
    exemplar        (rows,) row of exemplar_tensors
    siblings_above  (rows,) exemplars of the same model that are more similar
    above, tied     (rows,) distractors that are more similar, equally similar
    """

    query: np.ndarray
    exemplar: np.ndarray
    siblings_above: np.ndarray
    above: np.ndarray
    tied: np.ndarray


def count(
    pool: Matrix,
    test: TestCase,
    queries: Queries,
    *,
    mapper: Mapper = UNTUNED,
    bad_rows: str = "refuse",
    pool_block: int | None = None,
    query_block: int = QUERY_BLOCK,
    query_group: int | None = None,
    device: str = "cpu",
) -> Counts:
    """Counts of all exemplars of all queries of one prompt kind; they do not depend on the blocks.

    pool_block, query_block  rows of one matrix product
    query_group              queries for which the pool streams past once
    device                   where matrix products are computed: 'cpu' or 'cuda'
    bad_rows                 'refuse' or 'last', see `prepare`; with 'last' a bad distractor ranks below
                             all good candidates, bad exemplars tie with it, and the exemplars of a bad
                             query stand behind the whole pool

    Raises InputError where pool, test and mapper are not of one dimension, and for bad rows.
    """
    if bad_rows not in BAD_ROWS:
        raise InputError(f"--bad-rows: {bad_rows!r}, expected one of {', '.join(BAD_ROWS)}")
    check_dimensions(pool, test, mapper)
    exemplars = read_all(test.exemplars, mapper.real, bad_rows)
    group = query_group or rows_at_once(pool.dim)
    parts = []
    groups = range(0, queries.features.rows, group)
    for start in groups:
        stop = min(start + group, queries.features.rows)
        asked = read_rows(queries.features, mapper.synth, bad_rows, start, stop)
        blocks = -(-pool.rows // (pool_block or rows_at_once(pool.dim)))
        what = f"blocks of the pool ({queries.prompt_kind}, queries {start + 1} to {stop} of {queries.features.rows})"
        passing = progress(pool.blocks(pool_block or rows_at_once(pool.dim)), total=blocks, what=what)
        vectors = (prepare(block, mapper.real, pool.where, bad_rows) for block in passing)
        part = _count_group(
            vectors, asked, queries.models[start:stop], test, exemplars, query_block, matmul.on(device)
        )
        part.query[:] += start
        parts.append(part)
    joined = (np.concatenate([getattr(part, name) for part in parts]) for name in Counts.__annotations__)
    return Counts(*joined)


def check_dimensions(pool: Matrix, test: TestCase, mapper: Mapper) -> None:
    """InputError where pool, test features and mapper cannot be of one encoder."""
    if pool.dim != test.exemplars.dim:
        raise InputError(
            f"{test.exemplars.where}: {test.exemplars.dim} dimensions, but {pool.where} has {pool.dim};"
            " expected features of one encoder"
        )
    mapper.check(pool.dim, pool.where)


def _count_group(
    pool: Iterator[Vectors],
    asked: Vectors,
    models: np.ndarray,
    test: TestCase,
    exemplars: Vectors,
    query_block: int,
    product: matmul.Product,
) -> Counts:
    own = [np.arange(*test.chunks[model]) for model in models]
    query = np.repeat(np.arange(len(own)), [len(rows) for rows in own])
    exemplar = np.concatenate(own)
    rankable = asked.good[query] & exemplars.good[exemplar]
    similarity = np.full(len(query), -np.inf)
    similarity[rankable] = _similarities(asked, query[rankable], exemplars, exemplar[rankable])
    starts = np.searchsorted(query[rankable], np.flatnonzero(asked.good))
    thresholds = np.split(similarity[rankable], starts[1:]) if len(starts) else []
    counter = Counter(thresholds, asked.side.unit.shape[1], FLOAT64, product=product)
    rows = bad = 0
    for block in pool:
        rows += len(block.good)
        bad += len(block.good) - len(block.side.unit)
        counter.add(asked.side, block.side, query_block=query_block)
    above = np.where(asked.good[query], rows - bad, rows)
    tied = np.where(asked.good[query], bad, 0)
    above[rankable], tied[rankable] = counter.above, counter.tied
    return Counts(query, exemplar, _siblings_above(query, similarity), above, tied)


def _similarities(
    asked: Vectors, query: np.ndarray, exemplars: Vectors, exemplar: np.ndarray, pairs: int = 4096
) -> np.ndarray:
    """Exact similarities of pairs of good rows, numbered as in their matrix, (pairs,) float64."""
    found = np.empty(len(query))
    ask, own = np.cumsum(asked.good) - 1, np.cumsum(exemplars.good) - 1
    for start in range(0, len(query), pairs):
        some = slice(start, start + pairs)
        left, right = asked.side.points(ask[query[some]]), exemplars.side.points(own[exemplar[some]])
        found[some] = np.einsum("ij,ij->i", left, right)
    return found


def _siblings_above(query: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """How many exemplars of the same query are more similar, (rows,); ties are settled by their order."""
    order = np.lexsort((np.arange(len(query)), -similarity, query))
    first = np.searchsorted(query[order], query[order])
    found = np.empty(len(query), np.int64)
    found[order] = np.arange(len(query)) - first
    return found


def system(
    pool_rows: int,
    test: TestCase,
    counted: Sequence[tuple[Queries, Counts]],
    *,
    recall_ks: Sequence[int],
    ties: str = "half",
    categories: Sequence[str | None] | None = None,
) -> System:
    """All queries of a test case with their metrics; `categories`, one a model, are carried along.

    The queries come in the order of the prompt kinds and, within each, of the file.
    """
    if ties not in TIES:
        raise InputError(f"--ties: {ties!r}, expected one of {', '.join(TIES)}")
    if not recall_ks or min(recall_ks) < 1:
        raise InputError(f"--recall-ks: {list(recall_ks)}, expected numbers of at least 1")
    before = np.cumsum([0] + [queries.features.rows for queries, _ in counted])
    joined = {
        name: np.concatenate([getattr(counts, name) for _, counts in counted])
        for name in ("exemplar", "siblings_above", "above", "tied")
    }
    query = np.concatenate(
        [counts.query + start for (_, counts), start in zip(counted, before, strict=False)]
    )
    ranking: Ranking = placed(np.arange(before[-1]), query, **joined, ties=TIES[ties])
    n = ranking.exemplars()
    values = per_query(ranking, sorted(set(recall_ks)))
    models = np.concatenate([queries.models for queries, _ in counted])
    labels = {
        "exemplar_set": np.char.zfill(models.astype(np.str_), 6),
        "prompt_kind": np.concatenate(
            [[queries.prompt_kind] * queries.features.rows for queries, _ in counted]
        ),
    }
    if categories is not None:
        labels["category"] = np.array([name or "" for name in categories])[models]
    candidates = n + pool_rows
    keys = list(values)
    return System(
        test.path.stem, "", labels, n, candidates, values,
        ceiling_and_chance.ceilings(keys, n), ceiling_and_chance.chances(keys, n, candidates),
    )  # fmt: skip


def measure(one: System, *, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of the table `abc_metrics` but for its first columns: each prompt kind, whole and cut by
    category and by number of exemplars."""
    check_resamples(resamples)
    kinds = one.labels["prompt_kind"]
    for kind in dict.fromkeys(kinds.tolist()):
        members = np.flatnonzero(kinds == kind)
        groups = [("all", "all", members), *cut(one, members)]
        for by, name, some in groups:
            for row in summarize(one, some, resamples=resamples, seed=seed):
                yield {"prompt_kind": kind, "group_by": by, "group": name, **row}
