"""Generated embeddings and tables for the tests of ranking, metrics and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from attrib_core.attribution.ranking import rank
from attrib_core.features.heads import heads
from attrib_core.storage import tables


@dataclass
class World:
    """Embeddings of a small benchmark; pool rows are named p00000, p00001, ..."""

    pool: np.ndarray
    exemplars: dict[str, np.ndarray]  # by exemplar set
    queries: dict[str, np.ndarray]  # by exemplar set
    excluded: list[str] = field(default_factory=list)

    @property
    def pool_ids(self) -> list[str]:
        return [f"p{row:05d}" for row in range(len(self.pool))]

    def query_rows(self) -> pa.Table:
        rows = [
            {
                "query_id": f"{name}-q{i}",
                "exemplar_set": name,
                "condition": "customized",
                "prompt_kind": "scene",
            }
            for name, vectors in self.queries.items()
            for i in range(len(vectors))
        ]
        return pa.Table.from_pylist(rows)

    def exemplar_rows(self) -> pa.Table:
        rows = [
            {"exemplar_id": f"{name}-e{i}", "exemplar_set": name}
            for name, vectors in self.exemplars.items()
            for i in range(len(vectors))
        ]
        return pa.Table.from_pylist(rows)

    def write(self, folder: Path, *, pool_part: int = 10**9, query_part: int = 10**9) -> dict[str, Any]:
        """Write the embeddings in parts of so many rows; returns the arguments of `rank.rank` that name them."""
        query_ids = self.query_rows().column("query_id").to_pylist()
        exemplar_ids = self.exemplar_rows().column("exemplar_id").to_pylist()
        return {
            "pool": write_parts(folder / "pool", self.pool_ids, self.pool, pool_part),
            "queries": write_parts(
                folder / "queries", query_ids, np.concatenate(list(self.queries.values())), query_part
            ),
            "exemplars": write_parts(
                folder / "exemplars", exemplar_ids, np.concatenate(list(self.exemplars.values())), 10**9
            )[0],
            "excluded": pa.table({"image_id": pa.array(self.excluded, pa.string())}),
            "query_rows": self.query_rows(),
            "exemplar_rows": self.exemplar_rows(),
        }


def write_parts(folder: Path, ids: Sequence[str], vectors: np.ndarray, rows: int) -> list[Path]:
    paths = []
    for number, start in enumerate(range(0, len(ids), rows)):
        path = folder / f"part-{number:04d}.parquet"
        some = slice(start, start + rows)
        with tables.writer(path, tables.embedding_schema(vectors.shape[1])) as sink:
            sink.write(tables.embedding_table(list(ids[some]), vectors[some]))
        paths.append(path)
    return paths


def unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def world(
    seed: int,
    *,
    rows: int,
    dim: int,
    set_sizes: Sequence[int],
    queries_each: int = 3,
    duplicates: int = 0,
    signal: float = 0.7,
) -> World:
    """Random unit vectors; each query is a mix of an exemplar of its set, of weight `signal`, and noise.

    `duplicates` rows of the pool are copies of exemplars and of other rows of the pool.
    """
    rng = np.random.default_rng(seed)
    pool = unit(rng.standard_normal((rows, dim)))
    exemplars = {f"s{i:02d}": unit(rng.standard_normal((size, dim))) for i, size in enumerate(set_sizes)}
    queries = {}
    for name, own in exemplars.items():
        base = own[rng.integers(len(own), size=queries_each)]
        noise = unit(rng.standard_normal((queries_each, dim)))
        queries[name] = unit(signal * base + (1 - signal) * noise)
    everything = np.concatenate(list(exemplars.values()))
    for row in rng.permutation(rows)[:duplicates]:
        source = everything if rng.random() < 0.7 else pool
        pool[row] = source[rng.integers(len(source))]
    return World(pool, exemplars, queries)


def ranked(arguments: dict[str, Any], mapper_heads: heads.Heads | None = None, **options: Any) -> rank.Ranked:
    """Rank, with all groups in one table."""
    groups = list(
        rank.rank(
            encoder="pixel", mapper="untuned", heads=mapper_heads or heads.load(None), **(arguments | options)
        )
    )
    return rank.Ranked(
        pa.concat_tables([group.ranks for group in groups]),
        pa.concat_tables([group.candidates for group in groups]),
    )
