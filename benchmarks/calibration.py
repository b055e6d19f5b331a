"""Compare the published calibrator with the pool-aware one, on a run and on data with known truth.

    python benchmarks/calibration.py --run results/demo --pools 1000 10000 100000 1000000

Synthetic data: the cosines of a query are drawn; those to distractors from N(m, 0.08^2), that to its one exemplar
from N(m + 0.42, 0.10^2), or, one time in ten, from the distractors' distribution (customization without effect). m
varies between queries (standard deviation 0.05). So the posterior of every candidate and of "none" is known: the best
value that any calibrator can reach. All calibrators are fitted with `--fitted` distractors and evaluated on other
queries at every size. A run: the validation and test split of each encoder and mapper, the pool subsampled by the
names of its images.

    published              published loss (softplus, only the top 100), applied with relu to the entire pool
    published, softplus    the same fit applied with the softplus of its loss instead of the relu
    published, whole pool  the published formula by maximum likelihood with the entire pool in the sum
    ours                   `attribution.calibration.pool_aware`

NLL: nats per query, exemplars given that they are in the pool. Mixture: half of the queries without their
exemplars, "none of these" as an outcome. none: share of queries without their exemplars, and with them, that
are answered with "none of these"; pairs: for one query without and one with them, how often the former has more
mass of it. Displayed ECE: of the shares times one minus "none", on the mixture, with "none" as an outcome. Infinite:
an exemplar, or "none", had a share of 0.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from attrib_core.attribution.calibration import auc
from attrib_core.attribution.calibration.calibration_metrics import CalibrationMetrics
from attrib_core.attribution.calibration.calibrators import CALIBRATORS, fit_calibrator
from attrib_core.attribution.calibration.published_fit import BETA
from attrib_core.attribution.calibration.similarities import (
    EXEMPLAR_COLUMNS,
    RANK_COLUMNS,
    SimilarityBatch,
    read_similarities,
)
from attrib_core.attribution.calibration.subsampling import subsample_pool
from attrib_core.common import hashing
from attrib_core.storage import tables

NOISE, SPREAD, OWN, SHIFT, LOST, ABSENT = 0.08, 0.05, 0.10, 0.42, 0.1, 0.5
TOP, BINS = 100, 2048
BEST = "best possible"


class Softplus(NamedTuple):
    """The published fit with the weights that it was trained with."""

    fitted: Any

    def shares(self, one: SimilarityBatch) -> np.ndarray:
        u = np.exp(one.gap / self.fitted.tau)
        weight = np.logaddexp(0.0, BETA * (u + self.fitted.bias)) / BETA
        share: np.ndarray = weight / one.total(one.count * weight)[one.query]
        return share

    def none_mass(self, one: SimilarityBatch) -> np.ndarray:
        return np.zeros(len(one.queries))


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Print the tables; a row a data set, pool size and method."""
    options = _options(arguments)
    rows = list(_synthetic(options))
    if options.run:
        rows += _of_run(options.run, options)
    _print(rows)
    return rows


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="folder of a run: results/NAME")
    parser.add_argument("--pools", type=int, nargs="+", default=[1000, 10_000, 100_000], help="distractors")
    parser.add_argument(
        "--fitted", type=int, default=10_000, help="distractors at which calibrators are fitted"
    )
    parser.add_argument("--queries", type=int, default=400, help="of each split, four a model")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[1.0, 0.25, 0.0625], help="of the run's pool"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def _fit(batches: list[SimilarityBatch]) -> dict[str, Any]:
    found = {name: fit_calibrator(name, batches, ABSENT).calibrator for name in CALIBRATORS}
    return {
        "published": found["published"],
        "published, softplus": Softplus(found["published"]),
        "published, whole pool": found["published_whole_pool"],
        "ours": found["pool_aware"],
    }


