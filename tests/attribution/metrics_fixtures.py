"""Generated tables of ranks for the tests of metrics."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from attrib_core.attribution.metrics import measure
from attrib_core.attribution.metrics.query_groups import System
from attrib_core.storage import tables

KS = [1, 5, 10, 100]


def count(scores: np.ndarray, own: np.ndarray) -> list[dict[str, int]]:
    """Counts as ranking leaves them, for one query's distractors and exemplars."""
    return [
        {
            "n_above": int((scores > s).sum()),
            "n_tied": int((scores == s).sum()),
            "n_siblings_above": int((own > s).sum()),
            "n_siblings_tied": int((own == s).sum()) - 1,
            "n_distractors": len(scores),
        }
        for s in own
    ]


def ranks_of(cases: list[tuple[np.ndarray, np.ndarray]], **labels: Any) -> pa.Table:
    """A table `ranks` of one query for each pair of distractor and exemplar scores."""
    rows = [
        {
            "encoder": "e",
            "mapper": "untuned",
            "query_id": f"s{number:03d}.customized.scene-{number}.0",
            "exemplar_set": f"s{number:03d}",
            "condition": "customized",
            "prompt_kind": "scene",
            "exemplar_id": f"e{i}",
            "similarity": float(own[i]),
            **row,
            **labels,
        }
        for number, (scores, own) in enumerate(cases)
        for i, row in enumerate(count(scores, own))
    ]
    return tables.from_rows(rows, tables.schema("ranks"))


def random_cases(seed: int, *, levels: int | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores, tied often where there are few levels; sets of 1 to 67 exemplars."""
    rng = np.random.default_rng(seed)

    def scores(size: int) -> np.ndarray:
        return rng.random(size) if levels is None else rng.integers(levels, size=size) / levels

    sizes = [1, 1, 2, 5, 12, 67]
    return [(scores(int(rng.integers(1, 400))), scores(n) ** 0.5) for n in sizes for _ in range(5)]


@cache
def world_of_systems(gain: float) -> tuple[list[tuple[str, pa.Table]], pa.Table]:
    """Two mappers and two conditions, of which 'linear' and 'customized' are better by `gain`.

    Each model has three prompts of each list of four, which other models have too. Names of queries are those of
    synthesis, so that prompts are known.
    """
    exemplars, queries = [], []
    for number in range(12):
        exemplars += [
            {
                "exemplar_set": f"s{number:03d}",
                "kind": "style" if number % 3 == 0 else "object",
                "split": "test" if number % 4 else "validation",
                "seen": number % 12 < 6,
            }
        ] * (2 if number % 3 == 0 else 1)
        for condition in ("customized", "control"):
            for prompt_kind in ("scene", "media"):
                queries += [(number, condition, prompt_kind, sample) for sample in range(3)]
    named = []
    for mapper in ("untuned", "linear"):
        rows = []
        for number, condition, prompt_kind, sample in queries:
            rng = np.random.default_rng([number, condition == "control", prompt_kind == "media", sample])
            lift = gain * ((mapper == "linear") + (condition == "customized"))
            own = rng.random(2 if number % 3 == 0 else 1) + lift
            for i, counts in enumerate(count(rng.random(60), own)):
                rows.append(
                    {
                        "encoder": "e",
                        "mapper": mapper,
                        "query_id": f"s{number:03d}.{condition}.{prompt_kind}-{(number + sample) % 4}.0",
                        "exemplar_set": f"s{number:03d}",
                        "condition": condition,
                        "prompt_kind": prompt_kind,
                        "exemplar_id": f"s{number:03d}.{i}",
                        "similarity": float(own[i]),
                        **counts,
                    }
                )
        named.append((f"{mapper}.parquet", tables.from_rows(rows, tables.schema("ranks"))))
    return named, pa.Table.from_pylist(exemplars)


def measured(gain: float, **options: Any) -> list[System]:
    named, exemplars = world_of_systems(gain)
    return measure.systems(named, exemplars, recall_ks=[5, 10], **options)
