"""The pass over the pool in float64 fixed point, all at once: what the pass by float32 products must equal."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from tests.attribution.ranking_fixtures import World

TIE = 2**29  # in units of 2**-52


class Expected(NamedTuple):
    """Columns of `ranks`, one value an exemplar, and of `candidates`, one a query."""

    above: list[int]
    tied: list[int]
    similarity: list[float]
    distractors: list[int]
    candidate_ids: list[list[str]]
    similarities: list[list[float]]
    rest: list[np.ndarray]  # float64 similarities of all others


def fixed_points(vectors: np.ndarray) -> np.ndarray:
    """Multiples of 2**-26 in float64, whose products are exact."""
    return np.rint(vectors.astype(np.float64) * 2**26)


def float64_pass(case: World, top_k: int, left_out: Mapping[str, Collection[str]] | None = None) -> Expected:
    """Rank with one float64 product a set, sorting everything; rows that are left out are not there at all."""
    found = Expected([], [], [], [], [], [], [])
    for name, vectors in case.queries.items():
        absent = {*case.excluded, *(left_out or {}).get(name, ())}
        kept = [row for row, one in enumerate(case.pool_ids) if one not in absent]
        ids = np.array(case.pool_ids, object)[kept]
        queries = fixed_points(vectors)
        for scores, own in zip(
            queries @ fixed_points(case.pool[kept]).T,
            queries @ fixed_points(case.exemplars[name]).T,
            strict=True,
        ):
            for threshold in own:
                found.above.append(int((scores > threshold + TIE).sum()))
                found.tied.append(int((np.abs(scores - threshold) <= TIE).sum()))
                found.similarity.append(float(np.float32(threshold / 2**52)))
                found.distractors.append(len(kept))
            order = np.lexsort((ids.astype(str), -scores))  # pool ids sort as they are
            found.candidate_ids.append(ids[order[:top_k]].tolist())
            found.similarities.append((scores[order[:top_k]] / 2**52).astype(np.float32).tolist())
            found.rest.append(scores[order[top_k:]] / 2**52)
    return found
