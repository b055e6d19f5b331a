"""Choose the FAISS factory string by the number of rows, for `index.factory: auto`."""

from __future__ import annotations

from typing import NamedTuple

AUTO = "auto"


class Choice(NamedTuple):
    """A FAISS factory string, and how many inverted lists a query visits (None: there are none)."""

    factory: str
    probes: int | None


BY_SIZE = (
    (100_000, Choice("Flat", None)),
    (4_000_000, Choice("IVF4096,SQ8", 128)),
    (None, Choice("IVF16384,SQ8", 256)),
)
"""The maximum number of rows (None: any), and the index for them.

Exact search as long as it takes milliseconds. Then inverted lists of two hundred rows or more each, with one byte a
component: a quarter of the size, with an error of at most 1/510 of the range of a component, so that neighbours are
missed because their list is not visited and hardly ever because of rounding. The first two lines are measured by
`benchmarks/index.py` (docs/benchmarks.md), the last one is not.
"""


def for_rows(rows: int) -> Choice:
    """Return the index for a pool of this number of rows."""
    return next(choice for limit, choice in BY_SIZE if limit is None or rows <= limit)


def resolve(factory: str, probes: int | None, rows: int) -> Choice:
    """Resolve 'auto' by the number of rows; `probes` takes precedence if it is given."""
    if factory != AUTO:
        return Choice(factory, probes)
    choice = for_rows(rows)
    return choice if probes is None else choice._replace(probes=probes)
