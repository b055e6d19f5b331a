"""Look up a few rows with their images in tables that are too large for memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attrib_core.attribution.metrics.metrics_table import Row
from attrib_core.common.errors import InputError

BATCH = 256


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
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                hits = pc.is_in(file.read_row_group(group, columns=[key])[key], value_set=values)
                if not pc.any(hits).as_py():
                    continue
                for batch in file.iter_batches(BATCH, row_groups=[group], columns=list({key, *columns})):
                    kept = batch.filter(pc.is_in(batch.column(key), value_set=values))
                    found |= {row[key]: row for row in kept.to_pylist()}
    missing = sorted(set(values.to_pylist()) - set(found))
    if missing:
        raise InputError(f"{where[0]}{' ...' if where[1:] else ''}: no row has the {key} {missing[0]!r}")
    return found
