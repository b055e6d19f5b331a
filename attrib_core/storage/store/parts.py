"""The tables that jobs declare, written of pieces, and then holding them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from attrib_core.storage import tables
from attrib_core.storage.store import layout, pieces

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


def settle(path: Path, kind: str, spans: Iterable[Span], *, run: Path) -> None:
    """Once all files of a job are written, its last act: the part holds its pieces in the store of a run.

    `kind` is that in the store, "synthesized" or the like.
    """
    folder = layout.folder(run, kind)
    with layout.moving(folder):
        pieces.hold(path, folder, spans)


def let_go(kind: str, *, run: Path, job: str) -> None:
    """Remove the pieces that `job`, "synthesize_part/0000", notes, but for those that other runs refer to.

    Then it notes no keys any more: two runs that keep a sample would else keep each other's pieces for good.
    For a later job, whose own output needs them no more: where `job` itself is killed before Snakemake counts it as
    ended, its table is made again, of pieces that are still there.
    """
    folder = layout.folder(run, kind)
    with layout.moving(folder):
        others = layout.referred(run.parent, without=run)[kind]
        pieces.drop(folder, set(layout.noted(run, job)) - others)
        layout.forget(run, job, kind)
