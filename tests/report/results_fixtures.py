"""The results of the simulated run: ranks, candidates, metrics and comparisons.

All are computed from the cosine similarities of the latent vectors by a full sort, so that the tables agree with each
other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attrib_core.attribution.metrics import measure
from attrib_core.common import intervals
from attrib_core.common.crossing import Crossing
from attrib_core.storage import tables
from tests.report.calibration_fixtures import write_benchmarks, write_calibration, write_tuning

TOP_K, BINS, KS = 20, 2048, (5, 10, 100)
METRICS = [*(("recall_at_k", k) for k in KS), ("mean_average_precision", None), ("median_rank", None)]
MAPPERS = ("untuned", "linear-object", "linear-style")
WEIGHTS = {  # of object, category, style and background in each encoder
    ("pixel", "untuned"): (0.45, 0.2, 0.7, 1.3),
    ("pixel", "linear-object"): (0.62, 0.2, 0.6, 0.9),
    ("pixel", "linear-style"): (0.45, 0.2, 0.9, 0.9),
    ("efficientnet", "untuned"): (0.75, 0.7, 0.45, 0.4),
    ("efficientnet", "linear-object"): (0.95, 0.5, 0.4, 0.3),
    ("efficientnet", "linear-style"): (0.4, 0.5, 0.9, 0.3),
}
WIDTHS = (24, 8, 12, 10)


def write_results(run: Path, world: Any, encoders: Sequence[str]) -> None:
    """Write ranks, candidates, metrics, comparisons, calibration, mapper, index and benchmark files."""
    measured: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []
    untuned: list[dict[str, Any]] = []
    excluded = {row.as_py() for row in tables.read(run / "excluded.parquet", "excluded")["image_id"]}
    pool = [i for i, thing in enumerate(world.pool) if thing.name not in excluded]
    for encoder in encoders:
        for mapper in MAPPERS:
            ranked = list(_rank(world, pool, encoder, mapper))
            where = f"{encoder}/{mapper}"
            tables.write(
                run / f"ranks/{where}.parquet", "ranks", [row for item in ranked for row in item["ranks"]]
            )
            rows = [item["candidates"] for item in ranked]
            tables.write(run / f"candidates/{where}.parquet", "candidates", rows)
            measured += _metrics(world, ranked, encoder, mapper)
            compared += _comparisons(
                world, ranked, ranked, ("untuned", "control"), encoder, mapper, "condition"
            )
            if mapper == "untuned":
                untuned = ranked
            else:
                compared += _comparisons(
                    world, ranked, untuned, ("untuned", "customized"), encoder, mapper, "mapper"
                )
            write_calibration(run / "calibration" / where, world, ranked, encoder, mapper, top_k=TOP_K)
            stored = dict(factory="Flat", rows=len(pool), dim=54, queries=64, k=10, recall_at_k=1.0)
            tables.write_json(run / f"indices/{where}.json", stored)
            if mapper != "untuned":
                write_tuning(run / "mappers" / where, encoder, mapper)
    tables.write(run / "metrics.parquet", "metrics", measured)
    tables.write(run / "comparisons.parquet", "comparisons", compared)
    _write_subgroups(run)
    write_benchmarks(run / "benchmarks", encoders, MAPPERS)


def _write_subgroups(run: Path) -> None:
    """Write strata and the matched comparison, with all categories in one group."""
    paths = sorted(run.glob("ranks/*/*.parquet"))
    exemplars = tables.read(run / "exemplars.parquet", "exemplars", [*measure.EXEMPLAR_COLUMNS, "category"])
    systems = measure.systems(
        [(str(path), tables.read(path, "ranks", measure.RANK_COLUMNS)) for path in paths],
        exemplars,
        recall_ks=KS,
    )
    alike = [sorted(set(filter(None, exemplars["category"].to_pylist())))]
    tables.write(run / "strata.parquet", "strata", list(measure.strata(systems)))
    rows = list(measure.matched(systems, resamples=100, seed=1, alike=alike))
    tables.write(run / "matched.parquet", "matched", rows)


def _unit(latents: np.ndarray, encoder: str, mapper: str) -> np.ndarray:
    weighted = latents * np.repeat(WEIGHTS[encoder, mapper], WIDTHS)
    return weighted / np.linalg.norm(weighted, axis=1, keepdims=True)


def _rank(world: Any, pool: list[int], encoder: str, mapper: str) -> Iterator[dict[str, Any]]:
    """Yield ranks, candidates and all similarities of each query."""
    distractors = _unit(world.pool_latent[pool], encoder, mapper)
    exemplars = _unit(world.exemplar_latent, encoder, mapper)
    names = [world.pool[i].name for i in pool]
    cosines = _unit(world.query_latent, encoder, mapper) @ distractors.T
    for number, query in enumerate(world.queries):
        entry = world.sets[query["set"]]
        own = [i for i, row in enumerate(world.exemplars) if row["set"] == query["set"]]
        positive = exemplars[own] @ _unit(world.query_latent[number : number + 1], encoder, mapper)[0]
        scores = cosines[number]
        ranks = [
            dict(
                encoder=encoder, mapper=mapper, query_id=query["name"], exemplar_set=entry["name"],
                condition=query["condition"], prompt_kind=query["prompt_kind"],
                exemplar_id=world.exemplars[i]["thing"].name, similarity=float(value),
                n_above=int((scores > value).sum()), n_tied=0, n_siblings_above=int((positive > value).sum()),
                n_siblings_tied=0, n_distractors=len(pool),
            )
            for i, value in zip(own, positive, strict=True)
        ]  # fmt: skip
        order = np.argsort(-scores)
        rest = scores[order[TOP_K:]]
        cells = np.clip(((rest + 1) / 2 * BINS).astype(int), 0, BINS - 1)
        candidates = dict(
            encoder=encoder, mapper=mapper, query_id=query["name"],
            candidate_ids=[names[i] for i in order[:TOP_K]], similarities=scores[order[:TOP_K]].tolist(),
            histogram=np.bincount(cells, minlength=BINS).tolist(),
            histogram_sums=np.bincount(cells, rest, minlength=BINS).tolist(),
        )  # fmt: skip
        yield dict(query=query, ranks=ranks, candidates=candidates, scores=scores, names=names)


def _metrics(world: Any, ranked: list[dict[str, Any]], encoder: str, mapper: str) -> list[dict[str, Any]]:
    """Means over queries with intervals over models, for every group of the schema."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for item in ranked:
        query, entry = item["query"], world.sets[item["query"]["set"]]
        for seen in ("all", "seen" if entry["seen"] else "unseen"):
            for prompt_kind in ("all", query["prompt_kind"]):
                key = (query["condition"], entry["split"], entry["kind"], seen, prompt_kind)
                groups.setdefault(key, []).append(item)
    rows = []
    for (condition, split, kind, seen, prompt_kind), items in sorted(groups.items()):
        models = np.array([item["query"]["set"] for item in items])
        for metric, k in METRICS:
            values, ceilings, chances = np.transpose([_score(item, k, metric) for item in items])
            value = values.mean()
            crossing = Crossing(models)
            spread = crossing.spread((values - value) / len(values))
            low, high, df = intervals.of_share(min(float(value), 1.0), spread, crossing.n_models)
            if metric == "median_rank":
                low, value, high = np.quantile(values, [0.4, 0.5, 0.6])
            rows.append(
                dict(
                    encoder=encoder, mapper=mapper, condition=condition, split=split, kind=kind, seen=seen,
                    prompt_kind=prompt_kind, metric=metric, k=k, value=value, ci_low=low, ci_high=high,
                    df=df, ceiling=ceilings.mean(), chance=chances.mean(), n_queries=len(items),
                    n_models=len(set(models.tolist())),
                )
            )  # fmt: skip
    return rows


