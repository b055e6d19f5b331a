"""The images of each exemplar set that the report may show, with their controls: random, over all prompt kinds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from attrib_core.common import hashing
from attrib_core.diffusion.synthesis.requests import CUSTOMIZED
from attrib_core.storage import tables

COLUMNS = ("query_id", "exemplar_set", "condition", "prompt_kind", "prompt_index", "sample_index")
ROWS_A_TABLE = 64
Row = Mapping[str, Any]


def choose_by_seed(names: Iterable[str], count: int, *parts: Any) -> list[str]:
    """Choose `count` of the names by a hash of `parts` and name; the order of `names` does not matter."""
    return sorted(sorted(names), key=lambda name: hashing.digest("gallery", *parts, name))[:count]


def choose_queries(rows: Iterable[Row], *, samples: int, seed: int) -> dict[str, list[str]]:
    """Choose `samples` images of the customized models of each set, from rows with COLUMNS; query ids by set.

    They are chosen from the images of a prompt kind that have a control, or from all where none has.
    """
    by_set: dict[str, list[Row]] = {}
    controls = set()
    for row in rows:
        if row["condition"] == CUSTOMIZED:
            by_set.setdefault(row["exemplar_set"], []).append(row)
        else:
            controls.add(image_identity(row))
    found = {}
    for name, own in by_set.items():
        drawn = []
        for kind in sorted({row["prompt_kind"] for row in own}):
            of_kind = [row for row in own if row["prompt_kind"] == kind]
            compared = [row for row in of_kind if image_identity(row) in controls]
            drawn.append(
                choose_by_seed([row["query_id"] for row in compared or of_kind], samples, seed, name)
            )
        turns = [query for turn in itertools.zip_longest(*drawn) for query in turn if query is not None]
        found[name] = turns[:samples]
    return found


def image_identity(row: Row) -> tuple[Any, ...]:
    """Return what an image and its control have in common."""
    return tuple(row[name] for name in ("exemplar_set", "prompt_kind", "prompt_index", "sample_index"))


def sample_tables(path: Path, *, samples: int, seed: int) -> Iterator[pa.Table]:
    """Yield tables of the chosen rows of a part of `synthesized` and of their controls, in the order of the part."""
    rows = tables.read(path, "synthesized", COLUMNS).to_pylist()
    customized = {
        query for queries in choose_queries(rows, samples=samples, seed=seed).values() for query in queries
    }
    images = {image_identity(row) for row in rows if row["query_id"] in customized}
    numbers = [
        number
        for number, row in enumerate(rows)
        if row["query_id"] in customized or (row["condition"] != CUSTOMIZED and image_identity(row) in images)
    ]
    schema = tables.schema("synthesized")
    found = tables.rows_at(path, schema.names, numbers)
    while some := [row for _, row in itertools.islice(found, ROWS_A_TABLE)]:
        yield tables.from_rows(some, schema, str(path))


def with_controls(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group customized rows of a sample by set, each with the row of its control, or None, as `control`."""
    controls = {image_identity(row): row for row in rows if row["condition"] != CUSTOMIZED}
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["condition"] == CUSTOMIZED:
            found.setdefault(row["exemplar_set"], []).append(
                {**row, "control": controls.get(image_identity(row))}
            )
    return found
