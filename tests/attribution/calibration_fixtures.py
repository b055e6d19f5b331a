"""Similarities of generated benchmarks, and the formulas of calibrators over whole pools."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.special import expit, logsumexp, softmax

from attrib_core.attribution.calibration import calibrate
from attrib_core.attribution.calibration.pool_aware import Parameters
from attrib_core.attribution.calibration.similarities import SimilarityBatch, read_similarities
from attrib_core.storage import tables
from tests.attribution.ranking_fixtures import World, ranked

WHOLE_POOL = "published_whole_pool"
HISTOGRAM_ERROR = 5e-4
"""Largest error of a query's likelihood here: the similarities of the histogram are rounded (`mixed_precision`)."""


class Case(NamedTuple):
    world: World
    ranks: pa.Table
    candidates: Path
    exemplars: pa.Table


def case_of(
    folder: Path,
    generated: World,
    *,
    splits: tuple[str, ...] = ("validation", "test"),
    top_k: int = 20,
    bins: int = 2048,
) -> Case:
    """Ranks and candidates of a world; sets are in the splits in turn, those of several exemplars are styles."""
    found = ranked(generated.write(folder), top_k=top_k, bins=bins)
    tables.write(folder / "candidates.parquet", "candidates", found.candidates)
    exemplars = [
        {
            "exemplar_set": name,
            "kind": "style" if len(vectors) > 1 else "object",
            "split": splits[number % len(splits)],
        }
        for number, (name, vectors) in enumerate(generated.exemplars.items())
    ]
    return Case(generated, found.ranks, folder / "candidates.parquet", pa.Table.from_pylist(exemplars))


def batches(case: Case, split: str = "validation") -> list[SimilarityBatch]:
    return list(read_similarities(case.ranks, case.candidates, case.exemplars, split))


def all_cosines(case: Case, query: str) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of one query in float64: to its exemplars, and to all distractors."""
    name, number = query.rsplit("-q", 1)
    vector = case.world.queries[name][int(number)].astype(np.float64)
    excluded = set(case.world.excluded)
    kept = [i for i, row in enumerate(case.world.pool_ids) if row not in excluded]
    return case.world.exemplars[name].astype(np.float64) @ vector, case.world.pool[kept].astype(
        np.float64
    ) @ vector


def published_shares(own: np.ndarray, others: np.ndarray, tau: float, bias: float) -> np.ndarray:
    """Shares of the published formula over all candidates."""
    similarity = np.concatenate([own, others])
    weight = np.maximum(np.exp((similarity - similarity.max()) / tau) + bias, 0)
    return weight / weight.sum()


def single_query_batch(
    own: np.ndarray, others: np.ndarray, *, top: int = 100, bins: int = 2048
) -> SimilarityBatch:
    """A batch of one query from all its similarities: exemplars, top distractors, bins of the rest."""
    ranked = np.sort(others)[::-1]
    place = np.clip(((ranked[top:] + 1.0) / 2.0 * bins).astype(int), 0, bins - 1)
    counts, sums = np.bincount(place, minlength=bins), np.bincount(place, ranked[top:], bins)
    filled = counts > 0
    similarity = np.concatenate([own, ranked[:top], sums[filled] / counts[filled]])
    singles = len(own) + min(top, len(others))
    return SimilarityBatch(
        queries=["q"],
        kinds=["object"],
        sets=["s"],
        query=np.zeros(len(similarity), int),
        similarity=similarity,
        gap=similarity - similarity.max(),
        count=np.concatenate([np.ones(singles), counts[filled]]),
        exemplars=len(own),
        top=singles - len(own),
        ids=[f"c{i}" for i in range(singles)],
        distractors_above=np.zeros(len(own), int),
        siblings_above=np.arange(len(own)),
    )


def pool_aware_shares(
    own: np.ndarray, others: np.ndarray, p: Parameters, absent: float
) -> tuple[np.ndarray, float]:
    """Shares and mass of "none of these" of the pool-aware formula in float64 over all candidates."""
    s = np.concatenate([own, others])
    z = (s - s.mean()) / s.std() / p.tau
    none = expit(p.level + np.log(absent / (1 - absent)) - p.slope * (logsumexp(z) - np.log(len(z))))
    return (1 - p.floor) * softmax(z) + p.floor / len(z), float(none)


def calibrated(
    case: Case, shown: int = 20, kinds: tuple[str, ...] | None = None, form: str = WHOLE_POOL
) -> tuple[calibrate.Calibrated, list[dict[str, Any]]]:
    saved: list[pa.Table] = []
    done = calibrate.calibrate(
        ranks=case.ranks,
        candidates=case.candidates,
        exemplars=case.exemplars,
        save=saved.append,
        shown=shown,
        kinds=kinds,
        forms=[form],
        pool_shares=[0.5],
    )
    return done, pa.concat_tables(saved).to_pylist()


def fitted_parameters(done: calibrate.Calibrated) -> tuple[float, float]:
    found = done.calibrator["forms"][WHOLE_POOL]
    return found["tau"], found["bias"]
