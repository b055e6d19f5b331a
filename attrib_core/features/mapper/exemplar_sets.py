"""The embeddings of the exemplars and queries of the exemplar sets of one split."""

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
class ExemplarSets:
    """Embeddings of exemplars and queries of several sets, as the encoder gave them.

    real (exemplars, dim) and synth (queries, dim) are float32; real_set and synth_set hold the set of each row, as an
    index into `names`, which is sorted.
    """

    names: tuple[str, ...]
    real: np.ndarray
    real_set: np.ndarray
    synth: np.ndarray
    synth_set: np.ndarray


def read_split(
    split: str,
    *,
    exemplars: pa.Table,
    exemplar_embeddings: Sequence[Path],
    queries: pa.Table,
    query_embeddings: Sequence[Path],
    kind: str | None = None,
) -> ExemplarSets:
    """Read the sets of a split, of one kind if `kind` is given, with the queries by customized models only.

    `exemplars` has EXEMPLAR_COLUMNS, `queries` QUERY_COLUMNS. The files of embeddings may hold more rows, in any order;
    vectors of other splits and kinds are not used. Raises InputError for a split without sets of the kind, a set
    without customized queries, an image without an embedding, and an embedding that is zero or not finite.
    """
    exemplar_keys = sorted(
        (row["exemplar_set"], row["exemplar_id"])
        for row in exemplars.select(EXEMPLAR_COLUMNS).to_pylist()
        if row["split"] == split and kind in (None, row["kind"])
    )
    names = sorted({name for name, _ in exemplar_keys})
    if not names:
        raise InputError(_no_sets(split, kind))
    number = {name: index for index, name in enumerate(names)}
    query_keys = sorted(
        (row["exemplar_set"], row["query_id"])
        for row in queries.select(QUERY_COLUMNS).to_pylist()
        if row["exemplar_set"] in number and row["condition"] == CONDITION
    )
    without_queries = sorted(set(names) - {name for name, _ in query_keys})
    if without_queries:
        raise InputError(
            f"synthesized: {len(without_queries)} sets of split {split!r} have no {CONDITION} queries, such as"
            f" {without_queries[0]!r}"
        )
    return ExemplarSets(
        names=tuple(names),
        real=_read_vectors([key for _, key in exemplar_keys], exemplar_embeddings, what="exemplar"),
        real_set=np.array([number[name] for name, _ in exemplar_keys]),
        synth=_read_vectors([key for _, key in query_keys], query_embeddings, what="query"),
        synth_set=np.array([number[name] for name, _ in query_keys]),
    )


def _no_sets(split: str, kind: str | None) -> str:
    if kind is None:
        return f"exemplars: no set has the split {split!r}; tuning needs sets in train and validation"
    return (
        f"mapper.trained_on: no {kind} set has the split {split!r}, but a mapper that is trained on {kind} sets needs"
        f" some in train and validation; raise exemplars.{kind}_sets, or take {kind!r} out"
    )


def _read_vectors(keys: Sequence[str], paths: Sequence[Path], *, what: str) -> np.ndarray:
    position = {key: row for row, key in enumerate(keys)}
    chosen: np.ndarray | None = None
    for ids, vectors in embedding_tables.stream(paths):
        if chosen is None:
            chosen = np.zeros((len(keys), vectors.shape[1]), dtype=np.float32)
        rows = [row for row, key in enumerate(ids) if key in position]
        chosen[[position.pop(ids[row]) for row in rows]] = vectors[rows]
    if position or chosen is None:
        raise InputError(f"embeddings: {len(position)} images have none, such as {what} {min(position)!r}")
    bad = np.flatnonzero(~(np.isfinite(chosen).all(axis=1) & chosen.any(axis=1)))
    if bad.size:
        raise InputError(
            f"embeddings: {what} {keys[bad[0]]!r} is zero or not finite; expected finite numbers"
        )
    return chosen
