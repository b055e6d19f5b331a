"""Networks in TorchScript files of the user's: SSCD, CSD and whatever else comes as one file.

Such a file is a program: `torch.jit.load` opens it, and what it computes is what its author wrote. It
runs in torch's own interpreter, which has no Python in it, but it is no mere table of numbers, and torch
does not promise that opening a hostile one is safe. So a file is opened only where the config states its
SHA-256: what is run is then what somebody has looked at, and not what a path holds today.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.features.networks import weight_paths
from attrib_core.features.networks.network_encoder import BatchOption, DeviceOption, NetworkEncoder, dimension
from attrib_core.features.networks.preprocessing import (
    Channels,
    FitOption,
    InterpolationOption,
    Preparation,
    ResizeOption,
)
from attrib_core.runtime import devices

PACKAGES = ("torch",)
"""Distributions whose version may change the features."""
IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


def load(
    *,
    weights: Annotated[
        str, Field(description="path of a TorchScript file (.pt, .ts); it is run as a program")
    ],
    sha256: Annotated[
        str,
        Field(
            pattern=r"^[0-9a-f]{64}$",
            description="SHA-256 of the file, 64 hexadecimal digits, as `sha256sum` prints it",
        ),
    ],
    size: Annotated[
        int, Field(ge=16, le=1024, description="side of the image that the network sees, pixels")
    ],
    resize: ResizeOption = None,
    interpolation: InterpolationOption = "bilinear",
    fit: FitOption = "crop",
    mean: Annotated[Channels, Field(description="mean of the pixel values in [0, 1]")] = IMAGENET_MEAN,
    std: Annotated[Channels, Field(description="their standard deviation")] = IMAGENET_STD,
    output: Annotated[
        int | str | None,
        Field(
            description="which output holds the features, where the network gives several: its number, from 0, or"
            " its name; null: it gives one"
        ),
    ] = None,
    batch: BatchOption = 32,
    device: DeviceOption = "auto",
) -> NetworkEncoder:
    """What a TorchScript network makes of images.

    Raises InputError for a missing file, one with another checksum, one that torch cannot open, an
    output that the network does not have, and a size that it refuses.
    """
    import torch

    path = files(weights=weights)[0]
    checksum = hashing.file_digest(path)
    if checksum != sha256:
        raise InputError(
            f"sha256: {path} has {checksum}, the config states {sha256}; the file is a program and is not run"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that TorchScript grows old
            script = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise InputError(f"weights: {path} is no TorchScript file that torch opens: {reason}") from None

    class Output(torch.nn.Module):
        """The network with one of its outputs."""

        def __init__(self) -> None:
            super().__init__()
            self.script = script

        def forward(self, images: torch.Tensor) -> Any:
            try:
                found = self.script(images)
            except torch.jit.Error as error:  # what the program raises, with a trace of its own lines
                reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
                shape = tuple(images.shape)
                raise InputError(f"weights: {path} fails on images of shape {shape}: {reason}") from None
            return _chosen(found, output)

    network = Output()
    prepare = Preparation(size, mean, std, resize, interpolation, fit)
    encoder = NetworkEncoder(
        network, prepare, dim=dimension(network, size), batch=batch, device=devices.choose(device)
    )
    encoder.identity = (
        {"family": "torchscript", "weights_sha256": checksum}
        | prepare.described()
        | {"dim": encoder.dim}
        | ({} if output is None else {"output": output})
    )
    return encoder


def files(*, weights: str, **_others: Any) -> list[Path]:
    """The TorchScript file; InputError where it is missing."""
    if weights.startswith(weight_paths.HUB):
        raise InputError(f"weights: {weights!r}; a TorchScript file is named by its path")
    return [weight_paths.file(weights, ())]


def _chosen(found: Any, output: int | str | None) -> Any:
    """One output of several; InputError, with what there is, where it is not there."""
    if output is None and not isinstance(found, tuple | list | dict):
        return found
    if isinstance(found, dict):
        if output in found:
            return found[output]
        there = f"outputs named {', '.join(map(repr, found))}"
    elif isinstance(found, tuple | list):
        if isinstance(output, int) and 0 <= output < len(found):
            return found[output]
        there = f"{len(found)} outputs, numbered from 0"
    else:
        there = "one output; leave output null"
    raise InputError(f"output: {output!r}, but the network gives {there}")
