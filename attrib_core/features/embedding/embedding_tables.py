"""Read, stream and sample tables of embeddings."""

from __future__ import annotations

import heapq
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.features.embedding.encoder_protocol import Encoder
from attrib_core.storage import parquet_files, tables, vector_columns

_METADATA = b"encoder"


def schema(encoder: Encoder) -> pa.Schema:
    """Return the schema of an encoder's embeddings, with its identity in the file's metadata."""
    value = json.dumps(encoder.identity, sort_keys=True).encode()
    return tables.embedding_schema(encoder.dim).with_metadata({_METADATA: value})


def identity(path: Path) -> dict[str, Any]:
    """Return the identity of the encoder that computed a part of embeddings."""
    value = (parquet_files.schema(path).metadata or {}).get(_METADATA, b"{}")
    return dict(json.loads(value))


def read(path: Path) -> tuple[list[str], np.ndarray]:
    """Read a part of embeddings: names and (rows, dim) float32."""
    parts = list(stream([path]))
    if not parts:
        raise InputError(f"{path}: it holds no embeddings; expected at least one row")
    return [name for names, _ in parts for name in names], np.concatenate([values for _, values in parts])


def stream(paths: Iterable[Path], *, rows: int = tables.ROW_GROUP) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield names and (n, dim) float32 of parts of embeddings, at most `rows` at a time.

    Raises InputError for a missing file or column, a null, and a part of another dimension than those before.
    """
    for _, _, names, vectors in vector_columns.stream(paths, rows):
        yield names.to_pylist(), vectors


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
    for batch in tables.iterate([path], ["image_id"], 1 << 16):
        yield from batch.column("image_id").to_pylist()
