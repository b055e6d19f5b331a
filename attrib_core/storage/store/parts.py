"""Tables of jobs that are written from pieces of the store, and then hold the bytes of these pieces."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from attrib_core.storage import tables
from attrib_core.storage.store import layout, locks, pieces, references

Span = tuple[str, int]
"""A piece's key and its number of rows."""


def write(path: Path, table: str, rows_by_key: Iterable[tuple[str, pa.Table]]) -> list[Span]:
    """Write a part of a table from pieces with their keys; return their spans, for `consolidate`."""
    spans: list[Span] = []
    with tables.writer(path, tables.schema(table)) as sink:
        for key, rows in rows_by_key:
            sink.write(rows)
            spans.append((key, rows.num_rows))
    return spans


def consolidate(path: Path, kind: str, spans: Iterable[Span], *, run: Path) -> None:
    """Let a written part hold its pieces, so that the disk has their bytes once (see `pieces`).

    The last thing that a job does, once all its files are written. `kind` is that in the store: "synthesized" or such.
    """
    folder = layout.folder(run, kind)
    with locks.moving(folder):
        pieces.consolidate(path, folder, spans)


def release(kind: str, *, run: Path, job: str) -> None:
    """Remove the pieces that `job`, such as "synthesize_part/0000", notes, except those that other runs refer to.

    Then the job notes no keys any more: two runs that keep a sample would otherwise keep each other's pieces for ever.
    Called by a later job, whose own output needs the pieces no more: if `job` were killed before Snakemake counts it as
    finished, its table would be made again, from pieces that are still there.
    """
    folder = layout.folder(run, kind)
    with locks.moving(folder):
        needed_by_others = references.by_kind(run.parent, without=run)[kind]
        pieces.drop(folder, set(references.noted_keys(run, job)) - needed_by_others)
        references.clear(run, job, kind)
