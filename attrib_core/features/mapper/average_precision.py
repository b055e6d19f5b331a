"""Average precision of queries on validation sets, by which heads are selected."""

from __future__ import annotations

import numpy as np

from attrib_core.features.mapper.exemplar_sets import ExemplarSets


def average_precisions(distractor_similarities: np.ndarray, exemplar_similarities: np.ndarray) -> np.ndarray:
    """Compute the average precision of each query, (queries,) float64.

    The arguments are similarities to the distractors, (queries, distractors), and to all exemplars of the query's set,
    (queries, exemplars). Both are ranked together; a tie counts as half a rank.
    """
    columns = exemplar_similarities.T
    above = np.stack([_count_above(distractor_similarities, column) for column in columns], axis=1)
    # minus the tie of each exemplar with itself
    hits_above = np.stack([_count_above(exemplar_similarities, column) for column in columns], axis=1) - 0.5
    hits = 1 + hits_above
    return np.asarray((hits / (hits + above)).mean(axis=1))


def _count_above(similarities: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    greater = np.count_nonzero(similarities > threshold[:, None], axis=1)
    tied = np.count_nonzero(similarities == threshold[:, None], axis=1)
    return greater + 0.5 * tied


def mean_average_precisions(
    sets: ExemplarSets, real: np.ndarray, synth: np.ndarray, pool: np.ndarray
) -> np.ndarray:
    """Compute the mean average precision of the queries of each set, (sets,) float64.

    real, synth and pool are mapped exemplars, queries and distractors, of unit length. As in the benchmark, a query is
    ranked against the distractors and the exemplars of its own set only.
    """
    values = np.empty(len(sets.names))
    for number in range(len(sets.names)):
        queries = synth[sets.synth_set == number]
        values[number] = average_precisions(
            queries @ pool.T, queries @ real[sets.real_set == number].T
        ).mean()
    return values
