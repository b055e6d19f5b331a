"""Image towers of open_clip: CLIP as OpenAI, LAION, Apple and others trained it, SigLIP, CoCa and more.

Features are the image embeddings of open_clip's `encode_image`: projected into the space shared with text, not
normalised. Only the tensors of the image tower are read from the weights file.

The activation function is part of the architecture: OpenAI's weights need the names that end in `-quickgelu`; with the
plain name they load without an error and give other features.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from attrib_core.common import hashing
from attrib_core.common.errors import InputError, close_matches
from attrib_core.features.networks import state_dicts, weight_paths
from attrib_core.features.networks.network_encoder import (
    BatchOption,
    DeviceOption,
    NetworkEncoder,
    PrecisionOption,
    adapt,
    image_feature_dim,
)
from attrib_core.features.networks.preprocessing import (
    Channels,
    Fit,
    Interpolation,
    Preprocessing,
    ResizeOption,
)

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "open_clip_torch")
"""Distributions whose version may change the features."""
IMAGE_TOWER = "visual."


def load(
    *,
    architecture: Annotated[
        str, Field(description="name of a model in open_clip, such as ViT-B-32-quickgelu")
    ],
    weights: Annotated[
        str,
        Field(
            description="path of a .safetensors or .pt file that holds a state dict, or hub:owner/model@revision in"
            " the hub's cache"
        ),
    ],
    size: Annotated[
        int | None,
        Field(ge=16, le=1024, description="side of the network input; null: the architecture's"),
    ] = None,
    resize: ResizeOption = None,
    interpolation: Annotated[
        Interpolation | None, Field(description="interpolation of the resize; null: as open_clip does it")
    ] = None,
    fit: Annotated[
        Fit | None,
        Field(
            description="crop: the central square; squash: the whole image, resized to a square; null: as open_clip"
            " does it"
        ),
    ] = None,
    mean: Annotated[
        Channels | None,
        Field(
            description="mean of the pixel values in [0, 1]; null: as open_clip states for the architecture"
        ),
    ] = None,
    std: Annotated[Channels | None, Field(description="their standard deviation; null: the same")] = None,
    prefix: Annotated[
        str,
        Field(description="what the names of the file's tensors begin with before `visual.`, as in module."),
    ] = "",
    batch: BatchOption = 32,
    precision: PrecisionOption = "float32",
    device: DeviceOption = "auto",
) -> NetworkEncoder:
    """Load the image tower of an open_clip model.

    Raises InputError for an unknown architecture, a missing or damaged file, tensors that do not fit the tower, and a
    size that it refuses.
    """
    import open_clip

    known = open_clip.list_models()
    if architecture not in known:
        raise InputError(
            f"architecture: {architecture!r} is not in open_clip, {close_matches(architecture, known)}"
        )
    path = files(weights=weights)[0]
    state = state_dicts.read(path, f"{prefix}{IMAGE_TOWER}")
    model = open_clip.create_model(architecture, load_weights=False, force_image_size=size)
    defaults = open_clip.get_model_preprocess_cfg(model)
    tower = model.visual
    del model
    state_dicts.load(tower, state, path)

    def embed(tower: Any, images: torch.Tensor) -> torch.Tensor:
        """Return the image embedding alone: some towers return patch tokens too."""
        output = tower(images)
        embedding: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return embedding

    sides = defaults["size"] if isinstance(defaults["size"], tuple | list) else (defaults["size"],)
    if len(set(sides)) > 1:
        raise InputError(f"architecture: {architecture!r} takes images of {sides}, expected square ones")
    fit_of_mode: dict[str, Fit] = {"shortest": "crop", "squash": "squash"}
    if fit is None and defaults["resize_mode"] not in fit_of_mode:
        raise InputError(f"fit: open_clip states {defaults['resize_mode']!r} here; choose 'crop' or 'squash'")
    prepare = Preprocessing(
        size=int(sides[0]),
        mean=mean or tuple(defaults["mean"]),
        std=std or tuple(defaults["std"]),
        resize=resize,
        interpolation=interpolation or defaults["interpolation"],
        fit=fit or fit_of_mode[defaults["resize_mode"]],
    )
    network = adapt(tower, embed)
    identity = {
        "family": "open_clip",
        "architecture": architecture,
        "weights_sha256": hashing.file_digest(path),
    }
    return NetworkEncoder(
        network,
        prepare,
        dim=image_feature_dim(network, prepare.size),
        batch_size=batch,
        device=device,
        precision=precision,
        identity=identity | prepare.describe(),
    )


def files(*, weights: str, **_others: Any) -> list[Path]:
    """Return the weights file; raise InputError if it is missing."""
    return [weight_paths.file(weights, weight_paths.OPEN_CLIP_FILES)]
