"""Rows of a table as an encoder is given them: encoded images, and words without the modifier token."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attrib_core.common.errors import InputError
from attrib_core.data import prompts

COPIED = 16
"""Images that are taken out of a table at once: quicker than one, and little memory beside the table's own."""


class Row(NamedTuple):
    """A row that is embedded: its name, the encoded image, its words, and what an error calls it.

    data: None where the encoder reads no images. words: None where it reads no words.
    """

    name: str
    data: bytes | None
    words: str | None
    where: str


def opened(path: Path, columns: Sequence[str]) -> pq.ParquetFile:
    """A Parquet file that has these columns; InputError where it is missing, is none, or lacks one."""
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such table; expected a Parquet file") from None
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not a readable Parquet file: {error}") from None
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise InputError(f"{path}: missing columns {missing}; it has {file.schema_arrow.names}")
    return file


def rows(
    file: pq.ParquetFile, path: Path, *, ids: str, image: str | None, words: str | None, step: int
) -> Iterator[Row]:
    """The rows of a table with what stands in the columns `image` and `words`; None where there is no column.

    `step` of them are read at once. Raises InputError for an image without bytes and for a row without words.
    """
    columns = [column for column in (ids, image, words) if column]
    for batch in file.iter_batches(batch_size=step, columns=columns):
        names = batch.column(ids).to_pylist()
        images = _bytes(batch.column(image)) if image else itertools.repeat(None)
        texts = batch.column(words).to_pylist() if words else itertools.repeat(None)
        for name, data, text in zip(names, images, texts, strict=False):
            where = f"{path}: image {name!r}"
            if image and data is None:
                raise InputError(f"{where} has no bytes; expected the encoded image in image.bytes")
            yield Row(name, data, _said(text, where, words) if words else None, where)


def _bytes(images: pa.StructArray) -> Iterator[bytes | None]:
    """The encoded images, copied a few at a time; None where there is no image, or none of its bytes."""
    data = pc.struct_field(images, "bytes")
    for start in range(0, len(data), COPIED):
        yield from data.slice(start, COPIED).to_pylist()


def _said(words: Any, where: str, column: str) -> str:
    """The words without the modifier token."""
    if not isinstance(words, str):
        raise InputError(f"{where} has {words!r} as {column!r}; expected words, '' for none")
    return plain(words)


def plain(words: str) -> str:
    """Words as encoders are given them: without the modifier token, which no tower knows."""
    token = prompts.MODIFIER_TOKEN
    return prompts.without_token(words, token) if token in words else words
