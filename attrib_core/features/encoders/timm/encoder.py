"""Load a network of the timm library as an encoder."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from attrib_core.common.errors import InputError, close_matches
from attrib_core.features.encoders.timm import weights as weight_files
from attrib_core.features.encoders.timm.stages import stage_moments
from attrib_core.features.encoders.timm.weights import dim, files
from attrib_core.features.networks import state_dicts
from attrib_core.features.networks.network_encoder import (
    BatchOption,
    DeviceOption,
    NetworkEncoder,
    PrecisionOption,
    image_feature_dim,
)
from attrib_core.features.networks.preprocessing import (
    Channels,
    FitOption,
    InterpolationOption,
    Preprocessing,
    ResizeOption,
)

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
            " name of weights that a package contains"
        ),
    ],
    size: Annotated[int, Field(ge=16, le=1024, description="side of the network input, pixels")] = 128,
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
            description="stages of the network whose activations are the features, ascending, as timm numbers"
            " them, 0 the shallowest; null: the features before the classifier",
        ),
    ] = None,
    cells: Annotated[
        int,
        Field(ge=1, le=64, description="activations of a stage are averaged over a grid of cells x cells"),
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
    """Load a timm network with weights from a file or a preset.

    `mean` and `std` default to those of the preset, else to those that timm states for the architecture. Raises
    InputError for an unknown architecture or preset, a missing or damaged file, tensors that do not fit the network, a
    size that it refuses, stages that it lacks or that timm cannot return, and more cells than a stage has positions.
    """
    import timm

    checked(stages=stages, cells=cells, deviation=deviation)
    if not timm.is_model(architecture):
        near = close_matches(architecture, timm.list_models())
        raise InputError(f"architecture: {architecture!r} is not in timm, {near}")
    preset = weight_files.presets().get(weights)
    path = weight_files.files(weights=weights)[0]
    if preset and preset["architecture"] != architecture:
        expected = preset["architecture"]
        raise InputError(f"architecture: {architecture!r} does not fit weights {weights!r}; use {expected!r}")
    checksum = weight_files.checksum(path, weights, preset)
    network = timm.create_model(architecture, pretrained=False)
    state = state_dicts.read(path, prefix)
    weight_files.load(network, state, path, by_order=bool(preset and preset["by_order"]))
    defaults = preset or network.pretrained_cfg
    mean, std = mean or tuple(defaults["mean"]), std or tuple(defaults["std"])
    prepare = Preprocessing(size, mean, std, resize, interpolation, fit)
    trained_size = network.pretrained_cfg["input_size"][-1]
    dim = image_feature_dim(network, size, trained_size=trained_size)
    identity: dict[str, Any] = {"family": "timm", "architecture": architecture, "weights_sha256": checksum}
    identity |= prepare.describe()
    if stages is not None:
        identity |= {"stages": stages, "cells": cells, "deviation": deviation}
        network = stage_moments(network, architecture, size, stages=stages, cells=cells, deviation=deviation)
        dim = image_feature_dim(network, size, trained_size=trained_size)
    return NetworkEncoder(
        network,
        prepare,
        dim=dim,
        batch_size=batch,
        device=device,
        precision=precision,
        identity=identity,
    )


def checked(*, stages: list[int] | None, cells: int, deviation: bool, **others: Any) -> dict[str, Any]:
    """Return the options unchanged; raise InputError if those of the stages contradict each other."""
    if stages is None and cells != 1:
        raise InputError(f"cells: {cells}, but stages is null; name stages, or leave cells at 1")
    if stages is None and deviation:
        raise InputError("deviation: true, but stages is null; name stages, or leave deviation at false")
    if stages is not None and stages != sorted(set(stages)):
        raise InputError(f"stages: {stages}; expected ascending and each once: {sorted(set(stages))}")
    return {"stages": stages, "cells": cells, "deviation": deviation} | others
