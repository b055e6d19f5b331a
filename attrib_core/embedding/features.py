"""Features of rows of pictures, and what of a row decides about them.

The fingerprint of the code that this module reaches is part of the key under which
embeddings are kept; so what does not touch a feature stays out of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from attrib_core import embedding
from attrib_core.embedding import Encoder
from attrib_core.embedding.rows import Row


def load(section: Mapping[str, Any], where: str) -> Encoder:
    """The encoder of a config section; see `embedding.load`."""
    return embedding.load(section, where)


def digest(row: Row) -> str:
    """Digest of all that an encoder sees of a row, 64 hexadecimal digits; its name is no part of it."""
    seen = hashlib.sha256()
    for part in (row.data, None if row.words is None else row.words.encode()):
        seen.update(b"\0" if part is None else b"\1" + hashlib.sha256(part).digest())
    return seen.hexdigest()


def of_rows(
    path: Path, *, ids: str, words: str | None, encoder: Encoder, threads: int, chosen: Sequence[bool]
) -> Iterator[pa.Table]:
    """Embeddings of the rows that are chosen; see `embedding.embed`."""
    return embedding.embed(path, ids=ids, words=words, encoder=encoder, threads=threads, chosen=chosen)
