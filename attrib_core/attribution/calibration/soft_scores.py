"""Rows of `soft_scores`: every exemplar and the top candidates of a query, with their influence."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from attrib_core.attribution.calibration.calibrators import Form, influence
from attrib_core.attribution.calibration.similarities import Evidence
from attrib_core.storage import tables


def soft_scores(evidence: Evidence, calibrator: Form, *, shown: int, encoder: str, mapper: str) -> pa.Table:
    """The exemplars and `shown` most similar distractors of each query, by rank.

    `rank` counts pool and exemplars together; an exemplar that ties with distractors stands in the
    middle of them. What is missing from a sum of 1, with `none`, is the influence of all other candidates.
    """
    none = calibrator.none(evidence)
    displayed = influence(evidence, calibrator.shares(evidence), none)
    singles = evidence.exemplars + evidence.top
    query, similarity = evidence.query[:singles], evidence.similarity[:singles]
    rank = np.concatenate([evidence.ahead + evidence.siblings + 1, _ranks_of_top(evidence)])
    is_exemplar = np.arange(singles) < evidence.exemplars
    place = np.concatenate([np.zeros(evidence.exemplars) - 1, evidence.places()])
    kept = np.lexsort((rank, query))
    kept = kept[place[kept] < shown]
    columns = {
        "encoder": np.full(len(kept), encoder, object),
        "mapper": np.full(len(kept), mapper, object),
        "query_id": np.array(evidence.queries, object)[query[kept]],
        "candidate_id": np.array(evidence.ids, object)[kept],
        "is_exemplar": is_exemplar[kept],
        "rank": rank[kept],
        "similarity": similarity[kept],
        "influence": displayed[:singles][kept],
        "none": none[query[kept]],
    }
    expected = tables.schema("soft_scores")
    return pa.table([pa.array(columns[field.name], field.type) for field in expected], schema=expected)


def _ranks_of_top(evidence: Evidence) -> np.ndarray:
    """Rank of each top candidate among all candidates: its place, and the exemplars that stand before it."""
    place = evidence.places()
    rank = place + 1
    numbers = np.arange(len(evidence.queries) + 1)
    exemplars = np.searchsorted(evidence.query[: evidence.exemplars], numbers)
    top = np.searchsorted(evidence.query[evidence.exemplars : evidence.exemplars + evidence.top], numbers)
    for number in numbers[:-1]:
        ahead = np.sort(evidence.ahead[exemplars[number] : exemplars[number + 1]])
        its = slice(top[number], top[number + 1])
        rank[its] += np.searchsorted(ahead, place[its], side="right")
    return rank
