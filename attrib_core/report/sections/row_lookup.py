"""Look up a few rows with their images in tables that are too large for memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from attrib_core.attribution.metrics.metrics_table import Row
from attrib_core.common.errors import InputError
from attrib_core.storage import parquet_files

BATCH = 256
KEYS = 1 << 16


def rows_by_id(
    paths: Iterable[Path], key: str, wanted: Collection[str], columns: Sequence[str]
) -> dict[str, Row]:
    """Return the rows whose `key` is in `wanted`, by key, with `columns`.

    Keys are read first, other columns only of row groups with a hit, in batches of 256 rows, so that memory is bounded
    whatever the size of the images. Raises InputError for a key that is in no part.
    """
    values = pa.array(sorted(wanted), pa.string())
    found: dict[str, Row] = {}
    where: list[str] = []
    for path in paths:
        where.append(str(path))
        if len(found) == len(values):
            continue
        with parquet_files.opened(path, list({key, *columns})) as file:
            for group in range(file.num_row_groups):
                keys = parquet_files.batches(file, path, KEYS, [key], [group])
                if not any(pc.any(pc.is_in(batch.column(key), value_set=values)).as_py() for batch in keys):
                    continue
                for batch in parquet_files.batches(file, path, BATCH, list({key, *columns}), [group]):
                    kept = batch.filter(pc.is_in(batch.column(key), value_set=values))
                    found |= {row[key]: row for row in kept.to_pylist()}
    missing = sorted(set(values.to_pylist()) - set(found))
    if missing:
        raise InputError(f"{where[0]}{' ...' if where[1:] else ''}: no row has the {key} {missing[0]!r}")
    return found
