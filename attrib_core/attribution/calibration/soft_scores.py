"""Compute rows of the table `soft_scores`: exemplars and top distractors of queries with their influence."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from attrib_core.attribution.calibration.calibrators import Calibrator, displayed_influence
from attrib_core.attribution.calibration.similarities import SimilarityBatch
from attrib_core.storage import tables


def soft_scores(
    batch: SimilarityBatch, calibrator: Calibrator, *, shown: int, encoder: str, mapper: str
) -> pa.Table:
    """Return the exemplars and `shown` most similar distractors of each query, by rank.

    `rank` is among pool and exemplars together; an exemplar that ties with distractors is in the middle of
    them. The influence of all other candidates is what influence and `none` lack of a sum of 1.
    """
    none = calibrator.none_mass(batch)
    influence = displayed_influence(batch, calibrator.shares(batch), none)
    singles = batch.exemplars + batch.top
    query, similarity = batch.query[:singles], batch.similarity[:singles]
    rank = np.concatenate([batch.distractors_above + batch.siblings_above + 1, _ranks_of_top(batch)])
    is_exemplar = np.arange(singles) < batch.exemplars
    position = np.concatenate([np.zeros(batch.exemplars) - 1, batch.top_positions()])
    kept = np.lexsort((rank, query))
    kept = kept[position[kept] < shown]
    columns = {
        "encoder": np.full(len(kept), encoder, object),
        "mapper": np.full(len(kept), mapper, object),
        "query_id": np.array(batch.queries, object)[query[kept]],
        "candidate_id": np.array(batch.ids, object)[kept],
        "is_exemplar": is_exemplar[kept],
        "rank": rank[kept],
        "similarity": similarity[kept],
        "influence": influence[:singles][kept],
        "none": none[query[kept]],
    }
    expected = tables.schema("soft_scores")
    return pa.table([pa.array(columns[field.name], field.type) for field in expected], schema=expected)


def _ranks_of_top(batch: SimilarityBatch) -> np.ndarray:
    """Return the rank of each top distractor: 1 + its position + the exemplars that rank above it."""
    position = batch.top_positions()
    rank = position + 1
    numbers = np.arange(len(batch.queries) + 1)
    exemplars = np.searchsorted(batch.query[: batch.exemplars], numbers)
    top = np.searchsorted(batch.query[batch.exemplars : batch.exemplars + batch.top], numbers)
    for number in numbers[:-1]:
        above = np.sort(batch.distractors_above[exemplars[number] : exemplars[number + 1]])
        own = slice(top[number], top[number + 1])
        rank[own] += np.searchsorted(above, position[own], side="right")
    return rank
