"""Load a network of the timm library, and say which stages are taken."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from attrib_core.common.errors import InputError, close_matches
from attrib_core.features.encoders.timm import weights as weight_files
from attrib_core.features.encoders.timm.stages import tapped
from attrib_core.features.encoders.timm.weights import dim, files
from attrib_core.features.networks import state_dicts
from attrib_core.features.networks.network_encoder import (
    BatchOption,
    DeviceOption,
    NetworkEncoder,
    PrecisionOption,
    dimension,
)
from attrib_core.features.networks.preprocessing import (
    Channels,
    FitOption,
    InterpolationOption,
    Preparation,
    ResizeOption,
)
from attrib_core.runtime import devices

__all__ = ["PACKAGES", "checked", "dim", "files", "load"]

PACKAGES = ("torch", "timm")
"""Distributions whose version may change the features."""


def load(
    *,
    architecture: Annotated[
        str, Field(description="name of a network in timm, such as vit_base_patch16_224")
    ],
    weights: Annotated[
        str,
        Field(
            description="path of a .safetensors or .pth file, hub:owner/model@revision in the hub's cache, or the"
            " name of weights that a package carries"
        ),
    ],
    size: Annotated[
        int, Field(ge=16, le=1024, description="side of the image that the network sees, pixels")
    ] = 128,
    resize: ResizeOption = None,
    interpolation: InterpolationOption = "bicubic",
    fit: FitOption = "crop",
    batch: BatchOption = 32,
    mean: Annotated[
        Channels | None, Field(description="mean of the pixel values in [0, 1]; null: as trained")
    ] = None,
    std: Annotated[Channels | None, Field(description="their standard deviation; null: as trained")] = None,
    stages: Annotated[
        list[Annotated[int, Field(ge=0)]] | None,
        Field(
            min_length=1,
            description="stages of the network whose activations are the features, rising, as timm counts"
            " them, 0 the shallowest; null: what comes before the classifier",
        ),
    ] = None,
    cells: Annotated[
        int, Field(ge=1, le=64, description="a stage's activations are averaged over cells x cells areas")
    ] = 1,
    deviation: Annotated[
        bool, Field(description="also the standard deviation of each channel of a stage over the image")
    ] = False,
    prefix: Annotated[
        str,
        Field(
            description="what the names of the file's tensors begin with, as in module.base_encoder.; those without"
            " it are left out"
        ),
    ] = "",
    precision: PrecisionOption = "float32",
    device: DeviceOption = "auto",
) -> NetworkEncoder:
    """A timm network with weights from a file or a preset.

    `mean` and `std` default to those of the preset, else to those that timm states for the
    architecture. Raises InputError for an unknown architecture or preset, a missing or
    damaged file, tensors that do not fit the network, a size that the network refuses, stages
    that it lacks or that timm cannot tap, and more cells than a stage has places.
    """
    import timm

    checked(stages=stages, cells=cells, deviation=deviation)
    if not timm.is_model(architecture):
        near = close_matches(architecture, timm.list_models())
        raise InputError(f"architecture: {architecture!r} is not in timm, {near}")
    preset = weight_files.presets().get(weights)
    path = weight_files.files(weights=weights)[0]
    if preset and preset["architecture"] != architecture:
        fitting = preset["architecture"]
        raise InputError(f"architecture: {architecture!r} does not fit weights {weights!r}; use {fitting!r}")
    checksum = weight_files.checksum(path, weights, preset)
    network = timm.create_model(architecture, pretrained=False)
    state = state_dicts.read(path, prefix)
    weight_files.fill(network, state, path, by_order=bool(preset and preset["by_order"]))
    stated = preset or network.pretrained_cfg
    mean, std = mean or tuple(stated["mean"]), std or tuple(stated["std"])
    prepare = Preparation(size, mean, std, resize, interpolation, fit)
    made_for = network.pretrained_cfg["input_size"][-1]
    dim = dimension(network, size, made_for=made_for)
    tap: dict[str, Any] = {}
    if stages is not None:
        tap = {"stages": stages, "cells": cells, "deviation": deviation}
        network = tapped(network, architecture, size, stages=stages, cells=cells, deviation=deviation)
        dim = dimension(network, size, made_for=made_for)
    encoder = NetworkEncoder(
        network, prepare, dim=dim, batch=batch, device=devices.choose(device), precision=precision
    )
    encoder.identity = (
        {"family": "timm", "architecture": architecture, "weights_sha256": checksum}
        | prepare.described()
        | {"dim": encoder.dim}
        | tap
        | ({} if precision == "float32" else {"precision": precision})
    )
    return encoder


def checked(*, stages: list[int] | None, cells: int, deviation: bool, **others: Any) -> dict[str, Any]:
    """The options as they are; InputError where those of the stages do not agree."""
    if stages is None and cells != 1:
        raise InputError(f"cells: {cells}, but stages is null; name stages, or leave cells at 1")
    if stages is None and deviation:
        raise InputError("deviation: true, but stages is null; name stages, or leave deviation at false")
    if stages is not None and stages != sorted(set(stages)):
        raise InputError(f"stages: {stages}; they rise, each once: {sorted(set(stages))}")
    return {"stages": stages, "cells": cells, "deviation": deviation} | others