def _synthetic(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    calibrators = _fit([_draw(options.seed, "validation", options.fitted, options.queries)[0]])
    for size in options.pools:
        one, best = _draw(options.seed, "test", size, options.queries)
        names = {"data": "synthetic", "pool": size}
        yield from (
            names | {"method": name} | _evaluate(calibrator, [one], options)
            for name, calibrator in calibrators.items()
        )
        yield names | {"method": BEST} | best


def _draw(seed: int, split: str, size: int, queries: int) -> tuple[SimilarityBatch, dict[str, Any]]:
    """Drawn queries with their similarities, and what the true posterior reaches on them."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("own", "top", "mean", "count")}
    names = ("nll", "mixture", "none", "wrong", "absent", "present")
    losses: dict[str, list[float]] = {name: [] for name in names}
    for number in range(queries):
        rng = hashing.generator(seed, "calibration benchmark", split, size, number)
        centre = 0.1 + SPREAD * rng.standard_normal()
        others = centre + NOISE * rng.standard_normal(size)
        if rng.random() < LOST:
            own = centre + NOISE * rng.standard_normal()
        else:
            own = centre + SHIFT + OWN * rng.standard_normal()
        _truth(own, others, centre, losses)
        ranked = np.partition(others, size - TOP)
        columns["own"].append(np.array([own]))
        columns["top"].append(np.sort(ranked[size - TOP :])[::-1])
        rest = ranked[: size - TOP]
        place = np.clip(((rest + 1.0) / 2.0 * BINS).astype(np.intp), 0, BINS - 1)
        counts = np.bincount(place, minlength=BINS)
        columns["mean"].append(np.bincount(place, rest, BINS)[counts > 0] / counts[counts > 0])
        columns["count"].append(counts[counts > 0].astype(float))
    parts = [columns[name] for name in ("own", "top", "mean")]
    similarity = np.concatenate([value for part in parts for value in part])
    query = np.concatenate([np.repeat(np.arange(queries), [len(value) for value in part]) for part in parts])
    highest = np.full(queries, -np.inf)
    np.maximum.at(highest, query, similarity)
    batch = SimilarityBatch(
        queries=[f"{split}{i}" for i in range(queries)],
        kinds=["object"] * queries,
        sets=[f"{split}{i // 4:05d}" for i in range(queries)],
        query=query,
        similarity=similarity,
        gap=similarity - highest[query],
        count=np.concatenate([np.ones(queries * (TOP + 1)), *columns["count"]]),
        exemplars=queries,
        top=queries * TOP,
        ids=[str(i) for i in range(queries * (TOP + 1))],
        distractors_above=np.zeros(queries, int),
        siblings_above=np.zeros(queries, int),
    )
    absent, present = (np.array(losses.pop(name)) for name in ("absent", "present"))
    pairs, _ = auc.components(present, absent)
    found = {name: float(np.mean(value)) for name, value in losses.items()}
    found["pairs"] = float(pairs.mean())
    return batch, found | {"low": None, "high": None, "ece": None, "displayed": None}


def _truth(own: float, others: np.ndarray, centre: float, losses: dict[str, list[float]]) -> None:
    """Posterior by Bayes' rule: any of M candidates alike is the source, or none with probability 1/2."""

    def ratio(s: np.ndarray) -> np.ndarray:
        """Density of an exemplar over that of a distractor."""
        match = np.exp(((s - centre) / NOISE) ** 2 / 2 - ((s - centre - SHIFT) / OWN) ** 2 / 2) * NOISE / OWN
        mixed: np.ndarray = LOST + (1.0 - LOST) * match
        return mixed

    mine, rest = float(ratio(np.array(own))), float(ratio(others).sum())
    total, m = mine + rest, len(others) + 1
    without = (m - 1) / (rest + m - 1)
    losses["nll"].append(-np.log(mine / total))
    losses["mixture"].append(-0.5 * np.log(mine / (total + m)) - 0.5 * np.log(without))
    losses["none"].append(float(without > 0.5))
    losses["wrong"].append(float(m / (total + m) > 0.5))
    losses["absent"].append(without)
    losses["present"].append(m / (total + m))


def _of_run(run: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    exemplars = tables.read(run / "exemplars.parquet", "exemplars", EXEMPLAR_COLUMNS)
    for path in sorted(run.glob("ranks/*/*.parquet")):
        encoder, mapper = path.parent.name, path.stem
        ranks = tables.read(path, "ranks", RANK_COLUMNS)
        trained_on = mapper.rsplit("-", 1)[-1]
        kinds = [trained_on] if trained_on in ("object", "style") else None
        validation, test = (
            list(read_similarities(ranks, run / "candidates" / encoder / path.name, exemplars, split, kinds))
            for split in ("validation", "test")
        )
        calibrators = _fit(validation)
        pool = ranks.column("n_distractors")[0].as_py()
        for share in options.shares:
            part = [subsample_pool(one, share, options.seed) for one in test]
            names = {"data": f"{encoder} {mapper}", "pool": round(share * pool)}
            yield from (
                names | {"method": name} | _evaluate(calibrator, part, options)
                for name, calibrator in calibrators.items()
            )


def _evaluate(calibrator: Any, batches: list[SimilarityBatch], options: argparse.Namespace) -> dict[str, Any]:
    metrics = CalibrationMetrics(calibrator, shown=TOP, absent_share=ABSENT)
    for one in batches:
        metrics.add(one)
    found = {row["metric"]: row for row in metrics.rows() if row["kind"] == "all"}
    likelihood = found["negative_log_likelihood"]
    return {
        "nll": likelihood["value"],
        "low": likelihood["ci_low"],
        "high": likelihood["ci_high"],
        "ece": found["expected_calibration_error"]["value"],
        "mixture": found["mixture_negative_log_likelihood"]["value"],
        "none": found["none_said_held_out"]["value"],
        "wrong": found["none_said"]["value"],
        "displayed": found["mixture_expected_calibration_error"]["value"],
        "pairs": found["none_auc"]["value"],
    }


def _print(rows: list[dict[str, Any]]) -> None:
    heads = ["data", "pool", "method", "NLL [95 %]", "ECE, %", "mixture NLL", "displayed ECE, %"]
    heads += ["none: absent, %", "present, %", "pairs, %"]
    print(f"| {' | '.join(heads)} |")
    print(f"|{' --- |' * len(heads)}")
    for row in rows:
        interval = "" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]"
        ece, displayed = (
            "" if row[name] is None else f"{100 * row[name]:.1f}" for name in ("ece", "displayed")
        )
        print(
            f"| {row['data']} | {row['pool']:,} | {row['method']} | {row['nll']:.3f}{interval} | {ece}"
            f" | {row['mixture']:.3f} | {displayed} | {100 * row['none']:.0f} | {100 * row['wrong']:.0f}"
            f" | {100 * row['pairs']:.0f} |"
        )
    groups = sorted({(row["data"], row["pool"]) for row in rows})
    for data, pool in groups:
        values = {r["method"]: r["nll"] for r in rows if (r["data"], r["pool"]) == (data, pool)}
        better = [name for name in values if name not in ("ours", BEST) and values[name] <= values["ours"]]
        if better:
            print(f"not better than {', '.join(better)}: {data} at {pool:,}")


if __name__ == "__main__":
    main()
