"""Pieces of small tables in a store, and the parts that a job writes from them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from attrib_core.storage import tables
from attrib_core.storage.store import pieces

SCHEMA = tables.schema("rejects")


def rows(names: Iterable[str]) -> list[dict[str, Any]]:
    """Return a row for each name."""
    return [{"image_id": name, "reason": "x"} for name in names]


def write_pieces(folder: Path, **names_of: Iterable[str]) -> None:
    """Write a piece for each key, with a row for each of its names."""
    for key, names in names_of.items():
        pieces.write(folder, key, rows(names), SCHEMA)


def write_part(path: Path, *names_of_pieces: Iterable[str]) -> Path:
    """Write a part as a job does: the rows of each piece, one piece after the other."""
    with tables.writer(path, SCHEMA) as sink:
        for names in names_of_pieces:
            sink.write(rows(names))
    return path


def names(table: pa.Table) -> list[str]:
    """Return the names of the rows of a table."""
    found: list[str] = table["image_id"].to_pylist()
    return found
