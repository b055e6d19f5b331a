"""Read AbC mapper checkpoints: two heads, for real and for synthesized images.

A checkpoint is a dict of two state dicts, `real_mapper` and `synth_mapper`, of one of three kinds:

    linear   weight (out, dim), bias (out)
    channel  weights (1, dim): one factor per dimension
    mlp      the keys of a torch Sequential: 0.weight, optionally 0.bias, then batch norm, ReLU and
             dropout, the next linear layer, ..., and last a batch norm without weight and bias

Heads compute in float64 and in evaluation mode: batch norm with its running statistics, no dropout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attrib_core.common.errors import InputError, cut, printable, shown
from attrib_core.storage import text_files, torch_files
from attrib_core.storage.torch_files import describe

EPSILON = 1e-5
"""Batch norm adds this to the variance: torch's default, which the checkpoints do not store."""
_WEIGHT = re.compile(r"(0|[1-9][0-9]{0,5})\.weight")
NORM = ("running_mean", "running_var", "weight", "bias", "num_batches_tracked")


@dataclass(frozen=True, eq=False)
class Layer:
    """The layer W x + b, then ReLU if `rectified`; weight (out, dim), or (dim) if diagonal; float64."""

    weight: np.ndarray
    bias: np.ndarray
    rectified: bool = False

    @property
    def dim(self) -> int:
        return int(self.weight.shape[-1])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        product: np.ndarray = x * self.weight if self.weight.ndim == 1 else x @ self.weight.T
        product += self.bias
        return np.maximum(product, 0.0, out=product) if self.rectified else product


