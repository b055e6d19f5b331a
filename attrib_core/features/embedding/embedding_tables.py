"""Read, stream and sample tables of embeddings."""

from __future__ import annotations

import heapq
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.features.embedding.encoder_protocol import Encoder
from attrib_core.features.embedding.rows import opened
from attrib_core.storage import tables

_METADATA = b"encoder"


def schema(encoder: Encoder) -> pa.Schema:
    """Schema of an encoder's embeddings, with its identity in the metadata of the file."""
    noted = json.dumps(encoder.identity, sort_keys=True).encode()
    return tables.embedding_schema(encoder.dim).with_metadata({_METADATA: noted})


def identity(path: Path) -> dict[str, Any]:
    """Which encoder made a part of embeddings."""
    noted = (pq.read_schema(path).metadata or {}).get(_METADATA, b"{}")
    return dict(json.loads(noted))


def read(path: Path) -> tuple[list[str], np.ndarray]:
    """Names and (rows, dim) float32 of a whole part of embeddings."""
    parts = list(stream([path]))
    if not parts:
        raise InputError(f"{path}: no embeddings in it; expected at least one row")
    return [name for names, _ in parts for name in names], np.concatenate([values for _, values in parts])


def stream(paths: Iterable[Path], *, rows: int = tables.ROW_GROUP) -> Iterator[tuple[list[str], np.ndarray]]:
    """Names and (n, dim) float32 of parts of embeddings, at most `rows` at a time.

    Raises InputError for a missing file or column and for a part whose dimension is not that
    of the parts before.
    """
    dim: int | None = None
    for path in paths:
        with opened(path, ["image_id", "embedding"]) as file:
            kind = file.schema_arrow.field("embedding").type
            if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
                raise InputError(f"{path}: column 'embedding' is {kind}, expected a fixed-size list of float")
            dim = dim or kind.list_size
            if kind.list_size != dim:
                raise InputError(
                    f"{path}: embeddings of {kind.list_size} dimensions, expected {dim} as before"
                )
            for batch in file.iter_batches(batch_size=rows, columns=["image_id", "embedding"]):
                yield batch.column("image_id").to_pylist(), tables.vectors(batch.column("embedding"))


def sample(
    paths: Sequence[Path], *, count: int, key: Sequence[Any], excluded: Collection[str] = ()
) -> tuple[list[str], np.ndarray]:
    """A random sample of `count` embeddings (all, where there are fewer), as names and (n, dim).

    Those whose names come first when ordered by their hash with `key`: so neither the cut of
    the parts nor their order matters, and a bigger sample begins with the smaller one. Reads
    the names first, then the vectors: memory is that of the names and of the sample.
    """
    left_out = frozenset(excluded)
    names = (name for path in paths for name in _names(path) if name not in left_out)
    chosen = heapq.nsmallest(count, names, key=lambda name: hashing.seed(*key, name))
    place = {name: row for row, name in enumerate(chosen)}
    values: np.ndarray | None = None
    for found, vectors in stream(paths):
        rows = [row for row, name in enumerate(found) if name in place]
        if values is None:
            values = np.empty((len(chosen), vectors.shape[1]), dtype=np.float32)
        values[[place[found[row]] for row in rows]] = vectors[rows]
    if values is None or not chosen:
        raise InputError(f"no embeddings to draw from in {len(paths)} parts (left out: {len(left_out)})")
    return chosen, values


def _names(path: Path) -> Iterator[str]:
    with opened(path, ["image_id"]) as file:
        for batch in file.iter_batches(columns=["image_id"]):
            yield from batch.column("image_id").to_pylist()
