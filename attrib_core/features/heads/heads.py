"""Apply, load and save a mapper: one head for real images and one for synthesized images.

head(x) = f(x) / ||f(x)||, with f one of `head_types`. Without a head ("untuned") an embedding is only normalised.
Linear heads, and the names of their tensors, are those of the published benchmark (arXiv 2306.09345). NumPy only, so
that ranking and index need no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attrib_core.common.errors import InputError
from attrib_core.features.heads import head_files
from attrib_core.features.heads.head_files import HEAD_TENSORS, metadata
from attrib_core.features.heads.head_types import Channel, Head, Linear, Mlp, row_norms

__all__ = [
    "HEAD_TENSORS",
    "Channel",
    "Head",
    "Heads",
    "Linear",
    "Mlp",
    "apply",
    "check_starts",
    "load",
    "mapper_name",
    "metadata",
    "save",
]

BLOCK_ROWS, NORMALISED_ROWS = 1024, 64
"""Rows mapped at once, and only normalised at once, in the cache; bounds the float64 copy and changes nothing else."""


@dataclass(frozen=True, eq=False)
class Heads:
    """A mapper: the head for pool rows and exemplars, and the head for queries; None: not mapped.

    A shared head is both of them.
    """

    real_head: Head | None
    synth_head: Head | None

    def real(self, embeddings: np.ndarray, *, ids: Sequence[str] | None = None) -> np.ndarray:
        """Map embeddings of pool rows or exemplars, (rows, dim), to (rows, dim') float32 of unit length.

        Raises InputError for a row that is not finite, and for one that is zero or is mapped to zero; `ids` name the
        rows in its message.
        """
        return apply(embeddings, self.real_head, ids=ids)

    def synth(self, embeddings: np.ndarray, *, ids: Sequence[str] | None = None) -> np.ndarray:
        """Map embeddings of synthesized images like `real`."""
        return apply(embeddings, self.synth_head, ids=ids)


def mapper_name(head: str, *, shared: bool, kind: str) -> str:
    """Return the name of a mapper in a run, such as "linear-object" or "channel-shared-both"."""
    return f"{head}-shared-{kind}" if shared else f"{head}-{kind}"


def check_starts(head: str, starts: Collection[str]) -> None:
    """Raise InputError if training of such a head cannot begin at one of `starts`."""
    if head == "channel" and set(starts) != {"identity"}:
        raise InputError(
            f"mapper.starts: {', '.join(starts)}, but a channel head scales features one by one and cannot"
            " whiten them; expected identity alone"
        )


def apply(embeddings: np.ndarray, head: Head | None, *, ids: Sequence[str] | None = None) -> np.ndarray:
    """Map (rows, dim) to (rows, dim') float32 and normalise. Errors as in `Heads.real`."""
    if embeddings.ndim != 2:
        raise InputError(f"embeddings of shape {embeddings.shape}; expected (rows, dim)")
    rows, dim = embeddings.shape
    dim_out, dim_in = (dim, dim) if head is None else head.shape
    if dim_in != dim:
        raise InputError(f"embeddings of {dim} dimensions for a head that takes {dim_in}")
    mapped = np.empty((rows, dim_out), dtype=np.float32)
    step = NORMALISED_ROWS if head is None else BLOCK_ROWS
    for start in range(0, rows, step):
        block = embeddings[start : start + step].astype(np.float64)
        block = block if head is None else head(block, _checked_norms(block, start, ids))
        mapped[start : start + step] = block / _checked_norms(block, start, ids)[:, None]
    return mapped


def _checked_norms(block: np.ndarray, start: int, ids: Sequence[str] | None) -> np.ndarray:
    norms = row_norms(block)
    bad = ~(np.isfinite(norms) & (norms > 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        name = f"row {start + row}" if ids is None else repr(ids[start + row])
        problem = "is zero" if norms[row] == 0 else "is not finite"
        raise InputError(f"embedding of {name} {problem}; expected finite numbers that are not all zero")
    return norms


def load(path: Path | None) -> Heads:
    """Load a mapper; None: no heads, embeddings are only normalised.

    Raises InputError for a missing or damaged file, missing tensors, and shapes that do not fit each other.
    """
    return Heads(None, None) if path is None else Heads(*head_files.read(path))


def save(path: Path, heads: Heads, notes: head_files.Notes) -> None:
    """Write both heads atomically; equal heads and notes give equal bytes."""
    if heads.real_head is None or heads.synth_head is None:
        raise ValueError("there are no heads to save")
    head_files.write(path, heads.real_head, heads.synth_head, notes)
