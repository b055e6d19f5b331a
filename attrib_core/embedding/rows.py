"""Rows of a table as an encoder is given them: encoded pictures, and words without the modifier token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from attrib_core import prompts
from attrib_core.errors import InputError


class Row(NamedTuple):
    """A row that is embedded: its name, the encoded picture, its words, and what an error calls it.

    data: None where the encoder reads no pictures. words: None where it reads no words.
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

    `step` of them are read at once. Raises InputError for a picture without bytes and for a row without words.
    """
    columns = [column for column in (ids, image, words) if column]
    for batch in file.iter_batches(batch_size=step, columns=columns):
        for number, name in enumerate(batch.column(ids).to_pylist()):
            where = f"{path}: picture {name!r}"
            data = _bytes(batch.column(image)[number], where) if image else None
            said = _said(batch.column(words)[number].as_py(), where, words) if words else None
            yield Row(name, data, said, where)


def _bytes(image: pa.StructScalar, where: str) -> bytes:
    data: bytes | None = image["bytes"].as_py() if image.is_valid else None
    if data is None:
        raise InputError(f"{where} has no bytes; expected the encoded picture in image.bytes")
    return data


def _said(words: Any, where: str, column: str) -> str:
    """The words without the modifier token."""
    if not isinstance(words, str):
        raise InputError(f"{where} has {words!r} as {column!r}; expected words, '' for none")
    return plain(words)


def plain(words: str) -> str:
    """Words as encoders are given them: without the modifier token, which no tower knows."""
    token = prompts.MODIFIER_TOKEN
    return prompts.without_token(words, token) if token in words else words
