"""Embed a part of an image table; only images whose embeddings are not in the store are encoded.

The images of an exemplar set are a piece in the store, under a key of the encoder and of everything it reads of them,
but not of their names or the run's. So a run with additional sets encodes only their images, and two runs share what
they have in common. A part of the pool is one piece.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from attrib_core.common import hashing
from attrib_core.features.embedding import encode, encoder_protocol
from attrib_core.features.embedding.encoder_protocol import Encoder
from attrib_core.features.embedding.image_rows import ImageRow, read_rows
from attrib_core.storage import parquet_files, tables, vector_columns
from attrib_core.storage.store import layout, pieces
from attrib_core.storage.store.make_missing import StoredResults

LOGGER = logging.getLogger(__name__)
MAX_HELD_BYTES = 1 << 27
"""Bytes of images that a job holds at most between computing their keys and encoding them."""
VALUES = 1 << 16
GROUP = 1024
"""Rows of a row group at most; all of a group are read where one of its pieces is needed."""
Conditions = Mapping[str, Any]
"""What embeddings depend on besides the images: the encoder's section of the config, the fingerprint of the code."""


@dataclass(frozen=True)
class ImagePiece:
    """A piece of a part: its content key, and the names of its rows, which follow each other in the part.

    rows: the rows themselves, so that they need not be read again; None where the part is too large to hold.
    """

    key: str
    names: list[str]
    rows: list[ImageRow] | None = None


def find_pieces(
    path: Path,
    *,
    id_column: str,
    text_column: str | None = None,
    by: str | None,
    encoder: Encoder,
    conditions: Conditions,
) -> list[ImagePiece]:
    """Return the pieces of a table of images, in its order: rows with one value in the column `by`, all without one.

    A key covers what the encoder reads of images and text. Raises InputError for a missing file or column, an image
    without bytes, and a row without text.
    """
    found = []
    image_column, text_column = encoder_protocol.input_columns(encoder, text_column, where=str(path))
    columns = [column for column in (id_column, image_column, text_column, by) if column]
    with parquet_files.opened(path, columns) as file:
        groups = _values(path, by) if by else itertools.repeat(None)
        all_rows = read_rows(
            file,
            path,
            id_column=id_column,
            image_column=image_column,
            text_column=text_column,
            step=encode.CHUNK,
        )
        held = 0
        for _, group in itertools.groupby(zip(groups, all_rows, strict=False), key=lambda pair: pair[0]):
            names, digests, kept = [], [], []
            for _, row in group:
                names.append(row.id)
                digests.append(encode.row_digest(row))
                held += len(row.image or b"")
                if held <= MAX_HELD_BYTES:
                    kept.append(row)
            key = hashing.content_key("embeddings", dict(conditions), digests)
            found.append(ImagePiece(key, names, kept if held <= MAX_HELD_BYTES else None))
    return found


def stored_results(wanted: Sequence[ImagePiece], *, run: Path, job: str = "embed/whole") -> StoredResults:
    """Return what a job needs from the store: the embeddings of the pieces of a part.

    `run` is the folder of the run, next to which the store is; `job` is the name under which their keys are noted.
    """
    return StoredResults([piece.key for piece in wanted], run, job, layout.EMBEDDINGS)


def embed(
    path: Path,
    wanted: Sequence[ImagePiece],
    stored: StoredResults,
    *,
    id_column: str,
    text_column: str | None = None,
    encoder: Encoder,
    threads: int = 0,
) -> Iterator[pa.Table]:
    """Yield the embeddings of the images of a part, in its order; see `encode.encode_rows` for threads and errors.

    `wanted` are the pieces of `find_pieces`, `stored` their `stored_results`. New embeddings are in the store once the
    written part holds them (`parts.consolidate`); until then `make_missing.all_claimed` keeps other jobs from computing
    the same.
    """
    missing = set(stored.missing())
    total = sum(len(piece.names) for piece in wanted)
    present = sum(len(piece.names) for piece in wanted if piece.key not in missing)
    if present:
        LOGGER.info("embeddings of %d of %d images are there already", present, total)
    missing_pieces = [piece for piece in wanted if piece.key in missing]
    if all(piece.rows is not None for piece in missing_pieces):
        rows = [row for piece in missing_pieces for row in piece.rows or ()]
        chunks = encode.encode_rows(rows, encoder, where=str(path), total=len(rows), threads=threads)
    else:
        chunks = encode.encode_table(
            path,
            id_column=id_column,
            text_column=text_column,
            encoder=encoder,
            threads=threads,
            chosen=[piece.key in missing for piece in wanted for _ in piece.names],
        )
    new = _Buffer(features for _, features in chunks)
    old = pieces.read_all(
        stored.folder, [piece.key for piece in wanted if piece.key not in missing], ["embedding"]
    )
    blocks = itertools.chain.from_iterable(
        new.take(len(piece.names))
        if piece.key in missing
        else [vector_columns.vectors(next(old)["embedding"])]
        for piece in wanted
    )
    # Not a row group a piece: hundreds of small ones are expensive to write, and so are their statistics to read.
    names = [name for piece in wanted for name in piece.names]
    buffer = _Buffer(blocks)
    for start in range(0, total, GROUP):
        group = names[start : start + GROUP]
        yield tables.embedding_table(group, np.concatenate(list(buffer.take(len(group)))))


def _values(path: Path, column: str) -> Iterator[Any]:
    for batch in tables.iterate([path], [column], VALUES):
        yield from batch.column(column).to_pylist()


class _Buffer:
    """Rows of features, taken in other numbers than those in which they come."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self._blocks = blocks
        self._waiting: deque[np.ndarray] = deque()

    def take(self, count: int) -> Iterator[np.ndarray]:
        """Yield the next `count` rows, in one or more arrays."""
        while count:
            if not self._waiting:
                self._waiting.append(next(self._blocks))
            first = self._waiting.popleft()
            if len(first) > count:
                self._waiting.appendleft(first[count:])
            yield first[:count]
            count -= min(count, len(first))
