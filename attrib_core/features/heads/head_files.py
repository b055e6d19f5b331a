"""Read and write heads as safetensors files. The tensors of each head, by type:

    linear   weight (out, dim), bias (out)
    channel  weights (1, dim)
    mlp      inner.weight (hidden, dim), inner.bias, outer.weight (dim, hidden), outer.bias, and
             skip.weight (dim, dim) where the skip connection is not the identity

Names have the prefix `real_mapper.` or `synth_mapper.`. Those of linear and channel heads are as published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attrib_core.common.errors import InputError
from attrib_core.features.heads.head_types import Channel, Head, Linear, Mlp
from attrib_core.storage import atomic

SIDES = ("real_mapper", "synth_mapper")
MLP = ("inner.weight", "inner.bias", "outer.weight", "outer.bias")
HEAD_TENSORS: dict[str, tuple[str, ...]] = {
    "linear": ("weight", "bias"),
    "channel": ("weights",),
    "mlp": MLP,
}
"""Tensors of one head, by type."""
SKIP = "skip.weight"
Notes = Mapping[str, Any]
_METADATA = "attrib_core"


def head_tensors(head: Head) -> dict[str, np.ndarray]:
    """Return the tensors of a head by the names above."""
    match head:
        case Linear():
            return {"weight": head.weight, "bias": head.bias}
        case Channel():
            return {"weights": head.factors[None, :]}
        case Mlp():
            skip = {} if head.skip is None else {SKIP: head.skip}
            values = (head.inner.weight, head.inner.bias, head.outer.weight, head.outer.bias)
            return dict(zip(MLP, values, strict=True)) | skip


def read(path: Path) -> tuple[Head, Head]:
    """Read the heads for real and for synthesized images. Errors as in `heads.load`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such mapper; expected a safetensors file") from None
    except SafetensorError as error:
        raise InputError(f"{path}: not a readable mapper ({error}); expected a safetensors file") from None
    real, synth = (_read_head(found, side, path) for side in SIDES)
    if sum(len(head_tensors(head)) for head in (real, synth)) != len(found) or type(real) is not type(synth):
        raise InputError(f"{path}: has tensors {sorted(found)}, expected those of two heads of one type")
    if real.shape != synth.shape:
        raise InputError(f"{path}: the heads have shapes {real.shape} and {synth.shape}, expected the same")
    return real, synth


def _read_head(found: Mapping[str, np.ndarray], side: str, path: Path) -> Head:
    prefix = f"{side}."
    own = {
        name.removeprefix(prefix): value.astype(np.float32)
        for name, value in found.items()
        if name.startswith(prefix)
    }
    if not all(np.isfinite(value).all() for value in own.values()):
        raise InputError(f"{path}: {side} has non-finite numbers")
    names = set(own) - {SKIP}
    where = f"{path}: {side}"
    if names == set(HEAD_TENSORS["linear"]):
        return _linear(where, own["weight"], own["bias"])
    if names == set(HEAD_TENSORS["channel"]):
        factors = own["weights"]
        if factors.ndim != 2 or factors.shape[0] != 1:
            raise InputError(f"{where} has weights {factors.shape}, expected (1, dim)")
        return Channel(factors[0])
    if names == set(HEAD_TENSORS["mlp"]):
        inner, outer = (
            _linear(f"{where} {part}", own[f"{part}.weight"], own[f"{part}.bias"])
            for part in ("inner", "outer")
        )
        head = Mlp(inner, outer, own.get(SKIP))
        square = (head.shape[0],) * 2
        fits = outer.shape[1] == inner.shape[0] and head.shape == square
        if not fits or (head.skip is not None and head.skip.shape != square):
            shapes = {name: value.shape for name, value in sorted(own.items())}
            raise InputError(
                f"{where} has shapes {shapes}, expected (hidden, dim), (dim, hidden), (dim, dim)"
            )
        return head
    raise InputError(
        f"{path}: has tensors {sorted(found)}, expected for {side} "
        + " or ".join(f"{', '.join(names)} ({kind})" for kind, names in HEAD_TENSORS.items())
    )


def _linear(where: str, weight: np.ndarray, bias: np.ndarray) -> Linear:
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise InputError(
            f"{where} has weight {weight.shape} and bias {bias.shape}, expected (out, in) and (out,)"
        )
    return Linear(weight, bias)


def metadata(path: Path) -> dict[str, Any]:
    """Read the notes that were saved with heads: encoder, settings, the selection."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return dict(json.loads((file.metadata() or {}).get(_METADATA, "{}")))


def write(path: Path, real: Head, synth: Head, notes: Notes) -> None:
    """Write both heads atomically; equal heads and notes give equal bytes.

    The notes are one JSON string in the file's metadata: several entries would be written in a random order.
    """
    from safetensors.numpy import save as to_bytes

    content = {
        f"{side}.{name}": np.ascontiguousarray(value, dtype=np.float32)
        for side, head in zip(SIDES, (real, synth), strict=True)
        for name, value in head_tensors(head).items()
    }
    data = to_bytes(content, metadata={_METADATA: json.dumps(notes, sort_keys=True)})
    atomic.write_bytes(path, data)
