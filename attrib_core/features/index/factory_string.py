"""Which index for how many rows: what `index.factory: auto` means."""

from __future__ import annotations

from typing import NamedTuple

AUTO = "auto"


class Choice(NamedTuple):
    """A FAISS factory string, and the inverted lists that a query visits (None where there are none)."""

    factory: str
    probes: int | None


BY_SIZE = (
    (100_000, Choice("Flat", None)),
    (4_000_000, Choice("IVF4096,SQ8", 128)),
    (None, Choice("IVF16384,SQ8", 256)),
)
"""Most rows (None: any number), and the index for them.

Exact search as long as it takes milliseconds. Then inverted lists, of some two hundred rows or more each, and
a byte a component: a quarter of the size, and components are off by 1/510 of their range at most, so that
neighbours are lost to lists that are not visited and hardly to rounding. The first two lines are measured by
`benchmarks/index.py` (docs/benchmarks.md), the last one is not.
"""


def for_rows(rows: int) -> Choice:
    """The index for a pool of so many rows."""
    return next(choice for most, choice in BY_SIZE if most is None or rows <= most)


def resolve(factory: str, probes: int | None, rows: int) -> Choice:
    """The factory string and probes of a config: 'auto' is replaced, `probes` of a config go first."""
    if factory != AUTO:
        return Choice(factory, probes)
    found = for_rows(rows)
    return found._replace(probes=found.probes if probes is None else probes)
