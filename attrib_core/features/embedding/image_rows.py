"""Read the rows of an image table as an encoder takes them: encoded images, and text without the modifier token."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from attrib_core.common.errors import InputError
from attrib_core.data import prompts
from attrib_core.storage import parquet_files

IMAGES_COPIED = 16
"""Images copied out of a table at once: faster than one by one, and little memory compared with the table's."""


class ImageRow(NamedTuple):
    """A row to encode: its id, the encoded image, its text, and how an error message names it.

    image: None if the encoder reads no images. text: None if it reads no text.
    """

    id: str
    image: bytes | None
    text: str | None
    where: str


def read_rows(
    file: parquet_files.ParquetFile,
    path: Path,
    *,
    id_column: str,
    image_column: str | None,
    text_column: str | None,
    step: int,
) -> Iterator[ImageRow]:
    """Read the rows of a table, `step` at a time; a column that is None is not read.

    Raises InputError for an image without bytes and for a row without text.
    """
    columns = [column for column in (id_column, image_column, text_column) if column]
    for batch in parquet_files.batches(file, path, step, columns):
        ids = batch.column(id_column).to_pylist()
        images = _image_bytes(batch.column(image_column)) if image_column else itertools.repeat(None)
        texts = batch.column(text_column).to_pylist() if text_column else itertools.repeat(None)
        for row_id, image, text in zip(ids, images, texts, strict=False):
            where = f"{path}: image {row_id!r}"
            if image_column and image is None:
                raise InputError(f"{where} has no bytes; expected the encoded image in image.bytes")
            yield ImageRow(row_id, image, _checked_text(text, where, text_column), where)


def _image_bytes(images: pa.StructArray) -> Iterator[bytes | None]:
    data = pc.struct_field(images, "bytes")
    for start in range(0, len(data), IMAGES_COPIED):
        yield from data.slice(start, IMAGES_COPIED).to_pylist()


def _checked_text(text: Any, where: str, column: str | None) -> str | None:
    if column is None:
        return None
    if not isinstance(text, str):
        raise InputError(f"{where} has {text!r} as {column!r}; expected text, '' for none")
    return without_modifier_token(text)


def without_modifier_token(text: str) -> str:
    """Return a text as encoders read it: without the modifier token, which means nothing to other models."""
    token = prompts.MODIFIER_TOKEN
    return prompts.without_token(text, token) if token in text else text