def _comparisons(
    world: Any,
    ranked: list[dict[str, Any]],
    others: list[dict[str, Any]],
    against: tuple[str, str],
    encoder: str,
    mapper: str,
    comparison: str,
) -> list[dict[str, Any]]:
    """Differences of the means of each model, customized against control or another mapper."""

    def means(
        items: list[dict[str, Any]], condition: str, split: str, kind: str, k: int | None
    ) -> np.ndarray:
        values: dict[int, list[float]] = {}
        for item in items:
            number = item["query"]["set"]
            entry = world.sets[number]
            if (item["query"]["condition"], entry["split"], entry["kind"]) == (condition, split, kind):
                values.setdefault(number, []).append(_score(item, k)[0])
        return np.array([np.mean(values[number]) for number in sorted(values)])

    rows = []
    for split, kind in [(split, kind) for split in ("validation", "test") for kind in ("object", "style")]:
        for metric, k in [*(("recall_at_k", k) for k in KS), ("mean_average_precision", None)]:
            one = means(ranked, "customized", split, kind, k)
            other = means(others, against[1], split, kind, k)
            error = (one - other - (one - other).mean()) / len(one)
            low, high, df = intervals.of_mean(
                (one - other).mean(), Crossing(np.arange(len(one))).spread(error)
            )
            rows.append(
                dict(
                    encoder=encoder, comparison=comparison, mapper=mapper, condition="customized",
                    against_mapper=mapper if comparison == "condition" else against[0],
                    against_condition=against[1], split=split, kind=kind, seen="all", prompt_kind="all",
                    metric=metric, k=k, value=one.mean(), against_value=other.mean(),
                    difference=(one - other).mean(), ci_low=low, ci_high=high, df=df,
                    p_value=0.001, p_error=0.0, n_queries=8 * len(one), n_models=len(one),
                )
            )  # fmt: skip
    return rows


def _score(item: dict[str, Any], k: int | None, metric: str = "") -> tuple[float, float, float]:
    """Value, ceiling and chance of one query: recall for a k, otherwise average precision or best rank."""
    positions = np.sort([1 + row["n_above"] + row["n_siblings_above"] for row in item["ranks"]])
    count, total = len(positions), len(positions) + item["ranks"][0]["n_distractors"]
    if k is not None:
        return float((positions <= k).mean()), min(k, count) / count, min(1.0, k / total)
    if metric == "median_rank":
        return float(positions[0]), 1.0, total / (count + 1)
    hits = np.arange(1, count + 1)
    harmonic = float((1 / np.arange(1, total + 1)).sum())
    return float((hits / positions).mean()), 1.0, harmonic / total
