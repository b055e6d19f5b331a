"""Encode the images of a table, decoding ahead in threads."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, compress, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from attrib_core.common.errors import InputError
from attrib_core.data.images import to_rgb
from attrib_core.features.embedding.encoder_protocol import Encoder, Item, Result, columns, reads
from attrib_core.features.embedding.rows import Row, opened, rows
from attrib_core.runtime.progress import progress
from attrib_core.storage import tables

CHUNK = 256


THREADS_BESIDE_A_GPU = 4


AHEAD = 4


def embed(
    path: Path,
    *,
    ids: str,
    words: str | None = None,
    encoder: Encoder,
    threads: int = 0,
    chosen: Sequence[bool] | None = None,
) -> Iterator[pa.Table]:
    """Embeddings of the images in a Parquet file, in tables of at most about a row group.

    `ids` is the column that names an image; the images are in the column `image`, and what is said of
    them in the column `words`. An encoder that reads words is given these without the modifier token: it
    stands for a model, and no tower knows it. A column that the encoder does not read is not opened. So many
    `threads` decode and prepare ahead of the encoder, AHEAD images each at most; with 0 it is
    done as images are needed; -1 means THREADS_BESIDE_A_GPU where the encoder computes on one, else
    none. The result does not depend on it. `chosen` says of each row whether it is wanted; None: all are.
    Raises InputError for a missing file or column, an image without bytes or that cannot be decoded, a
    row without words (empty ones are words), and features that are not (images, dim) finite float32.
    """
    blocks: list[np.ndarray] = []
    names: list[str] = []
    image, words = columns(encoder, words, where=str(path))
    with opened(path, [column for column in (ids, image, words) if column]) as file:
        total = file.metadata.num_rows if chosen is None else sum(chosen)
        given = rows(file, path, ids=ids, image=image, words=words, step=CHUNK)
        given = given if chosen is None else compress(given, chosen)
        chunks = encoded(given, encoder, where=str(path), total=total, threads=threads)
        for found, features in chunks:
            names += found
            blocks.append(features)
            if len(names) >= tables.ROW_GROUP:
                yield tables.embedding_table(names, np.concatenate(blocks))
                blocks, names = [], []
    if names:
        yield tables.embedding_table(names, np.concatenate(blocks))


def encoded(
    given: Iterable[Row],
    encoder: Encoder,
    *,
    where: str,
    total: int | None = None,
    threads: int = 0,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Names and (n, dim) float32 of rows, some hundreds at a time; see `embed`. `where` names all of them."""
    read = reads(encoder)
    if threads < 0:
        threads = THREADS_BESIDE_A_GPU if getattr(encoder, "device", "cpu") != "cpu" else 0
    if read == "words":
        threads = 0  # nothing is decoded, and tokenizers are not for several threads
    prepare = getattr(encoder, "prepare", None)

    def ready(row: Row) -> tuple[str, Any]:
        taken = _taken(row, read)
        return row.name, prepare(taken) if prepare else taken

    images = progress(_ahead(given, ready, threads), total=total, what="images")
    while chunk := _encoded(images, encoder, where):
        yield chunk


def _taken(row: Row, read: str) -> Any:
    """What an encoder that reads this is given of a row."""
    image = None if read == "words" or row.data is None else to_rgb(row.data, where=row.where)
    return {"images": image, "words": row.words, "both": (image, row.words)}[read]


def _ahead(items: Iterable[Item], work: Callable[[Item], Result], threads: int) -> Iterator[Result]:
    """`work` of each item, in their order; threads do it, a bounded number of items ahead."""
    if not threads:
        yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decoding") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= threads * AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def _encoded(
    images: Iterator[tuple[str, Any]], encoder: Encoder, where: str
) -> tuple[list[str], np.ndarray] | None:
    names: list[str] = []
    if (first := next(images, None)) is None:
        return None  # no encoder is asked for the features of nothing
    batch = getattr(encoder, "batch", 1)
    size = batch * math.ceil(CHUNK / batch)  # whole batches: the last of a chunk is not filled up for nothing

    def taken() -> Iterator[Any]:
        for name, image in chain([first], islice(images, size - 1)):
            names.append(name)
            yield image

    encode = getattr(encoder, "encode_prepared", encoder.encode)
    features = encode(taken())
    family = encoder.identity.get("family")
    if features.shape != (len(names), encoder.dim) or features.dtype != np.float32:
        raise InputError(
            f"{where}: encoder {family!r} gave {features.dtype} of shape {features.shape}"
            f" for {len(names)} images, expected float32 of shape {(len(names), encoder.dim)}"
        )
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad.size:
        raise InputError(
            f"{where}: encoder {family!r} gave numbers that are not finite for {names[bad[0]]!r};"
            " expected finite features (are its weights damaged?)"
        )
    return names, features
