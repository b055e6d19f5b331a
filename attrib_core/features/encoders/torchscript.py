"""Networks in TorchScript files supplied by the user, such as SSCD and CSD.

A TorchScript file is a program. It runs in torch's own interpreter, without Python, but torch does not promise that
opening a hostile file is safe. A file is therefore opened only if it has the SHA-256 that the config states, so that
the program that runs is the one somebody has looked at.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from attrib_core.common import hashing
from attrib_core.common.errors import InputError, reason
from attrib_core.features.networks import weight_paths
from attrib_core.features.networks.network_encoder import (
    BatchOption,
    DeviceOption,
    NetworkEncoder,
    adapt,
    image_feature_dim,
)
from attrib_core.features.networks.preprocessing import (
    Channels,
    FitOption,
    InterpolationOption,
    Preprocessing,
    ResizeOption,
)
from attrib_core.storage.file_kinds import recognise

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
    size: Annotated[int, Field(ge=16, le=1024, description="side of the network input, pixels")],
    resize: ResizeOption = None,
    interpolation: InterpolationOption = "bilinear",
    fit: FitOption = "crop",
    mean: Annotated[Channels, Field(description="mean of the pixel values in [0, 1]")] = IMAGENET_MEAN,
    std: Annotated[Channels, Field(description="their standard deviation")] = IMAGENET_STD,
    output: Annotated[
        int | str | None,
        Field(
            description="which output holds the features, where the network has several: its number, from 0, or its"
            " name; null: it has one"
        ),
    ] = None,
    batch: BatchOption = 32,
    device: DeviceOption = "auto",
) -> NetworkEncoder:
    """Load a TorchScript network.

    Raises InputError for a missing file, another checksum, a file that torch cannot open, an output that the network
    does not have, and a size that it refuses.
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
            warnings.simplefilter("ignore")  # torch warns that TorchScript is deprecated
            script = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"weights: {path} is no TorchScript file that torch opens: it looks like {recognise(path)}"
            f" ({reason(error)})"
        ) from None

    def run(script: Any, images: torch.Tensor) -> Any:
        try:
            outputs = script(images)
        except torch.jit.Error as error:  # raised by the program, with a traceback into its source
            last = (str(error).strip().splitlines() or ["no reason given"])[-1]
            shape = tuple(images.shape)
            raise InputError(f"weights: {path} fails on images of shape {shape}: {last}") from None
        return _select(outputs, output)

    network = adapt(script, run)
    prepare = Preprocessing(size, mean, std, resize, interpolation, fit)
    identity = {"family": "torchscript", "weights_sha256": checksum} | prepare.describe()
    if output is not None:
        identity["output"] = output
    return NetworkEncoder(
        network,
        prepare,
        dim=image_feature_dim(network, size),
        batch_size=batch,
        device=device,
        identity=identity,
    )


def files(*, weights: str, **_others: Any) -> list[Path]:
    """Return the TorchScript file; raise InputError if it is missing."""
    if weights.startswith(weight_paths.HUB):
        raise InputError(f"weights: {weights!r}; a TorchScript file is named by its path")
    return [weight_paths.file(weights, ())]


def _select(outputs: Any, output: int | str | None) -> Any:
    """Return one of the outputs; raise InputError, with the outputs there are, for another."""
    if output is None and not isinstance(outputs, tuple | list | dict):
        return outputs
    if isinstance(outputs, dict):
        if output in outputs:
            return outputs[output]
        available = f"outputs named {', '.join(map(repr, outputs))}"
    elif isinstance(outputs, tuple | list):
        if isinstance(output, int) and 0 <= output < len(outputs):
            return outputs[output]
        available = f"{len(outputs)} outputs, numbered from 0"
    else:
        available = "one output; leave output null"
    raise InputError(f"output: {output!r}, but the network gives {available}")
