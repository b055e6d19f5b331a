"""Pieces of a stage's work, each a table under a key of all that it depends on, in a folder that no rule declares.

So a killed job resumes at its first unfinished piece, and a run with one thing more makes one
piece more. The record beside a piece is written last and holds the checksum of its bytes: a
piece is finished or not, and one that was damaged since is made again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from attrib_core import keys, tables


def write(path: Path, name: str, rows: pa.Table | Sequence[dict[str, Any]]) -> None:
    """Write a piece, a table of a known name, and then its record."""
    tables.write(path, name, rows)
    tables.write_json(_record(path), {"checksum": keys.file_digest(path)})


def finished(path: Path) -> bool:
    """Whether a piece is there and holds the bytes that were written."""
    try:
        record = json.loads(_record(path).read_text("utf-8"))
        return bool(record["checksum"] == keys.file_digest(path))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def _record(path: Path) -> Path:
    return path.with_suffix(".json")
