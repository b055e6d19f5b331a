"""Image towers of open_clip: CLIP as OpenAI, LAION, Apple and others trained it, SigLIP, CoCa and more.

Features are those that open_clip's `encode_image` gives, projected into the space that text shares, not
scaled to unit length. Of the file of weights the tensors of the image tower are read; the text tower's
are left out.

The activation is part of the architecture: OpenAI's weights want the names that end in `-quickgelu`, and
with the plain name they load without a word and give other features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from attrib_core.common import hashing
from attrib_core.common.errors import InputError, close_matches
from attrib_core.features.networks import state_dicts, weight_paths
from attrib_core.features.networks.network_encoder import (
    BatchOption,
    DeviceOption,
    NetworkEncoder,
    PrecisionOption,
    dimension,
)
from attrib_core.features.networks.preprocessing import (
    Channels,
    Fit,
    Interpolation,
    Preparation,
    ResizeOption,
)
from attrib_core.runtime import devices

PACKAGES = ("torch", "open_clip_torch")
"""Distributions whose version may change the features."""
TOWER = "visual."


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
        Field(
            ge=16, le=1024, description="side of the image that the network sees; null: the architecture's"
        ),
    ] = None,
    resize: ResizeOption = None,
    interpolation: Annotated[
        Interpolation | None, Field(description="how pixels are resampled; null: as open_clip does it")
    ] = None,
    fit: Annotated[
        Fit | None,
        Field(
            description="crop: the middle square is seen; squash: the whole image, its sides made equal; null: as"
            " open_clip does it"
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
    """The image tower of an open_clip model.

    Raises InputError for an unknown architecture, a missing or damaged file, tensors that do not fit
    the tower, and a size that it refuses.
    """
    import open_clip
    import torch

    known = open_clip.list_models()
    if architecture not in known:
        raise InputError(
            f"architecture: {architecture!r} is not in open_clip, {close_matches(architecture, known)}"
        )
    path = files(weights=weights)[0]
    state = state_dicts.read(path, f"{prefix}{TOWER}")
    model = open_clip.create_model(architecture, load_weights=False, force_image_size=size)
    stated = open_clip.get_model_preprocess_cfg(model)
    tower = model.visual
    del model
    state_dicts.fill(tower, state, path)

    class Features(torch.nn.Module):
        """What `encode_image` makes of the tower's output: some give their patches beside."""

        def __init__(self) -> None:
            super().__init__()
            self.tower = tower

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found = self.tower(images)
            features: torch.Tensor = found[0] if isinstance(found, tuple) else found
            return features

    sides = stated["size"] if isinstance(stated["size"], tuple | list) else (stated["size"],)
    if len(set(sides)) > 1:
        raise InputError(f"architecture: {architecture!r} sees images of {sides}, expected square ones")
    fits: dict[str, Fit] = {"shortest": "crop", "squash": "squash"}
    if fit is None and stated["resize_mode"] not in fits:
        raise InputError(f"fit: open_clip states {stated['resize_mode']!r} here; choose 'crop' or 'squash'")
    prepare = Preparation(
        size=int(sides[0]),
        mean=mean or tuple(stated["mean"]),
        std=std or tuple(stated["std"]),
        resize=resize,
        interpolation=interpolation or stated["interpolation"],
        fit=fit or fits[stated["resize_mode"]],
    )
    features = Features()
    encoder = NetworkEncoder(
        features,
        prepare,
        dim=dimension(features, prepare.size),
        batch=batch,
        device=devices.choose(device),
        precision=precision,
    )
    encoder.identity = (
        {"family": "open_clip", "architecture": architecture, "weights_sha256": hashing.file_digest(path)}
        | prepare.described()
        | {"dim": encoder.dim}
        | ({} if precision == "float32" else {"precision": precision})
    )
    return encoder


def files(*, weights: str, **_others: Any) -> list[Path]:
    """The file of weights; InputError where it is missing."""
    return [weight_paths.file(weights, weight_paths.OPEN_CLIP_FILES)]
