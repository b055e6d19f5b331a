"""Rank AbC test cases exactly, in constant memory, and compute their metrics.

As in the published protocol, the candidates of a query are the pool and the exemplars of its own model, and
metrics are averaged over the queries of each prompt kind. The published code leaves the order of equal
similarities undefined; here it is an option.
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
    UnitVectors,
    prepare,
    read_rows,
    rows_at_once,
)
from attrib_core.attribution.metrics import ceiling_and_chance
from attrib_core.attribution.metrics.per_query import POLICIES, Ranking, per_query, positions_from_counts
from attrib_core.attribution.metrics.query_groups import System
from attrib_core.attribution.metrics.strata import split_into_strata
from attrib_core.attribution.metrics.summary import summarize
from attrib_core.attribution.ranking import matmul
from attrib_core.attribution.ranking.float32_counts import Counter
from attrib_core.common.errors import InputError
from attrib_core.runtime.progress import progress

QUERY_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Counts:
    """Rank counts of the exemplars of some queries; rows in the order of queries, then of exemplars.

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
    """Count the distractors above and tied with each exemplar of the queries of one prompt kind.

    pool_block, query_block  rows of one matrix product; results do not depend on them
    query_group              queries for which the pool is read once
    device                   where matrix products are computed: 'cpu' or 'cuda'
    bad_rows                 'refuse' or 'last', see `prepare`; with 'last' a bad distractor ranks below
                             all good candidates, bad exemplars tie with it, and the exemplars of a bad
                             query rank below all of the pool

    Raises InputError where pool, test and mapper differ in dimension, and for bad rows.
    """
    if bad_rows not in BAD_ROWS:
        raise InputError(f"--bad-rows: {bad_rows!r}, expected one of {', '.join(BAD_ROWS)}")
    check_dimensions(pool, test, mapper)
    exemplars = read_rows(test.exemplars, mapper.real, bad_rows)
    group = query_group or rows_at_once(pool.dim)
    step = pool_block or rows_at_once(pool.dim)
    total = queries.features.rows
    parts = []
    for start in range(0, total, group):
        stop = min(start + group, total)
        what = f"blocks of the pool ({queries.prompt_kind}, queries {start + 1} to {stop} of {total})"
        blocks = progress(pool.blocks(step), total=-(-pool.rows // step), what=what)
        part = _count_group(
            (prepare(block, mapper.real, pool.where, bad_rows) for block in blocks),
            read_rows(queries.features, mapper.synth, bad_rows, start, stop),
            queries.models[start:stop],
            test,
            exemplars,
            query_block,
            matmul.products_for(device),
        )
        part.query[:] += start
        parts.append(part)
    joined = (np.concatenate([getattr(part, name) for part in parts]) for name in Counts.__annotations__)
    return Counts(*joined)


def check_dimensions(pool: Matrix, test: TestCase, mapper: Mapper) -> None:
    """Raise InputError where pool, test features and mapper are of different dimensions."""
    if pool.dim != test.exemplars.dim:
        raise InputError(
            f"{test.exemplars.where}: {test.exemplars.dim} dimensions, but {pool.where} has {pool.dim};"
            " expected features of one encoder"
        )
    mapper.check_dim(pool.dim, pool.where)


def _count_group(
    pool: Iterator[UnitVectors],
    queries: UnitVectors,
    models: np.ndarray,
    test: TestCase,
    exemplars: UnitVectors,
    query_block: int,
    products: matmul.Products,
) -> Counts:
    own = [np.arange(*test.chunks[model]) for model in models]
    query = np.repeat(np.arange(len(own)), [len(rows) for rows in own])
    exemplar = np.concatenate(own)
    rankable = queries.good[query] & exemplars.good[exemplar]
    similarity = np.full(len(query), -np.inf)
    similarity[rankable] = _similarities(queries, query[rankable], exemplars, exemplar[rankable])
    starts = np.searchsorted(query[rankable], np.flatnonzero(queries.good))
    thresholds = np.split(similarity[rankable], starts[1:]) if len(starts) else []
    counter = Counter(thresholds, products=products)
    rows = bad = 0
    for block in pool:
        rows += len(block.good)
        bad += len(block.good) - len(block.vectors.unit)
        counter.add(queries.vectors, block.vectors, query_block=query_block)
    above = np.where(queries.good[query], rows - bad, rows)
    tied = np.where(queries.good[query], bad, 0)
    above[rankable], tied[rankable] = counter.above, counter.tied
    return Counts(query, exemplar, _siblings_above(query, similarity), above, tied)


def _similarities(
    queries: UnitVectors, query: np.ndarray, exemplars: UnitVectors, exemplar: np.ndarray, pairs: int = 4096
) -> np.ndarray:
    """Compute the exact similarities of pairs of good rows, numbered as in their matrix, (pairs,) float64."""
    found = np.empty(len(query))
    query_place, place = np.cumsum(queries.good) - 1, np.cumsum(exemplars.good) - 1
    for start in range(0, len(query), pairs):
        some = slice(start, start + pairs)
        left = queries.vectors.points(query_place[query[some]])
        right = exemplars.vectors.points(place[exemplar[some]])
        found[some] = np.einsum("ij,ij->i", left, right)
    return found


def _siblings_above(query: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """Count the exemplars of the same query that are more similar, (rows,); their order breaks ties."""
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
    """Compute the metrics of all queries of a test case; `categories`, one per model, become labels.

    Queries are in the order of the prompt kinds and, within each, of the file.
    """
    if ties not in POLICIES:
        raise InputError(f"--ties: {ties!r}, expected one of {', '.join(POLICIES)}")
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
    ranking: Ranking = positions_from_counts(np.arange(before[-1]), query, **joined, ties=ties)
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


def measure(one: System) -> Iterator[dict[str, Any]]:
    """Yield rows of the table `abc_metrics`, without its first columns.

    Metrics are averaged for each prompt kind, over all models, by category and by number of exemplars.
    """
    kinds = one.labels["prompt_kind"]
    for kind in dict.fromkeys(kinds.tolist()):
        members = np.flatnonzero(kinds == kind)
        groups = [("all", "all", members), *split_into_strata(one, members)]
        for by, name, some in groups:
            for row in summarize(one, some):
                yield {"prompt_kind": kind, "group_by": by, "group": name, **row}
