"""The exemplar sets of one split: their exemplars and their queries, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from attrib_core.common.errors import InputError
from attrib_core.features.embedding import embedding_tables

CONDITION = "customized"
EXEMPLAR_COLUMNS = ["exemplar_id", "exemplar_set", "kind", "split"]
QUERY_COLUMNS = ["query_id", "exemplar_set", "condition"]


@dataclass(frozen=True, eq=False)
class Sets:
    """Exemplars and queries of the sets of a split, in the order of their names.

    real (exemplars, dim) and synth (queries, dim) float32 as the encoder gave them; real_set
    and synth_set number the set that each belongs to, an index into `names`.
    """

    names: tuple[str, ...]
    real: np.ndarray
    real_set: np.ndarray
    synth: np.ndarray
    synth_set: np.ndarray


def select(
    split: str,
    *,
    exemplars: pa.Table,
    exemplar_embeddings: Sequence[Path],
    queries: pa.Table,
    query_embeddings: Sequence[Path],
    kind: str | None = None,
) -> Sets:
    """The sets of a split, with queries by customized models only; of one kind where `kind` is given.

    `exemplars` has EXEMPLAR_COLUMNS, `queries` QUERY_COLUMNS. The files of embeddings may hold
    more, in any order; vectors of other splits and kinds are not looked at. Raises InputError
    for a split with no set of the kind, a set without customized queries, an image without an embedding, and an
    embedding that is zero or not finite.
    """
    rows = sorted(
        (row["exemplar_set"], row["exemplar_id"])
        for row in exemplars.select(EXEMPLAR_COLUMNS).to_pylist()
        if row["split"] == split and kind in (None, row["kind"])
    )
    names = sorted({name for name, _ in rows})
    if not names:
        raise InputError(_none_of(split, kind))
    number = {name: index for index, name in enumerate(names)}
    images = sorted(
        (row["exemplar_set"], row["query_id"])
        for row in queries.select(QUERY_COLUMNS).to_pylist()
        if row["exemplar_set"] in number and row["condition"] == CONDITION
    )
    silent = sorted(set(names) - {name for name, _ in images})
    if silent:
        raise InputError(
            f"synthesized: {len(silent)} sets of split {split!r} have no {CONDITION} queries, such as {silent[0]!r}"
        )
    return Sets(
        names=tuple(names),
        real=_vectors([key for _, key in rows], exemplar_embeddings, what="exemplar"),
        real_set=np.array([number[name] for name, _ in rows]),
        synth=_vectors([key for _, key in images], query_embeddings, what="query"),
        synth_set=np.array([number[name] for name, _ in images]),
    )


def _none_of(split: str, kind: str | None) -> str:
    if kind is None:
        return f"exemplars: no set has the split {split!r}; tuning needs sets in train and validation"
    return (
        f"mapper.trained_on: no {kind} set has the split {split!r}, but a mapper that is trained on {kind} sets needs"
        f" some in train and validation; raise exemplars.{kind}_sets, or take {kind!r} out"
    )


def _vectors(wanted: Sequence[str], paths: Sequence[Path], *, what: str) -> np.ndarray:
    place = {key: row for row, key in enumerate(wanted)}
    chosen: np.ndarray | None = None
    for ids, vectors in embedding_tables.stream(paths):
        if chosen is None:
            chosen = np.zeros((len(wanted), vectors.shape[1]), dtype=np.float32)
        rows = [row for row, key in enumerate(ids) if key in place]
        chosen[[place.pop(ids[row]) for row in rows]] = vectors[rows]
    if place or chosen is None:
        raise InputError(f"embeddings: {len(place)} images have none, such as {what} {min(place)!r}")
    bad = np.flatnonzero(~(np.isfinite(chosen).all(axis=1) & chosen.any(axis=1)))
    if bad.size:
        raise InputError(
            f"embeddings: {what} {wanted[bad[0]]!r} is zero or not finite; expected finite numbers"
        )
    return chosen


def average_precisions(similar: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Average precision of each query, (queries,) float64.

    similar (queries, distractors): similarities to the distractors; own (queries, exemplars):
    to all exemplars of the query's set. The ranking is of both together; a tie counts as half
    a place.
    """
    above = np.stack([_beaten(similar, column) for column in own.T], axis=1)
    siblings = np.stack([_beaten(own, column) for column in own.T], axis=1) - 0.5  # tied with itself
    hits = 1 + siblings
    return np.asarray((hits / (hits + above)).mean(axis=1))


def _beaten(others: np.ndarray, one: np.ndarray) -> np.ndarray:
    more = np.count_nonzero(others > one[:, None], axis=1)
    tied = np.count_nonzero(others == one[:, None], axis=1)
    return more + 0.5 * tied


def mean_average_precisions(sets: Sets, real: np.ndarray, synth: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Mean average precision of the queries of each set, (sets,) float64.

    real, synth and pool are the mapped exemplars, queries and distractors, of unit length. As
    in the benchmark, a query competes with the distractors and its own set's exemplars alone.
    """
    values = np.empty(len(sets.names))
    for number in range(len(sets.names)):
        mine = synth[sets.synth_set == number]
        values[number] = average_precisions(mine @ pool.T, mine @ real[sets.real_set == number].T).mean()
    return values
