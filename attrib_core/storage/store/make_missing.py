"""Make the results of a job that the store lacks, each once among all jobs, and read all of them back.

Every stage that keeps its results in the store follows one protocol:

1. Refer: note which keys the job's output depends on, so that nobody removes what they name.
2. Find: see which of them are finished; this checks the bytes of their files.
3. Take turns: claim what is missing. What a job of another run is making is waited for instead of made twice, and
   made here if that job ends without it.
4. Write: each result as soon as it is computed, its record last. A killed job loses at most what it was computing;
   its next attempt begins again at 1.
5. Read back: all results, in the order in which they were asked for.

Work whose results are finished only at its very end (a part of embeddings) claims all of them at once instead of
step 3: see `all_claimed`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from attrib_core.storage import tables
from attrib_core.storage.store import claims, layout, pieces, references

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredResults:
    """The results of one kind that a job needs from the store.

    keys: their content keys, in the order in which they are read back. run: folder of the run, next to which the store
    is. job: the name under which the job notes its keys, such as "customize_part/0000". kind: folder of the store.
    finished: returns what is known of a finished result of a folder and key, None for one that must be made.
    """

    keys: Sequence[str]
    run: Path
    job: str
    kind: str
    finished: Callable[[Path, str], object | None] = pieces.finished

    @property
    def folder(self) -> Path:
        """The folder of the store that holds them."""
        return layout.folder(self.run, self.kind)

    def is_finished(self, key: str) -> bool:
        """Return whether a result is there, with the bytes that were written."""
        return self.finished(self.folder, key) is not None

    def missing(self) -> list[str]:
        """Note the keys for the job (steps 1 and 2) and return those that are not finished, each once, in order."""
        references.note(self.run, self.job, self.kind, self.keys)
        return [key for key in dict.fromkeys(self.keys) if not self.is_finished(key)]


def find_missing(wanted: StoredResults, counted: str) -> list[str]:
    """Return the keys of missing results (steps 1 and 2), and log how many are there already.

    `counted` is the beginning of that line, such as "images of %d of %d models".
    """
    missing = wanted.missing()
    if len(missing) < len(wanted.keys):
        LOGGER.info(f"{counted} are there already", len(wanted.keys) - len(missing), len(wanted.keys))
    return missing


def take_turns(wanted: StoredResults, groups: Iterable[Sequence[str]], noun: str) -> Iterator[list[str]]:
    """Yield lists of keys to make and write before the next list is asked for (step 3).

    `groups` are the missing keys, cut as they are claimed and released. `noun` names the results in the log.
    """
    return claims.turns(wanted.folder, groups, wanted.is_finished, what=noun)


def make_pieces(
    wanted: StoredResults,
    make: Callable[[list[str]], Iterable[Sequence[dict[str, Any]]]],
    table: str,
    *,
    counted: str,
    noun: str,
) -> Iterator[tuple[str, pa.Table]]:
    """Yield key and rows of each piece of a table, once all that are missing are made and written (steps 1 to 5).

    `make` takes missing keys and gives the rows of each in that order, one key at a time: they are written before those
    of the next key are asked for. `counted` and `noun` as in `find_missing` and `take_turns`.
    """
    schema = tables.schema(table)
    missing = find_missing(wanted, counted)
    for keys in take_turns(wanted, [missing], noun):
        for key, rows in zip(keys, make(keys), strict=True):
            pieces.write(wanted.folder, key, rows, schema)
    for key in wanted.keys:
        yield key, tables.conform(pieces.read(wanted.folder, key), schema, str(wanted.folder / key))


@contextmanager
def all_claimed(wanted: StoredResults, noun: str) -> Iterator[None]:
    """Claim everything that is missing, after other jobs have finished what they make of it; release it at the end.

    Inside, `wanted.missing()` says what is still to be made.
    """
    with claims.all_of(wanted.folder, wanted.missing(), what=noun):
        yield
