"""Compute the features of images and text with an encoder, decoding images ahead in threads.

The code that this module uses is part of the key under which embeddings are stored, so what does not affect features
belongs elsewhere. One image is decoded at a time, or a few ahead where threads decode; an encoder holds one batch.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, compress, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from attrib_core.common.errors import InputError
from attrib_core.data.images import to_rgb
from attrib_core.features.embedding import encoder_protocol
from attrib_core.features.embedding.encoder_protocol import Encoder
from attrib_core.features.embedding.image_rows import ImageRow, read_rows
from attrib_core.runtime.progress import progress
from attrib_core.storage import parquet_files

CHUNK = 256
"""Rows read and encoded at a time, about."""
GPU_DECODING_THREADS = 4
"""Decoding threads by default where the encoder computes on a GPU."""
IMAGES_AHEAD = 4
"""Images that a thread decodes ahead of the encoder at most."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def load_encoder(section: Mapping[str, Any], where: str) -> Encoder:
    """Load the encoder of a config section; see `encoder_protocol.load`."""
    return encoder_protocol.load(section, where)


def row_digest(row: ImageRow) -> str:
    """Compute a digest of the image and text that an encoder reads of a row, 64 hexadecimal digits; not of its id."""
    text = None if row.text is None else row.text.encode()
    return hashlib.sha256(_part_digest(row.image) + _part_digest(text)).hexdigest()


def _part_digest(part: bytes | None) -> bytes:
    return b"\0" if part is None else b"\1" + hashlib.sha256(part).digest()


def encode_table(
    path: Path,
    *,
    id_column: str,
    text_column: str | None = None,
    encoder: Encoder,
    threads: int = 0,
    chosen: Sequence[bool] | None = None,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield the features of the rows of an image table, as `encode_rows` does.

    Images are in the column `image`. An encoder that reads text is given `text_column` without the modifier token,
    which means nothing to other models. A column that the encoder does not read is not opened. `chosen` says of each
    row whether to encode it; None: all. Raises InputError for a missing file or column, an image without bytes or one
    that cannot be decoded, a row without text (an empty string is text), and for what `encode_rows` refuses.
    """
    image_column, text_column = encoder_protocol.input_columns(encoder, text_column, where=str(path))
    columns = [column for column in (id_column, image_column, text_column) if column]
    with parquet_files.opened(path, columns) as file:
        total = file.metadata.num_rows if chosen is None else sum(chosen)
        rows = read_rows(
            file, path, id_column=id_column, image_column=image_column, text_column=text_column, step=CHUNK
        )
        rows = rows if chosen is None else compress(rows, chosen)
        yield from encode_rows(rows, encoder, where=str(path), total=total, threads=threads)


def encode_rows(
    rows: Iterable[ImageRow],
    encoder: Encoder,
    *,
    where: str,
    total: int | None = None,
    threads: int = 0,
    seen: Callable[[str, np.ndarray], None] | None = None,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield ids and features, (n, dim) float32, of rows, some hundreds at a time.

    `threads` decode and prepare images ahead of the encoder, IMAGES_AHEAD each at most; with 0 it is done as images
    are needed; -1 means GPU_DECODING_THREADS where the encoder computes on a GPU, else 0. The features do not depend
    on it. `seen` is called with the id of a row and its decoded image, in any order. `where` names the rows in an
    InputError, raised for features that are not (rows, dim) finite float32.
    """
    kind = encoder_protocol.input_kind(encoder)
    if threads < 0:
        threads = GPU_DECODING_THREADS if getattr(encoder, "device", "cpu") != "cpu" else 0
    if kind == "text":
        threads = 0  # nothing is decoded, and tokenizers are not thread-safe
    prepare = getattr(encoder, "prepare", None)

    def decode(row: ImageRow) -> tuple[str, Any]:
        image = None if kind == "text" or row.image is None else to_rgb(row.image, where=row.where)
        if seen is not None and image is not None:
            seen(row.id, image)
        encoder_input = {"images": image, "text": row.text, "both": (image, row.text)}[kind]
        return row.id, prepare(encoder_input) if prepare else encoder_input

    inputs = progress(_map_ahead(rows, decode, threads), total=total, what="images")
    while chunk := _encode_chunk(inputs, encoder, where):
        yield chunk


def _map_ahead(items: Iterable[Item], function: Callable[[Item], Result], threads: int) -> Iterator[Result]:
    """Yield the results of a function in order, computed by threads a bounded number of items ahead."""
    if not threads:
        yield from map(function, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decoding") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= threads * IMAGES_AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _encode_chunk(
    inputs: Iterator[tuple[str, Any]], encoder: Encoder, where: str
) -> tuple[list[str], np.ndarray] | None:
    """Encode and check the next chunk of inputs; None if there are no more."""
    ids: list[str] = []
    if (first := next(inputs, None)) is None:
        return None  # an encoder is not called for an empty chunk
    batch_size = getattr(encoder, "batch_size", 1)
    size = batch_size * math.ceil(CHUNK / batch_size)  # whole batches, so that none but the last is padded

    def prepared() -> Iterator[Any]:
        for row_id, encoder_input in chain([first], islice(inputs, size - 1)):
            ids.append(row_id)
            yield encoder_input

    features = getattr(encoder, "encode_prepared", encoder.encode)(prepared())
    family = encoder.identity.get("family")
    if features.shape != (len(ids), encoder.dim) or features.dtype != np.float32:
        raise InputError(
            f"{where}: encoder {family!r} gave {features.dtype} of shape {features.shape}"
            f" for {len(ids)} images, expected float32 of shape {(len(ids), encoder.dim)}"
        )
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad.size:
        raise InputError(
            f"{where}: encoder {family!r} gave non-finite numbers for {ids[bad[0]]!r};"
            " expected finite features (are its weights damaged?)"
        )
    return ids, features
