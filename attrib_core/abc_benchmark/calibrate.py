"""Calibrate influence on AbC test cases: rank, fit, evaluate, and compute soft scores.

Ranking (`ranking.rank.rank_group`), fitting and evaluation (`attribution.calibration`) are those of the
workflow; only the files that pool, exemplars and queries come from are different.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from attrib_core.abc_benchmark import test_cases
from attrib_core.abc_benchmark.evaluate import check_dimensions
from attrib_core.abc_benchmark.feature_files import Matrix
from attrib_core.abc_benchmark.mapper_files import Mapper
from attrib_core.abc_benchmark.test_cases import Queries, TestCase, categories, exemplar_digest
from attrib_core.abc_benchmark.unit_vectors import UnitVectors, prepare, read_rows, rows_at_once
from attrib_core.attribution.calibration import calibrate
from attrib_core.attribution.calibration.calibrators import Fitted
from attrib_core.attribution.calibration.evaluate import Evaluation, evaluate
from attrib_core.attribution.calibration.similarities import CONDITION, SimilarityBatch, read_similarities
from attrib_core.attribution.calibration.soft_scores import soft_scores
from attrib_core.attribution.ranking import embedding_stream, fixed_point
from attrib_core.attribution.ranking import rank as ranking
from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.runtime.progress import progress
from attrib_core.storage import tables

LOGGER = logging.getLogger(__name__)
BAD_ROWS = ("refuse", "drop")
REMEDY = "; with --bad-rows drop such rows are left out"
KIND_BY_PROMPT_KIND = {"media": "object", "object": "style"}
"""Kind of the exemplar sets, by the prompt kind that the published files have for this kind only."""
SPLIT = "released"  # in the tables passed from ranking to calibration, which have one split
QUERY_BLOCK, POOL_BLOCK, QUERY_GROUP = 512, 16384, 4096


class Ranked(NamedTuple):
    """The ranked queries of one prompt kind of a test case, as calibration reads them."""

    prompt_kind: str
    ranks: pa.Table
    candidates: Path
    exemplars: pa.Table

    def batches(self) -> Iterator[SimilarityBatch]:
        """Yield the similarities of some hundred queries at a time."""
        return read_similarities(self.ranks, self.candidates, self.exemplars, SPLIT)


def kinds_of(test: TestCase, path: Path | None) -> list[str]:
    """Return the kind of each model, 'object' or 'style'.

    It follows from the JSON at `path`, where styles have no category, or without one from the prompt kinds of
    the file. Raises InputError where these are ambiguous.
    """
    if path is not None:
        return ["style" if name is None else "object" for name in categories(test, path)]
    prompts = [one.prompt_kind for one in test.queries]
    found = {KIND_BY_PROMPT_KIND[name] for name in prompts if name in KIND_BY_PROMPT_KIND}
    if len(found) != 1:
        raise InputError(
            f"{test.path}: prompt kinds {', '.join(prompts)} do not distinguish objects from styles; expected 'media'"
            " (objects) or 'object' (styles) among them, or the file's JSON (--cases, --fit-cases)"
        )
    return [found.pop()] * len(test.chunks)


def check_disjoint(fit_tests: Sequence[TestCase], tests: Sequence[TestCase]) -> None:
    """Raise InputError where a model to evaluate on has the exemplars of a model to fit on."""
    known, others = ((one for test in some for one in _digests(test)) for some in (fit_tests, tests))
    reason = "the calibrators are evaluated on their training data"
    if fit_tests:
        test_cases.check_disjoint(known, others, option="--test", of="--fit", reason=reason)


def _digests(test: TestCase) -> Iterator[tuple[str, str]]:
    blocks = test.exemplars.blocks(rows_at_once(test.exemplars.dim))
    vectors = np.concatenate([block.vectors for block in blocks])
    for model, (start, stop) in enumerate(test.chunks.tolist()):
        yield _set_name(test, model), exemplar_digest(vectors[start:stop])


def count_distractors(pool: Matrix, mapper: Mapper, bad_rows: str) -> int:
    """Return how many rows of the pool are ranked; 'drop' reads it once, to count rows with a direction."""
    option = _prepare_option(bad_rows)
    if option == "refuse":
        return pool.rows
    blocks = pool.blocks(rows_at_once(pool.dim))
    good = sum(int(prepare(one, mapper.real, pool.where, option).good.sum()) for one in blocks)
    if not good:
        raise InputError(f"{pool.where}: none of {pool.rows} rows has a direction, expected some")
    if good < pool.rows:
        LOGGER.info(
            "%d of %d rows of the pool have no direction and are left out", pool.rows - good, pool.rows
        )
    return good


def rank(
    pool: Matrix,
    test: TestCase,
    kinds: Sequence[str],
    folder: Path,
    *,
    mapper: Mapper,
    labels: Mapping[str, str],
    top_k: int,
    bins: int,
    max_queries: int | None = None,
    seed: int = 0,
    bad_rows: str = "refuse",
    distractors: int | None = None,
    query_group: int = QUERY_GROUP,
    pool_block: int = POOL_BLOCK,
) -> Iterator[Ranked]:
    """Rank the queries of a test case, one prompt kind after the other; candidates go to files in `folder`.

    kinds        kind of each model, see `kinds_of`
    labels       'encoder' and 'mapper' as the tables name them
    top_k, bins  see `attribution.ranking.rank.rank`
    max_queries  sample at most this many queries of each model and prompt kind, by the seed; None: all
    bad_rows     for rows that are not finite or zero, 'refuse': raise InputError; 'drop': leave them out of
                 the pool, the exemplars and the queries, and drop the queries of a model without exemplars
    distractors  rows of the pool that are ranked, see `count_distractors`; None: counted here
    query_group  queries for which the pool is read once; with pool_block it bounds the memory

    Raises InputError where pool, test and mapper differ in dimension, for rows that are refused, and where
    no query of a prompt kind is left.
    """
    check_dimensions(pool, test, mapper)
    if distractors is None:
        distractors = count_distractors(pool, mapper, bad_rows)
    names = [_set_name(test, model) for model in range(len(test.chunks))]
    own = _exemplar_sets(test, mapper, names, bad_rows)
    has_exemplars = np.array([name in own for name in names])
    exemplars = pa.table({"exemplar_set": names, "kind": list(kinds), "split": [SPLIT] * len(names)})
    for number, queries in enumerate(test.queries):
        chosen = _sample_queries(test, queries, max_queries, seed)
        path = folder / f"{test.path.stem}-{number}.parquet"
        parts, dropped = [], 0
        with tables.writer(path, tables.schema("candidates")) as sink:
            for start in range(0, queries.features.rows, query_group):
                stop = min(start + query_group, queries.features.rows)
                rows = np.flatnonzero(chosen[start:stop])
                if not len(rows):
                    continue
                vectors = read_rows(
                    queries.features, mapper.synth, _prepare_option(bad_rows), start, stop, remedy=REMEDY
                )
                models = queries.models[start:stop]
                kept = rows[vectors.good[rows] & has_exemplars[models[rows]]]
                dropped += len(rows) - len(kept)
                if not len(kept):
                    continue
                sets = [names[model] for model in models[kept]]
                ids = [f"{test.path.stem}/{queries.prompt_kind}/{start + row}" for row in kept]
                what = f"blocks of the pool ({test.path.stem} {queries.prompt_kind}, queries {start + 1} to {stop})"
                found = ranking.rank_group(
                    embedding_stream.EmbeddingBlock(ids, _good_rows(vectors, vectors.vectors.unit, kept)),
                    [own[name] for name in sets],
                    _blocks(pool, mapper, pool_block, what, bad_rows),
                    labels=_labels(labels, ids, sets, queries.prompt_kind),
                    distractors=distractors,
                    top_k=top_k,
                    bins=bins,
                    query_block=QUERY_BLOCK,
                )
                parts.append(found.ranks)
                sink.write(found.candidates)
        if dropped:
            LOGGER.info(
                "%d of %d queries (%s %s) have no direction, or no exemplar with one, and are left out",
                dropped, int(chosen.sum()), test.path.stem, queries.prompt_kind,
            )  # fmt: skip
        if not parts:
            raise InputError(
                f"{queries.features.where}: no row with a direction has an exemplar with one, expected some"
            )
        yield Ranked(queries.prompt_kind, pa.concat_tables(parts), path, exemplars)


def fit(ranked: Sequence[Ranked], names: Sequence[str], absent_share: float) -> dict[str, Fitted]:
    """Fit calibrators on all queries, with equal weight."""
    batches = [batch for one in ranked for batch in one.batches()]
    return calibrate.fit_calibrators(batches, names, absent_share)


def evaluate_calibrators(
    fitted: Mapping[str, Fitted], ranked: Ranked, save: Callable[[pa.Table], None] | None, **options: Any
) -> Evaluation:
    """Evaluate calibrators on the queries of one prompt kind, and pass the soft scores of the first to `save`.

    The options are those of `calibration.evaluate.evaluate`.
    """
    first = next(iter(fitted.values())).calibrator
    names = {name: ranked.ranks.column(name)[0].as_py() for name in ("encoder", "mapper")}

    def queries() -> Iterator[SimilarityBatch]:
        for one in ranked.batches():
            if save is not None:
                save(soft_scores(one, first, shown=options["shown"], **names))
            yield one

    return evaluate(fitted, queries(), **options)


def describe_queries(ranked: Sequence[Ranked]) -> dict[str, Any]:
    """Return kinds and numbers of the queries that calibrators were fitted on, for their file."""
    kinds = {row["exemplar_set"]: row["kind"] for one in ranked for row in one.exemplars.to_pylist()}
    sets = {name for one in ranked for name in one.ranks["exemplar_set"].unique().to_pylist()}
    return {
        "kinds": sorted({kinds[name] for name in sets}),
        "queries": sum(len(one.ranks["query_id"].unique()) for one in ranked),
        "exemplar_sets": len(sets),
        "distractors": ranked[0].ranks["n_distractors"][0].as_py(),
    }


def _set_name(test: TestCase, model: int) -> str:
    return f"{test.path.stem}/{model:06d}"


def _prepare_option(bad_rows: str) -> str:
    """Return the option of `unit_vectors.prepare`, whose 'last' marks bad rows and leaves out their vectors."""
    if bad_rows not in BAD_ROWS:
        raise InputError(f"--bad-rows: {bad_rows!r}, expected one of {', '.join(BAD_ROWS)}")
    return "last" if bad_rows == "drop" else bad_rows


def _exemplar_sets(
    test: TestCase, mapper: Mapper, names: Sequence[str], bad_rows: str
) -> dict[str, ranking.ExemplarSet]:
    """Return the exemplars with a direction of each model that has any."""
    found = read_rows(test.exemplars, mapper.real, _prepare_option(bad_rows), remedy=REMEDY)
    points = fixed_point.fixed_point(found.vectors.unit)
    if len(points) < test.exemplars.rows:
        LOGGER.info(
            "%d of %d exemplars of %s have no direction and are left out",
            test.exemplars.rows - len(points), test.exemplars.rows, test.path.stem,
        )  # fmt: skip
    ids = test.exemplar_paths or [f"{test.path.stem}/exemplar/{row}" for row in range(test.exemplars.rows)]
    sets = {}
    for name, (start, stop) in zip(names, test.chunks.tolist(), strict=True):
        rows = start + np.flatnonzero(found.good[start:stop])
        if len(rows):
            sets[name] = ranking.ExemplarSet(
                [ids[row] for row in rows.tolist()], _good_rows(found, points, rows)
            )
    return sets


def _good_rows(vectors: UnitVectors, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the values of some good rows, numbered as in their matrix; `values` has the good rows only."""
    return values[(np.cumsum(vectors.good) - 1)[rows]]


