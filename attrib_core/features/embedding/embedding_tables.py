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
from attrib_core.features.embedding.image_rows import open_table
from attrib_core.storage import tables

_METADATA = b"encoder"


def schema(encoder: Encoder) -> pa.Schema:
    """Return the schema of an encoder's embeddings, with its identity in the file's metadata."""
    value = json.dumps(encoder.identity, sort_keys=True).encode()
    return tables.embedding_schema(encoder.dim).with_metadata({_METADATA: value})


def identity(path: Path) -> dict[str, Any]:
    """Return the identity of the encoder that computed a part of embeddings."""
    value = (pq.read_schema(path).metadata or {}).get(_METADATA, b"{}")
    return dict(json.loads(value))


def read(path: Path) -> tuple[list[str], np.ndarray]:
    """Read a part of embeddings: names and (rows, dim) float32."""
    parts = list(stream([path]))
    if not parts:
        raise InputError(f"{path}: it holds no embeddings; expected at least one row")
    return [name for names, _ in parts for name in names], np.concatenate([values for _, values in parts])


def stream(paths: Iterable[Path], *, rows: int = tables.ROW_GROUP) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield names and (n, dim) float32 of parts of embeddings, at most `rows` at a time.

    Raises InputError for a missing file or column and for a part of another dimension than those before.
    """
    dim: int | None = None
    for path in paths:
        with open_table(path, ["image_id", "embedding"]) as file:
            kind = file.schema_arrow.field("embedding").type
            if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
                raise InputError(f"{path}: column 'embedding' is {kind}, expected a fixed-size list of float")
            dim = dim or kind.list_size
            if kind.list_size != dim:
                raise InputError(
                    f"{path}: embeddings of {kind.list_size} dimensions, expected {dim} as in the parts before"
                )
            for batch in file.iter_batches(batch_size=rows, columns=["image_id", "embedding"]):
                yield batch.column("image_id").to_pylist(), tables.vectors(batch.column("embedding"))


def sample(
    paths: Sequence[Path], *, count: int, key: Sequence[Any], excluded: Collection[str] = ()
) -> tuple[list[str], np.ndarray]:
    """Draw a random sample of `count` embeddings, or all if there are fewer, as names and (n, dim) float32.

    The sample is the first `count` names in the order of their hash with `key`. So it depends neither on part sizes nor
    on order, and a larger sample begins with a smaller one. Names are read first, then vectors: memory is that of the
    names and of the sample.
    """
    left_out = frozenset(excluded)
    names = (name for path in paths for name in _names(path) if name not in left_out)
    chosen = heapq.nsmallest(count, names, key=lambda name: hashing.seed(*key, name))
    position = {name: row for row, name in enumerate(chosen)}
    values: np.ndarray | None = None
    for found, vectors in stream(paths):
        rows = [row for row, name in enumerate(found) if name in position]
        if values is None:
            values = np.empty((len(chosen), vectors.shape[1]), dtype=np.float32)
        values[[position[found[row]] for row in rows]] = vectors[rows]
    if values is None or not chosen:
        raise InputError(f"no embeddings to draw from in {len(paths)} parts (left out: {len(left_out)})")
    return chosen, values


def _names(path: Path) -> Iterator[str]:
    with open_table(path, ["image_id"]) as file:
        for batch in file.iter_batches(columns=["image_id"]):
            yield from batch.column("image_id").to_pylist()
