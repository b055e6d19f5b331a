"""Curves computed from ranks and candidates: recall over K, and distributions of similarities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from attrib_core.attribution.metrics import per_query
from attrib_core.attribution.metrics.metrics_table import Row
from attrib_core.storage import parquet_files, tables

COLUMNS = (
    "encoder", "mapper", "query_id", "exemplar_set", "condition", "exemplar_id", "similarity",
    "n_above", "n_tied", "n_siblings_above", "n_siblings_tied", "n_distractors",
)  # fmt: skip
BINS = 50
Key = tuple[str, str, str, str]
"""(encoder, mapper, kind, condition)"""
Shares = tuple[np.ndarray, np.ndarray]
"""A distribution of cosine similarities: (bins + 1,) edges and (bins,) shares that sum to 1."""


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves of the test queries of one encoder, mapper, kind and condition.

    ks (points,) int64; recall, chance, ceiling (points,) float64 at these cut-offs.
    """

    ks: np.ndarray
    recall: np.ndarray
    chance: np.ndarray
    ceiling: np.ndarray
    exemplars: Shares
    distractors: Shares


def read(
    ranks: Sequence[Path], candidates: Sequence[Path], sets: Sequence[Row], *, ties: str
) -> dict[Key, Curves]:
    """Compute the curves of the test split, with one file of ranks in memory at a time.

    `candidates` have the folder and file names of `ranks`; `sets` are rows with exemplar_set, kind and split.
    """
    tops = {(path.parent.name, path.stem): path for path in candidates}
    found: dict[Key, Curves] = {}
    for path in ranks:
        for kind in sorted({row["kind"] for row in sets}):
            names = [row["exemplar_set"] for row in sets if row["kind"] == kind and row["split"] == "test"]
            own = ds.field("exemplar_set").isin(pa.array(names, pa.string()))
            table = parquet_files.where(path, own, COLUMNS)
            for condition in ("customized", "control"):
                part = table.filter(pc.equal(table["condition"], condition))
                if part.num_rows:
                    encoder, mapper = path.parent.name, path.stem
                    found[encoder, mapper, kind, condition] = _curves(part, tops[encoder, mapper], ties)
    return found


def _curves(ranks: pa.Table, candidates: Path, ties: str) -> Curves:
    ks = cut_offs(int(ranks["n_distractors"][0].as_py()))
    chance, ceiling = bounds(ranks, ks)
    distractors = distractor_shares(candidates, ranks["query_id"].unique().to_pylist())
    recall = per_query.recall_curve(ranks, ks.tolist(), ties)
    return Curves(ks, recall, chance, ceiling, exemplar_shares(ranks), distractors)


def cut_offs(distractors: int, points: int = 60) -> np.ndarray:
    """Return integers from 1 to the number of distractors, spaced logarithmically, (<= points,) int64."""
    return np.unique(np.geomspace(1, max(2, distractors), points).round().astype(np.int64))


def bounds(ranks: pa.Table, ks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute chance and ceiling of recall at each of `ks`, averaged over queries.

    With n exemplars among N distractors chance is K / (N + n) and the ceiling is min(K, n) / n.
    """
    counts = pc.value_counts(ranks["query_id"]).field("counts").to_numpy(zero_copy_only=False)
    sizes, queries = np.unique(counts, return_counts=True)
    total = int(ranks["n_distractors"][0].as_py()) + sizes
    chance = np.minimum(1, ks[:, None] / total)
    ceiling = np.minimum(ks[:, None], sizes) / sizes
    weights = queries / queries.sum()
    return chance @ weights, ceiling @ weights


def distractor_shares(path: Path, queries: Sequence[str], bins: int = BINS) -> Shares:
    """Compute the distribution of the similarities of all distractors to some queries: (edges, share a bin).

    The similarities of the top candidates and the histogram of the rest cover all distractors exactly; the bins of
    the histogram, equal over [-1, 1], are summed into `bins` wider ones.
    """
    edges = np.linspace(-1, 1, bins + 1)
    total = np.zeros(bins)
    wanted = pa.array(sorted(queries), pa.string())
    for batch in tables.iterate([path], ["query_id", "similarities", "histogram"], 1024):
        kept = batch.filter(pc.is_in(batch.column("query_id"), value_set=wanted))
        if not kept.num_rows:
            continue
        top = kept.column("similarities").flatten().to_numpy(zero_copy_only=False)
        total += np.histogram(np.clip(top, -1, 1), edges)[0]
        rest = kept.column("histogram").flatten().to_numpy(zero_copy_only=False)
        fine = rest.reshape(kept.num_rows, -1).sum(axis=0)
        centers = (np.arange(len(fine)) + 0.5) / len(fine) * 2 - 1
        total += np.histogram(centers, edges, weights=fine)[0]
    return edges, total / max(total.sum(), 1)


def exemplar_shares(ranks: pa.Table, bins: int = BINS) -> Shares:
    """Compute the distribution of the similarities of queries to their own exemplars: (edges, share a bin)."""
    edges = np.linspace(-1, 1, bins + 1)
    values = np.clip(ranks["similarity"].to_numpy(), -1, 1)
    return edges, np.histogram(values, edges)[0] / max(len(values), 1)