def _sample_queries(test: TestCase, queries: Queries, max_queries: int | None, seed: int) -> np.ndarray:
    """Sample queries, (rows,) bool; the sample of a model does not depend on the other models."""
    chosen = np.ones(len(queries.models), bool)
    if max_queries is None:
        return chosen
    for model in np.unique(queries.models).tolist():
        rows = np.flatnonzero(queries.models == model)
        generator = hashing.generator(seed, "queries to fit on", test.path.stem, queries.prompt_kind, model)
        chosen[generator.permutation(rows)[max_queries:]] = False
    return chosen


def _labels(
    labels: Mapping[str, str], ids: Sequence[str], sets: Sequence[str], prompt_kind: str
) -> ranking.Labels:
    rows = {
        name: dict(query_id=name, exemplar_set=own, condition=CONDITION, prompt_kind=prompt_kind)
        for name, own in zip(ids, sets, strict=True)
    }
    return ranking.Labels(labels["encoder"], labels["mapper"], rows)


def _blocks(
    pool: Matrix, mapper: Mapper, rows: int, what: str, bad_rows: str
) -> Iterator[embedding_stream.EmbeddingBlock]:
    for block in progress(pool.blocks(rows), total=-(-pool.rows // rows), what=what):
        names = block.names or [f"row {block.start + row:09d}" for row in range(len(block.vectors))]
        found = prepare(block, mapper.real, pool.where, _prepare_option(bad_rows), REMEDY)
        if len(found.vectors.unit):
            yield embedding_stream.EmbeddingBlock(
                [names[row] for row in np.flatnonzero(found.good).tolist()], found.vectors.unit
            )
