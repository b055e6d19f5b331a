"""Which rows of the pool are distractors: of all queries, and of the queries of each exemplar set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attrib_core.attribution.ranking import embedding_stream
from attrib_core.common.errors import InputError
from attrib_core.storage import tables, vector_columns


class LeftOut:
    """Rows of the pool that are no distractors of the queries of some exemplar sets, by exemplar set."""

    def __init__(self, by_set: Mapping[str, Collection[str]]) -> None:
        self._sets_of: dict[str, list[str]] = {}
        for exemplar_set, ids in by_set.items():
            for name in set(ids):
                self._sets_of.setdefault(name, []).append(exemplar_set)
        self.ids = pa.array(sorted(self._sets_of), pa.string())

    def rows(self, ids: Sequence[str], sets: Sequence[str]) -> list[np.ndarray] | None:
        """Return the numbers of the rows `ids` of a block that are left out, one array a set; None: none at all."""
        if not len(self.ids):
            return None
        rows: dict[str, list[int]] = {}
        for row in np.flatnonzero(pc.is_in(pa.array(ids, pa.string()), value_set=self.ids)).tolist():
            for exemplar_set in self._sets_of[ids[row]]:
                rows.setdefault(exemplar_set, []).append(row)
        return [np.array(rows.get(name, ()), np.intp) for name in sets] if rows else None

    def numbers(self, excluded: pa.Array) -> dict[str, int]:
        """Return how many rows each set leaves out, besides those that are excluded for all."""
        numbers: dict[str, int] = {}
        for name in set(self._sets_of) - set(excluded.to_pylist()):
            for exemplar_set in self._sets_of[name]:
                numbers[exemplar_set] = numbers.get(exemplar_set, 0) + 1
        return numbers


def count_distractors(pool: Sequence[Path], excluded: pa.Array, left_out: LeftOut) -> dict[str | None, int]:
    """Count the distractors of the queries of each set that leaves rows out, and, by None, of all others.

    Raises InputError where a row that is excluded or left out is missing, and where no other row remains.
    """
    total, found = 0, set()
    named = pa.concat_arrays([excluded, left_out.ids])
    for path in map(Path, pool):
        vector_columns.dimension(path)
        for batch in tables.iterate([path], ["image_id"], 1 << 17):
            names = batch.column("image_id")
            total += len(names)
            found.update(names.filter(pc.is_in(names, value_set=named)).to_pylist())
    if missing := set(named.to_pylist()) - found:
        raise InputError(
            f"excluded row {min(missing)!r} is not in the pool {embedding_stream.list_files(pool)},"
            " expected its image_id"
        )
    least = total - len(excluded)
    numbers: dict[str | None, int] = {None: least}
    for exemplar_set, number in left_out.numbers(excluded).items():
        numbers[exemplar_set] = least - number
    for one, rest in numbers.items():
        if rest < 1:
            of = "" if one is None else f" for exemplar set {one!r}"
            raise InputError(
                f"{embedding_stream.list_files(pool)}: all {total} rows of the pool are excluded{of},"
                " expected distractors"
            )
    return numbers
