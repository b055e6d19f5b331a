"""The stage `embed`: a part of a table of images in, a part of embeddings out; only what is missing is encoded.

The images of an exemplar set are a piece of work in the store, under a key of the encoder and of all
that it sees of them: neither of their names nor of the run's. So a run with sets more encodes the images of
these, and two runs share what they have in common. A part of the pool is one piece.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from attrib_core.common import hashing
from attrib_core.features.embedding import compute, encoder_protocol, encoding
from attrib_core.features.embedding.encoder_protocol import Encoder
from attrib_core.features.embedding.rows import Row, opened, rows
from attrib_core.storage import tables
from attrib_core.storage.store import claims, layout, pieces

LOGGER = logging.getLogger(__name__)
EMBEDDINGS = "embeddings"
KEPT = 1 << 27
"""Bytes of images that a job holds at most from the look for keys until they are encoded."""
GROUP = 1024
"""Rows of a row group at most; all of one are read where one of its pieces is wanted."""
Conditions = Mapping[str, Any]
"""What beside the images decides: the encoder's section of the config, the fingerprint of the code."""


@dataclass(frozen=True)
class Wanted:
    """A piece of a part: its key, and the names of its rows, which follow each other there.

    rows: themselves, so that they need not be read again; None where the part is too large to hold.
    """

    key: str
    names: list[str]
    rows: list[Row] | None = None


def wanted(
    path: Path,
    *,
    ids: str,
    words: str | None = None,
    by: str | None,
    encoder: Encoder,
    conditions: Conditions,
) -> list[Wanted]:
    """The pieces of a table of images, in its order: rows that are alike in the column `by`; all where that is None.

    Of images and words a key holds what the encoder reads. Raises InputError as `embedding.embed` does for
    a missing file or column, an image without bytes, a row without words.
    """
    found = []
    image, words = encoder_protocol.columns(encoder, words, where=str(path))
    with opened(path, [column for column in (ids, image, words, by) if column]) as file:
        groups = file.read([by]).column(by).to_pylist() if by else itertools.repeat(None)
        given = rows(file, path, ids=ids, image=image, words=words, step=encoding.CHUNK)
        held = 0
        for _, group in itertools.groupby(zip(groups, given, strict=False), key=lambda pair: pair[0]):
            names, digests, kept = [], [], []
            for _, row in group:
                names.append(row.name)
                digests.append(compute.digest(row))
                held += len(row.data or b"")
                if held <= KEPT:
                    kept.append(row)
            key = hashing.content_key(EMBEDDINGS, dict(conditions), digests)
            found.append(Wanted(key, names, kept if held <= KEPT else None))
    return found


def embed(
    path: Path,
    asked: Sequence[Wanted],
    *,
    ids: str,
    words: str | None = None,
    encoder: Encoder,
    run: Path,
    job: str = "embed/whole",
    threads: int = 0,
) -> Iterator[pa.Table]:
    """Embeddings of the images of a part, in its order; see `embedding.embed` for threads and errors.

    `asked` is what `wanted` found. `run` is the folder of the run, beside which the store stands, `job` under
    what name it is noted which pieces. New ones are there once the written part holds them (`store.parts`);
    until then `claimed` keeps other jobs from encoding the same.
    """
    folder = layout.folder(run, EMBEDDINGS)
    layout.refer(run, job, EMBEDDINGS, [one.key for one in asked])
    lacking = {one.key for one in asked if pieces.finished(folder, one.key) is None}
    makes = [one.key in lacking for one in asked]
    rows_there = sum(len(one.names) for one in asked if one.key not in lacking)
    if rows_there:
        total = sum(len(one.names) for one in asked)
        LOGGER.info("embeddings of %d of %d images are there already", rows_there, total)
    made = _Ahead(_made(path, asked, makes, ids=ids, words=words, encoder=encoder, threads=threads))
    there = pieces.read_all(folder, [one.key for one in asked if one.key not in lacking], ["embedding"])
    blocks = itertools.chain.from_iterable(
        made.take(len(one.names)) if make else [tables.vectors(next(there)["embedding"])]
        for one, make in zip(asked, makes, strict=True)
    )
    # Not a row group a piece: hundreds of small ones are dear to write, and their statistics to read.
    names = [name for one in asked for name in one.names]
    together = _Ahead(blocks)
    for start in range(0, len(names), GROUP):
        some = names[start : start + GROUP]
        yield tables.embedding_table(some, np.concatenate(list(together.take(len(some)))))


def _made(
    path: Path,
    asked: Sequence[Wanted],
    makes: Sequence[bool],
    *,
    ids: str,
    words: str | None,
    encoder: Encoder,
    threads: int,
) -> Iterator[np.ndarray]:
    """Features of the pieces that are to be made, (n, dim) at a time: of the rows that are held, else of the table."""
    kept = [one.rows for one, make in zip(asked, makes, strict=True) if make]
    held = [rows for rows in kept if rows is not None]
    if len(held) == len(kept):
        return compute.of_rows(
            list(itertools.chain.from_iterable(held)), encoder, where=str(path), threads=threads
        )
    chosen = [make for one, make in zip(asked, makes, strict=True) for _ in one.names]
    return compute.of_table(path, ids=ids, words=words, encoder=encoder, threads=threads, chosen=chosen)


@contextmanager
def claimed(asked: Sequence[Wanted], run: Path) -> Iterator[None]:
    """Inside, no job of another run encodes what of these pieces is missing; waits for one that does."""
    folder = layout.folder(run, EMBEDDINGS)
    lacking = [one.key for one in asked if pieces.finished(folder, one.key) is None]
    with claims.all_of(folder, lacking, what="embeddings"):
        yield


class _Ahead:
    """Rows of features, taken in numbers that need not be those in which they come."""

    def __init__(self, made: Iterator[np.ndarray]) -> None:
        self._made = made
        self._waiting: deque[np.ndarray] = deque()

    def take(self, count: int) -> Iterator[np.ndarray]:
        """The next `count` rows, in some arrays."""
        while count:
            if not self._waiting:
                self._waiting.append(next(self._made))
            first = self._waiting.popleft()
            if len(first) > count:
                self._waiting.appendleft(first[count:])
            yield first[:count]
            count -= min(count, len(first))
