"""The tables that jobs declare, written of pieces, and then holding them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from attrib_core import tables
from attrib_core.store import pieces, places

Span = tuple[str, int]
"""A piece's key and its number of rows."""


def write(
    path: Path,
    name: str,
    made: Iterable[tuple[str, pa.Table]],
    *,
    run: Path,
    keep: str = "all",
    job: str = "synthesize_part/whole",
) -> None:
    """Write a part of a table, of pieces with their keys, and settle with the store of a run what it keeps.

    `name` is that of the table and of the kind in the store. See `settle` for `keep`.
    """
    spans: list[Span] = []
    with tables.writer(path, tables.schema(name)) as sink:
        for key, table in made:
            sink.write(table)
            spans.append((key, table.num_rows))
    settle(path, name, spans, run=run, keep=keep, job=job)


def settle(
    path: Path,
    kind: str,
    spans: Iterable[Span],
    *,
    run: Path,
    keep: str = "all",
    job: str = "synthesize_part/whole",
) -> None:
    """Once a part is written: "all" lets it hold its pieces, "sample" removes those that no other run refers to.

    Then `job` notes no keys any more: two runs that keep a sample would else keep each other's pieces for good.
    """
    folder = places.folder(run, kind)
    if keep == "all":
        pieces.hold(path, folder, spans)
    else:
        others = places.referred(run.parent, without=run)[kind]
        pieces.drop(folder, {key for key, _ in spans} - others)
        places.refer(run, job, kind, [])
