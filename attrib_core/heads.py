"""Mapped embeddings: two linear heads, one for real pictures, one for synthesized ones.

head(x) = (W x + b) / ||W x + b||, with W (dim', dim) and b (dim'). Without a head
("untuned") an embedding is only brought to unit length. The form, and the names of
the tensors, are those of the published benchmark (arXiv 2306.09345). NumPy only, so
that ranking and index need no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attrib_core import whole
from attrib_core.errors import InputError

ROWS = 1024
"""Rows mapped at once; bounds the memory of the float64 copy and changes nothing else."""
GRID = 2.0**26
"""Steps to the unit in which vectors enter the matrix product; see `_linear`."""
TENSORS = ("real_mapper.weight", "real_mapper.bias", "synth_mapper.weight", "synth_mapper.bias")
_METADATA = "attrib_core"


@dataclass(frozen=True, eq=False)
class Linear:
    """One head: weight (dim', dim) and bias (dim'), float32."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Heads:
    """The head for pool and exemplars and the head for queries; None where nothing is mapped."""

    real_head: Linear | None
    synth_head: Linear | None

    def real(self, embeddings: np.ndarray, *, ids: Sequence[str] | None = None) -> np.ndarray:
        """Embeddings of pool rows or exemplars, (rows, dim), as (rows, dim') float32 of unit length.

        `ids` name the rows in the message of the InputError that is raised for a row that is
        not finite, or that has no direction because it, or what it is mapped to, is zero.
        """
        return apply(embeddings, self.real_head, ids=ids)

    def synth(self, embeddings: np.ndarray, *, ids: Sequence[str] | None = None) -> np.ndarray:
        """The same for embeddings of synthesized pictures."""
        return apply(embeddings, self.synth_head, ids=ids)


def apply(embeddings: np.ndarray, head: Linear | None, *, ids: Sequence[str] | None = None) -> np.ndarray:
    """Map and bring to unit length: (rows, dim) to (rows, dim') float32. Errors as in `Heads.real`."""
    if embeddings.ndim != 2:
        raise InputError(f"embeddings of shape {embeddings.shape}; expected (rows, dim)")
    rows, dim = embeddings.shape
    if head is not None and head.weight.shape[1] != dim:
        raise InputError(f"embeddings of {dim} dimensions for a head that takes {head.weight.shape[1]}")
    mapped = np.empty((rows, dim if head is None else head.weight.shape[0]), dtype=np.float32)
    for start in range(0, rows, ROWS):
        block = embeddings[start : start + ROWS].astype(np.float64)
        block = block if head is None else _linear(block, head, start, ids)
        mapped[start : start + ROWS] = _unit(block, start, ids)
    return mapped


def _linear(block: np.ndarray, head: Linear, start: int, ids: Sequence[str] | None) -> np.ndarray:
    """W x + b, (rows, dim') float64, in bits that depend on x, W and b alone.

    A floating-point matrix product adds in an order that changes with its shape, its threads and
    the position of a row. Here the order cannot matter: x and the rows of W, scaled to a length
    of at most 1, are rounded to multiples of 2**-26. Products are then multiples of 2**-52 and
    partial sums are at most 1 (Cauchy-Schwarz), so float64 holds every one of them exactly. The
    rounding moves a vector of 1,000 dimensions by about 1e-7 of its length, as float32 does.
    """
    lengths = _lengths(block, start, ids)
    points = np.rint(block / lengths[:, None] * GRID)
    longest = _row_lengths(head.weight).max() or 1.0
    grid = np.rint(head.weight / longest * GRID)
    product: np.ndarray = (points @ grid.T) * (lengths[:, None] * (longest / GRID**2)) + head.bias
    return product


def _unit(block: np.ndarray, start: int, ids: Sequence[str] | None) -> np.ndarray:
    unit: np.ndarray = (block / _lengths(block, start, ids)[:, None]).astype(np.float32)
    return unit


def _lengths(block: np.ndarray, start: int, ids: Sequence[str] | None) -> np.ndarray:
    lengths = _row_lengths(block)
    bad = ~(np.isfinite(lengths) & (lengths > 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        name = f"row {start + row}" if ids is None else repr(ids[start + row])
        found = "is zero" if lengths[row] == 0 else "is not finite"
        raise InputError(f"embedding of {name} {found}; expected finite numbers that are not all zero")
    return lengths


def _row_lengths(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64, copy=False)
    lengths: np.ndarray = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    return lengths


def load(path: Path | None) -> Heads:
    """The heads in a file; None: no head, embeddings are only brought to unit length.

    Raises InputError for a missing or damaged file, missing tensors, and shapes that do not
    fit each other.
    """
    if path is None:
        return Heads(None, None)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such mapper; expected a safetensors file") from None
    except SafetensorError as error:
        raise InputError(f"{path}: not a readable mapper ({error}); expected a safetensors file") from None
    if set(tensors) != set(TENSORS):
        raise InputError(f"{path}: has tensors {sorted(tensors)}, expected {sorted(TENSORS)}")
    real, synth = (_checked(tensors, side, path) for side in ("real_mapper", "synth_mapper"))
    if real.weight.shape != synth.weight.shape:
        raise InputError(
            f"{path}: the heads have shapes {real.weight.shape} and {synth.weight.shape}, expected the same"
        )
    return Heads(real, synth)


def _checked(tensors: Mapping[str, np.ndarray], side: str, path: Path) -> Linear:
    weight, bias = tensors[f"{side}.weight"], tensors[f"{side}.bias"]
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise InputError(
            f"{path}: {side} has weight {weight.shape} and bias {bias.shape}, expected (out, in) and (out,)"
        )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise InputError(f"{path}: {side} has numbers that are not finite")
    return Linear(weight.astype(np.float32), bias.astype(np.float32))


def metadata(path: Path) -> dict[str, Any]:
    """What the writer of a file of heads noted in it: encoder, settings, the choice."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return dict(json.loads((file.metadata() or {}).get(_METADATA, "{}")))


def save(path: Path, heads: Heads, notes: Mapping[str, Any]) -> None:
    """Write both heads, whole or not at all; equal heads and notes give equal bytes.

    The notes are one JSON string in the file's metadata (several entries would be written in
    an order that changes from run to run).
    """
    from safetensors.numpy import save as to_bytes

    if heads.real_head is None or heads.synth_head is None:
        raise ValueError("there are no heads to save")
    values = (heads.real_head.weight, heads.real_head.bias, heads.synth_head.weight, heads.synth_head.bias)
    tensors = {
        name: np.ascontiguousarray(value, dtype=np.float32)
        for name, value in zip(TENSORS, values, strict=True)
    }
    data = to_bytes(tensors, metadata={_METADATA: json.dumps(notes, sort_keys=True)})
    whole.write_bytes(path, data)