@dataclass(frozen=True, eq=False)
class Head:
    """A sequence of layers; without layers, the identity."""

    layers: tuple[Layer, ...] = ()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Map (rows, dim) to (rows, out) float64, not normalised."""
        mapped = x.astype(np.float64)
        for layer in self.layers:
            mapped = layer(mapped)
        return mapped


@dataclass(frozen=True, eq=False)
class Mapper:
    """The two heads of a checkpoint; `where` names it in messages."""

    where: str
    real: Head
    synth: Head

    def check_dim(self, dim: int, features: str) -> None:
        """Check that the heads take vectors of the dimension of `features`. Raises InputError."""
        for side, head in (("real_mapper", self.real), ("synth_mapper", self.synth)):
            if head.layers and head.layers[0].dim != dim:
                raise InputError(
                    f"{self.where}: {side} takes {head.layers[0].dim} dimensions, but {features} has {dim};"
                    " expected the mapper of this encoder"
                )


UNTUNED = Mapper("untuned", Head(), Head())


def read_mapper(path: Path | None) -> Mapper:
    """Read a checkpoint; None gives `UNTUNED`. Raises InputError for what is no mapper of a known kind."""
    if path is None:
        return UNTUNED
    text_files.check_path(Path(path))
    content = torch_files.read(path, tensors="mapped")
    if not isinstance(content, dict) or not {"real_mapper", "synth_mapper"} <= set(content):
        raise InputError(f"{path}: is {describe(content)}, expected a dict with real_mapper and synth_mapper")
    real, synth = (_head(f"{path}: {side}", content[side]) for side in ("real_mapper", "synth_mapper"))
    sizes = [(head.layers[0].dim, head.layers[-1].weight.shape[0]) for head in (real, synth)]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"{path}: heads from {sizes[0][0]} to {sizes[0][1]} and {sizes[1][0]} to {sizes[1][1]} dimensions,"
            " expected the same"
        )
    return Mapper(str(path), real, synth)


def _head(where: str, state: Any) -> Head:
    if not isinstance(state, Mapping) or not state:
        raise InputError(f"{where} is {describe(state)}, expected a state dict")
    tensors = {
        str(name): _array(f"{where}.{cut(printable(str(name)))}", value) for name, value in state.items()
    }
    if set(tensors) == {"weight", "bias"}:
        weight, bias = tensors["weight"], tensors["bias"]
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise InputError(
                f"{where} has weight {weight.shape} and bias {bias.shape}, expected (out, in) and (out,)"
            )
        return Head((Layer(weight, bias),))
    if set(tensors) == {"weights"}:
        factors = tensors["weights"]
        if factors.ndim not in (1, 2) or factors.size != factors.shape[-1]:
            raise InputError(
                f"{where}.weights is {factors.shape}, expected (1, dim): one factor per dimension"
            )
        factors = factors.reshape(-1)
        return Head((Layer(factors, np.zeros(len(factors))),))
    if "0.weight" in tensors:
        return _mlp(where, tensors)
    raise InputError(
        f"{where} has {shown(sorted(tensors), 200)}, expected those of a linear (weight, bias), channel (weights) or"
        " MLP mapper (0.weight, 1.weight, ...)"
    )


def _mlp(where: str, tensors: Mapping[str, np.ndarray]) -> Head:
    """Return the head of an MLP, each linear layer fused with the batch norm that follows it."""
    layers: list[Layer] = []
    known: set[str] = set()
    numbers = sorted(
        int(found[1])
        for name, value in tensors.items()
        if value.ndim == 2 and (found := _WEIGHT.fullmatch(name))
    )
    for number in numbers:
        last = number == numbers[-1]
        weight = tensors[f"{number}.weight"]
        bias = tensors.get(f"{number}.bias", np.zeros(len(weight)))
        if bias.shape != weight.shape[:1]:
            raise InputError(
                f"{where}.{number}.bias is {bias.shape}, but {where}.{number}.weight is {weight.shape}"
            )
        known |= {f"{number}.weight", f"{number}.bias"}
        norm = number + 1
        if f"{norm}.running_mean" in tensors:
            known |= {f"{norm}.{name}" for name in NORM}
            factor, shift = _norm(where, norm, tensors, len(weight))
            bias, weight = bias * factor + shift, weight * factor[:, None]
        if layers and layers[-1].weight.shape[0] != weight.shape[1]:
            raise InputError(
                f"{where}.{number}.weight is {weight.shape}, expected {layers[-1].weight.shape[0]} inputs"
            )
        layers.append(Layer(weight, bias, rectified=not last))
    if set(tensors) - known:
        raise InputError(
            f"{where} has {shown(sorted(set(tensors) - known), 200)}, which belong neither to a linear layer nor to the"
            " batch norm after one; expected only those"
        )
    return Head(tuple(layers))


def _norm(
    where: str, number: int, tensors: Mapping[str, np.ndarray], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch norm in evaluation mode as x * factor + shift, both (size,)."""
    found = {name: tensors.get(f"{number}.{name}") for name in NORM[:4]}
    mean, variance = found["running_mean"], found["running_var"]
    if mean is None or variance is None:
        raise InputError(f"{where} lacks {number}.running_var, expected the statistics of a batch norm")
    for name, values in found.items():
        if values is not None and values.shape != (size,):
            raise InputError(
                f"{where}.{number}.{name} is of a batch norm of {values.size}, but the layer before it has"
                f" {size} outputs"
            )
    if variance.min() < 0:
        raise InputError(
            f"{where}.{number}.running_var has {variance.min():g}, expected variances of at least 0"
        )
    gain, offset = found["weight"], found["bias"]
    factor = (np.ones(size) if gain is None else gain) / np.sqrt(variance + EPSILON)
    return factor, (np.zeros(size) if offset is None else offset) - mean * factor


def _array(where: str, value: Any) -> np.ndarray:
    found = torch_files.array(value)
    if found is None:
        raise InputError(f"{where} is {describe(value)}, expected a tensor of real numbers")
    found = found.astype(np.float64, copy=False)
    if not np.isfinite(found).all():
        raise InputError(f"{where} has numbers that are not finite")
    return found
