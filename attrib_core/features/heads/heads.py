"""Mapped embeddings: a head for real images and one for synthesized ones.

head(x) = f(x) / ||f(x)||, with f one of `forms`. Without a head ("untuned") an embedding is
only brought to unit length. Linear heads, and the names of their tensors, are those of the
published benchmark (arXiv 2306.09345). NumPy only, so that ranking and index need no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attrib_core.common.errors import InputError
from attrib_core.features.heads import head_files
from attrib_core.features.heads.forms import Channel, Head, Linear, Mlp, row_lengths
from attrib_core.features.heads.head_files import FORMS, metadata

__all__ = [
    "FORMS",
    "Channel",
    "Head",
    "Heads",
    "Linear",
    "Mlp",
    "apply",
    "check_starts",
    "load",
    "metadata",
    "name",
    "save",
]

ROWS = 1024
"""Rows mapped at once; bounds the memory of the float64 copy and changes nothing else."""


@dataclass(frozen=True, eq=False)
class Heads:
    """The head for pool and exemplars and the head for queries; None where nothing is mapped.

    One head that both share stands on both sides.
    """

    real_head: Head | None
    synth_head: Head | None

    def real(self, embeddings: np.ndarray, *, ids: Sequence[str] | None = None) -> np.ndarray:
        """Embeddings of pool rows or exemplars, (rows, dim), as (rows, dim') float32 of unit length.

        `ids` name the rows in the message of the InputError that is raised for a row that is
        not finite, or that has no direction because it, or what it is mapped to, is zero.
        """
        return apply(embeddings, self.real_head, ids=ids)

    def synth(self, embeddings: np.ndarray, *, ids: Sequence[str] | None = None) -> np.ndarray:
        """The same for embeddings of synthesized images."""
        return apply(embeddings, self.synth_head, ids=ids)


def name(head: str, *, shared: bool, kind: str) -> str:
    """The name of a mapper in a run: "linear-object", "channel-shared-both"."""
    return f"{head}-shared-{kind}" if shared else f"{head}-{kind}"


def check_starts(head: str, starts: Collection[str]) -> None:
    """InputError where training of such a head cannot begin at one of `starts`."""
    if head == "channel" and set(starts) != {"identity"}:
        raise InputError(
            f"mapper.starts: {', '.join(starts)}, but a channel head scales features one by one and cannot"
            " whiten them; expected identity alone"
        )


def apply(embeddings: np.ndarray, head: Head | None, *, ids: Sequence[str] | None = None) -> np.ndarray:
    """Map and bring to unit length: (rows, dim) to (rows, dim') float32. Errors as in `Heads.real`."""
    if embeddings.ndim != 2:
        raise InputError(f"embeddings of shape {embeddings.shape}; expected (rows, dim)")
    rows, dim = embeddings.shape
    out, takes = (dim, dim) if head is None else head.shape
    if takes != dim:
        raise InputError(f"embeddings of {dim} dimensions for a head that takes {takes}")
    mapped = np.empty((rows, out), dtype=np.float32)
    for start in range(0, rows, ROWS):
        block = embeddings[start : start + ROWS].astype(np.float64)
        block = block if head is None else head(block, _lengths(block, start, ids))
        mapped[start : start + ROWS] = _unit(block, start, ids)
    return mapped


def _unit(block: np.ndarray, start: int, ids: Sequence[str] | None) -> np.ndarray:
    unit: np.ndarray = (block / _lengths(block, start, ids)[:, None]).astype(np.float32)
    return unit


def _lengths(block: np.ndarray, start: int, ids: Sequence[str] | None) -> np.ndarray:
    lengths = row_lengths(block)
    bad = ~(np.isfinite(lengths) & (lengths > 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        name = f"row {start + row}" if ids is None else repr(ids[start + row])
        found = "is zero" if lengths[row] == 0 else "is not finite"
        raise InputError(f"embedding of {name} {found}; expected finite numbers that are not all zero")
    return lengths


def load(path: Path | None) -> Heads:
    """The heads in a file; None: no head, embeddings are only brought to unit length.

    Raises InputError for a missing or damaged file, missing tensors, and shapes that do not
    fit each other.
    """
    return Heads(None, None) if path is None else Heads(*head_files.read(path))


def save(path: Path, heads: Heads, notes: head_files.Notes) -> None:
    """Write both heads, whole or not at all; equal heads and notes give equal bytes."""
    if heads.real_head is None or heads.synth_head is None:
        raise ValueError("there are no heads to save")
    head_files.write(path, heads.real_head, heads.synth_head, notes)
