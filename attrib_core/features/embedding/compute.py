"""Features of rows of images, and what of a row decides about them.

The fingerprint of the code that this module reaches is part of the key under which
embeddings are kept; so what does not touch a feature stays out of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attrib_core.features.embedding import encoder_protocol, encoding
from attrib_core.features.embedding.encoder_protocol import Encoder
from attrib_core.features.embedding.rows import Row
from attrib_core.storage import tables


def load(section: Mapping[str, Any], where: str) -> Encoder:
    """The encoder of a config section; see `embedding.load`."""
    return encoder_protocol.load(section, where)


def digest(row: Row) -> str:
    """Digest of all that an encoder sees of a row, 64 hexadecimal digits; its name is no part of it."""
    words = None if row.words is None else row.words.encode()
    return hashlib.sha256(_seen(row.data) + _seen(words)).hexdigest()


def _seen(part: bytes | None) -> bytes:
    return b"\0" if part is None else b"\1" + hashlib.sha256(part).digest()


def of_table(
    path: Path, *, ids: str, words: str | None, encoder: Encoder, threads: int, chosen: Sequence[bool]
) -> Iterator[np.ndarray]:
    """Features of the rows of a table that are chosen, (n, dim) float32 at a time; see `embedding.embed`."""
    for table in encoding.embed(path, ids=ids, words=words, encoder=encoder, threads=threads, chosen=chosen):
        yield tables.vectors(table["embedding"])


def of_rows(rows: Sequence[Row], encoder: Encoder, *, where: str, threads: int) -> Iterator[np.ndarray]:
    """The same of rows that were read already."""
    for _, features in encoding.encoded(rows, encoder, where=where, total=len(rows), threads=threads):
        yield features
