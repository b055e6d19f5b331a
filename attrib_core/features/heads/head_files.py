"""Heads as safetensors files. The tensors of each side, by form:

    linear   weight (out, dim), bias (out)
    channel  weights (1, dim)
    mlp      inner.weight (hidden, dim), inner.bias, outer.weight (dim, hidden), outer.bias, and
             skip.weight (dim, dim) where the straight way is not the identity

`real_mapper.` or `synth_mapper.` stands before the names. Linear and channel are named as published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attrib_core.common.errors import InputError
from attrib_core.features.heads.forms import Channel, Head, Linear, Mlp
from attrib_core.storage import atomic

SIDES = ("real_mapper", "synth_mapper")
MLP = ("inner.weight", "inner.bias", "outer.weight", "outer.bias")
FORMS: dict[str, tuple[str, ...]] = {"linear": ("weight", "bias"), "channel": ("weights",), "mlp": MLP}
"""Tensors of one side, by form."""
SKIP = "skip.weight"
Notes = Mapping[str, Any]
_METADATA = "attrib_core"


def tensors(head: Head) -> dict[str, np.ndarray]:
    """One side of a file, by the names above."""
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
    """The heads for real and for synthesized images. Errors as in `heads.load`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such mapper; expected a safetensors file") from None
    except SafetensorError as error:
        raise InputError(f"{path}: not a readable mapper ({error}); expected a safetensors file") from None
    real, synth = (_side(found, side, path) for side in SIDES)
    if sum(len(tensors(head)) for head in (real, synth)) != len(found) or type(real) is not type(synth):
        raise InputError(f"{path}: has tensors {sorted(found)}, expected those of two heads of one form")
    if real.shape != synth.shape:
        raise InputError(f"{path}: the heads have shapes {real.shape} and {synth.shape}, expected the same")
    return real, synth


def _side(found: Mapping[str, np.ndarray], side: str, path: Path) -> Head:
    prefix = f"{side}."
    own = {
        name.removeprefix(prefix): value.astype(np.float32)
        for name, value in found.items()
        if name.startswith(prefix)
    }
    if not all(np.isfinite(value).all() for value in own.values()):
        raise InputError(f"{path}: {side} has numbers that are not finite")
    names = set(own) - {SKIP}
    where = f"{path}: {side}"
    if names == set(FORMS["linear"]):
        return _linear(where, own["weight"], own["bias"])
    if names == set(FORMS["channel"]):
        factors = own["weights"]
        if factors.ndim != 2 or factors.shape[0] != 1:
            raise InputError(f"{where} has weights {factors.shape}, expected (1, dim)")
        return Channel(factors[0])
    if names == set(FORMS["mlp"]):
        inner, outer = (
            _linear(f"{where} {part}", own[f"{part}.weight"], own[f"{part}.bias"])
            for part in ("inner", "outer")
        )
        made = Mlp(inner, outer, own.get(SKIP))
        square = (made.shape[0],) * 2
        fits = outer.shape[1] == inner.shape[0] and made.shape == square
        if not fits or (made.skip is not None and made.skip.shape != square):
            shapes = {name: value.shape for name, value in sorted(own.items())}
            raise InputError(
                f"{where} has shapes {shapes}, expected (hidden, dim), (dim, hidden), (dim, dim)"
            )
        return made
    raise InputError(
        f"{path}: has tensors {sorted(found)}, expected for {side} "
        + " or ".join(f"{', '.join(names)} ({form})" for form, names in FORMS.items())
    )


def _linear(where: str, weight: np.ndarray, bias: np.ndarray) -> Linear:
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise InputError(
            f"{where} has weight {weight.shape} and bias {bias.shape}, expected (out, in) and (out,)"
        )
    return Linear(weight, bias)


def metadata(path: Path) -> dict[str, Any]:
    """What the writer of a file of heads noted in it: encoder, settings, the choice."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return dict(json.loads((file.metadata() or {}).get(_METADATA, "{}")))


def write(path: Path, real: Head, synth: Head, notes: Notes) -> None:
    """Write both heads, whole or not at all; equal heads and notes give equal bytes.

    The notes are one JSON string in the file's metadata (several entries would be written in
    an order that changes from run to run).
    """
    from safetensors.numpy import save as to_bytes

    content = {
        f"{side}.{name}": np.ascontiguousarray(value, dtype=np.float32)
        for side, head in zip(SIDES, (real, synth), strict=True)
        for name, value in tensors(head).items()
    }
    data = to_bytes(content, metadata={_METADATA: json.dumps(notes, sort_keys=True)})
    atomic.write_bytes(path, data)
