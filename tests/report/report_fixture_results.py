"""The second half of the made-up run: ranks, candidates, metrics, calibration, times.

Everything is computed from the cosines of the fixture's latent vectors by the
plainest means (a full sort), so that the tables agree with each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attrib_core.attribution.metrics import measure
from attrib_core.common import hashing
from attrib_core.storage import tables

TOP_K, BINS, KS = 20, 2048, (5, 10, 100)
METRICS = [*(("recall_at_k", k) for k in KS), ("mean_average_precision", None), ("median_rank", None)]
MAPPERS = ("untuned", "linear-object", "linear-style")
WEIGHTS = {  # how much each encoder sees of object, category, style, background
    ("pixel", "untuned"): (0.45, 0.2, 0.7, 1.3),
    ("pixel", "linear-object"): (0.62, 0.2, 0.6, 0.9),
    ("pixel", "linear-style"): (0.45, 0.2, 0.9, 0.9),
    ("efficientnet", "untuned"): (0.75, 0.7, 0.45, 0.4),
    ("efficientnet", "linear-object"): (0.95, 0.5, 0.4, 0.3),
    ("efficientnet", "linear-style"): (0.4, 0.5, 0.9, 0.3),
}
WIDTHS = (24, 8, 12, 10)


def write_results(run: Path, world: Any, encoders: Sequence[str]) -> None:
    """Write ranks, candidates, metrics, calibration, mapper, index and benchmark files."""
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
            _write_calibration(run / "calibration" / where, world, ranked, encoder, mapper)
            stored = dict(factory="Flat", rows=len(pool), dim=54, queries=64, k=10, recall_at_k=1.0)
            tables.write_json(run / f"indices/{where}.json", stored)
            if mapper != "untuned":
                _write_tuning(run / "mappers" / where, encoder, mapper)
    tables.write(run / "metrics.parquet", "metrics", measured)
    tables.write(run / "comparisons.parquet", "comparisons", compared)
    _write_finer(run)
    _write_benchmarks(run / "benchmarks", encoders)


def _write_finer(run: Path) -> None:
    """Strata and the matched comparison, with all categories alike."""
    paths = sorted(run.glob("ranks/*/*.parquet"))
    exemplars = tables.read(run / "exemplars.parquet", "exemplars", [*measure.EXEMPLAR_COLUMNS, "category"])
    systems = measure.systems(
        [(str(path), tables.read(path, "ranks", measure.RANK_COLUMNS)) for path in paths],
        exemplars,
        recall_ks=KS,
    )
    alike = [sorted(set(filter(None, exemplars["category"].to_pylist())))]
    tables.write(run / "strata.parquet", "strata", list(measure.strata(systems, resamples=100, seed=1)))
    rows = list(measure.matched(systems, resamples=100, seed=1, alike=alike))
    tables.write(run / "matched.parquet", "matched", rows)


def _unit(latents: np.ndarray, encoder: str, mapper: str) -> np.ndarray:
    weighted = latents * np.repeat(WEIGHTS[encoder, mapper], WIDTHS)
    return weighted / np.linalg.norm(weighted, axis=1, keepdims=True)


def _rank(world: Any, pool: list[int], encoder: str, mapper: str) -> Iterator[dict[str, Any]]:
    """Ranks, candidates and all cosines of each query."""
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
    """Means over queries with a small bootstrap over models, by every grouping of the schema."""
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
            low, high = _bootstrap(values, models)
            value = values.mean()
            if metric == "median_rank":
                low, value, high = np.quantile(values, [0.4, 0.5, 0.6])
            rows.append(
                dict(
                    encoder=encoder, mapper=mapper, condition=condition, split=split, kind=kind, seen=seen,
                    prompt_kind=prompt_kind, metric=metric, k=k, value=value, ci_low=low, ci_high=high,
                    ceiling=ceilings.mean(), chance=chances.mean(), n_queries=len(items),
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
    """Differences of the means of each model, customized against something else."""

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
            low, high = _bootstrap(one - other, np.arange(len(one)))
            rows.append(
                dict(
                    encoder=encoder, comparison=comparison, mapper=mapper, condition="customized",
                    against_mapper=mapper if comparison == "condition" else against[0],
                    against_condition=against[1], split=split, kind=kind, seen="all", prompt_kind="all",
                    metric=metric, k=k, value=one.mean(), against_value=other.mean(),
                    difference=(one - other).mean(), ci_low=low, ci_high=high, p_value=0.01, n_models=len(one),
                )
            )  # fmt: skip
    return rows


def _score(item: dict[str, Any], k: int | None, metric: str = "") -> tuple[float, float, float]:
    """Value, ceiling and chance of one query; recall where k is given, else average precision or best rank."""
    positions = np.sort([1 + row["n_above"] + row["n_siblings_above"] for row in item["ranks"]])
    count, total = len(positions), len(positions) + item["ranks"][0]["n_distractors"]
    if k is not None:
        return float((positions <= k).mean()), min(k, count) / count, min(1.0, k / total)
    if metric == "median_rank":
        return float(positions[0]), 1.0, total / (count + 1)
    hits = np.arange(1, count + 1)
    harmonic = float((1 / np.arange(1, total + 1)).sum())
    return float((hits / positions).mean()), 1.0, harmonic / total


def _bootstrap(values: np.ndarray, models: np.ndarray) -> tuple[float, float]:
    means = np.array([values[models == model].mean() for model in np.unique(models)])
    rng = hashing.generator("report fixture", "bootstrap", len(means))
    drawn = means[rng.integers(len(means), size=(300, len(means)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _write_calibration(
    folder: Path, world: Any, ranked: list[dict[str, Any]], encoder: str, mapper: str, tau: float = 0.06
) -> None:
    soft, masses, reliability = [], [], []
    for item in ranked:
        query = item["query"]
        entry = world.sets[query["set"]]
        if query["condition"] != "customized" or entry["split"] != "test":
            continue
        if mapper not in ("untuned", f"linear-{entry['kind']}"):
            continue
        scores = np.concatenate([[row["similarity"] for row in item["ranks"]], item["scores"]])
        names = [row["exemplar_id"] for row in item["ranks"]] + item["names"]
        share = np.exp((scores - scores.max()) / tau)
        share /= share.sum()
        order = np.argsort(-scores)
        count = len(item["ranks"])
        for place, index in enumerate(order):
            if place < TOP_K or index < count:
                soft.append(
                    dict(
                        encoder=encoder, mapper=mapper, query_id=query["name"], candidate_id=names[index],
                        is_exemplar=bool(index < count), rank=place + 1, similarity=float(scores[index]),
                        influence=float(share[index]), none=0.0,
                    )
                )  # fmt: skip
        kind = world.sets[query["set"]]["kind"]
        kept = set(order[:TOP_K].tolist()) | set(range(count))
        masses.append((kind, share[:count].sum(), 1 - sum(share[i] for i in kept)))
        reliability += [(share[i], i < count, 1 / count) for i in kept]
    tables.write(folder / "soft_scores.parquet", "soft_scores", soft)
    rows = []
    for kind in ("all", *sorted({kind for kind, _, _ in masses})):
        mass = np.array([exemplar for name, exemplar, _ in masses if kind in (name, "all")])
        tail = np.array([rest for name, _, rest in masses if kind in (name, "all")])
        values = dict(
            negative_log_likelihood=-np.log(mass).mean(), expected_calibration_error=0.04,
            brier=((1 - mass) ** 2).mean(), exemplar_mass=mass.mean(), tail_mass=tail.mean(),
            mixture_negative_log_likelihood=3.1, mixture_expected_calibration_error=0.2, mixture_brier=0.7,
            none_said=0.2, none_said_held_out=0.6, none_said_control=0.55, none_auc=0.8,
        )  # fmt: skip
        rows += [
            dict(encoder=encoder, mapper=mapper, form=form, split="test", pool_share=share, kind=kind,
                 metric=metric, value=float(value + worse), ci_low=float(value),
                 ci_high=float(value + (0.1 if "none" in metric else 1)),
                 n_queries=len(mass), n_models=5)
            for form, worse in (("pool_aware", 0.0), ("published", 0.5), ("published_whole_pool", 0.2))
            for share in (1.0, 0.25)
            for metric, value in values.items()
        ]  # fmt: skip
    tables.write(folder / "calibration.parquet", "calibration", rows)
    edges = np.concatenate([[0, 1e-5, 1e-4, 1e-3, 1e-2], np.linspace(0.1, 1, 10)])
    shares = np.array([row[0] for row in reliability])
    truth = np.array([row[1] * row[2] for row in reliability])
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (shares >= low) & ((shares < high) | (high == 1))
        mean = (float(shares[inside].mean()), float(truth[inside].mean())) if inside.any() else (None, None)
        rows.append(
            dict(encoder=encoder, mapper=mapper, split="test", bin_low=low, bin_high=high, mean_influence=mean[0],
                 exemplar_share=mean[1], n_candidates=int(inside.sum()))
        )  # fmt: skip
    rows = [
        row | {"form": form, "judged": judged}
        for form in ("pool_aware", "published", "published_whole_pool")
        for judged in ("shares", "displayed")
        for row in rows
    ]
    tables.write(folder / "reliability.parquet", "reliability", rows)
    tables.write_json(folder / "calibrator.json", dict(tau=tau, floor=0.0))


def _write_tuning(stem: Path, encoder: str, mapper: str) -> None:
    """Curves that rise and fall again, less so with a stronger penalty; no gain for pixels.

    The style mapper of efficientnet begins at whitened features.
    """
    start, rows = 0.42, []
    names = dict(encoder=encoder, mapper=mapper)
    origin: dict[str, Any] = dict(start="identity", shrinkage=None)
    rows.append(names | origin | _point(None, 0, start))
    for shrinkage in (0.1, 0.3):
        other = dict(start="within", shrinkage=shrinkage)
        rows.append(names | other | _point(None, 0, start - 0.01 - shrinkage / 10))
    if (encoder, mapper) == ("efficientnet", "linear-style"):
        origin = other
    for penalty in (0.0, 0.01, 0.1, 1.0):
        for epoch in range(26):
            gain = epoch / 8 * np.exp(1 - epoch / (8 + 6 * penalty)) * (0.1 + 0.05 * (penalty == 0.1))
            gain = -0.3 * gain if encoder == "pixel" else gain
            rows.append(names | origin | _point(penalty, epoch, start + float(gain)))
    best = max(rows, key=lambda row: (row["validation_mean_average_precision"], row["penalty"] is None))
    best["chosen"] = True
    tables.write(stem.with_name(f"{stem.name}.curve.parquet"), "mapper_curve", rows)
    identity, gain = best["penalty"] is None, best["validation_mean_average_precision"] - start
    chosen = {name: best[name] for name in best if name not in ("loss", "drift", "chosen")}
    chosen |= dict(identity_is_best=identity, gain=gain)
    chosen |= dict(gain_low=0.5 * gain, gain_high=1.5 * gain, untuned_validation_mean_average_precision=start)
    choice = stem.with_name(f"{stem.name}.choice.json")
    tables.write_json(choice, chosen | dict(untuned_train_mean_average_precision=start))


def _point(penalty: float | None, epoch: int, value: float) -> dict[str, Any]:
    return dict(
        penalty=penalty, epoch=epoch, loss=None if epoch == 0 else float(3.2 * np.exp(-epoch / 9)),
        drift=0.01 * epoch, train_mean_average_precision=0.42 + 0.02 * epoch,
        validation_mean_average_precision=value, chosen=False,
    )  # fmt: skip


def _write_benchmarks(folder: Path, encoders: Sequence[str]) -> None:
    header = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    seconds = dict(pool_part=9.1, exemplars=2.2, customize_part=162.0, synthesize_part=64.5, measure=3.3)
    seconds |= {f"embed_pool_part/{encoder}": 17.0 for encoder in encoders}
    seconds |= {f"rank/{encoder}-{mapper}": 2.4 for encoder in encoders for mapper in MAPPERS}
    for name, value in seconds.items():
        for part in range(2 if "part" in name else 1):
            path = folder / (f"{name}/{part:04d}.tsv" if "part" in name else f"{name}.tsv")
            path.parent.mkdir(parents=True, exist_ok=True)
            numbers = "\t".join([f"{value + part:.4f}", "0:00:09", "812.4", "1", "1", "1", "0", "0", "98.0"])
            path.write_text(f"{header}{numbers}\t{value * 0.95:.2f}\n", encoding="utf-8")
