"""The tables that jobs declare, written of pieces, and then holding them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from attrib_core import tables
from attrib_core.store import pieces, places

Span = tuple[str, int]
"""A piece's key and its number of rows."""


def write(path: Path, name: str, made: Iterable[tuple[str, pa.Table]]) -> list[Span]:
    """Write a part of a table, of pieces with their keys; what of it `settle` is to be told."""
    spans: list[Span] = []
    with tables.writer(path, tables.schema(name)) as sink:
        for key, table in made:
            sink.write(table)
            spans.append((key, table.num_rows))
    return spans


def settle(
    path: Path,
    kind: str,
    spans: Iterable[Span],
    *,
    run: Path,
    keep: str = "all",
    job: str = "synthesize_part/whole",
) -> None:
    """Once all files of a job are written, its last act: what the store of a run keeps of the pieces of a part.

    `kind` is that in the store, "synthesized" or the like. "all" lets the part hold its pieces, "sample" removes
    those that no other run refers to. Then `job` notes no keys any more: two runs that keep a sample would
    else keep each other's pieces for good.
    """
    folder = places.folder(run, kind)
    if keep == "all":
        pieces.hold(path, folder, spans)
    else:
        others = places.referred(run.parent, without=run)[kind]
        pieces.drop(folder, {key for key, _ in spans} - others)
        places.refer(run, job, kind, [])
