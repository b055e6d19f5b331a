"""Load the text tower of a base model, of a transformers model, or of an open_clip model as an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.diffusion.pipeline import description
from attrib_core.features.encoders.text import open_clip_towers, transformers_towers
from attrib_core.features.networks import base_model_option, transformers_loader, weight_paths
from attrib_core.features.networks.network_encoder import (
    BatchOption,
    DeviceOption,
    NetworkEncoder,
    PrecisionOption,
)

PACKAGES = ("torch", "transformers", "open_clip_torch")
"""Distributions whose version may change the features."""
INDEX = "model_index.json"


def load(
    *,
    base_model: Annotated[
        dict[str, Any] | None,
        Field(
            description="the base model whose text encoder is used: a family of `attrib_core/diffusion/base_models`"
        ),
    ] = None,
    weights: Annotated[
        str | None,
        Field(
            description="folder of a CLIP or SigLIP, written by `save_pretrained` of the model and its tokenizer; with"
            " `architecture` a file that holds a state dict; or hub:owner/model@revision in the hub's cache"
        ),
    ] = None,
    architecture: Annotated[
        str | None, Field(description="name of a model in open_clip, such as ViT-B-32-quickgelu")
    ] = None,
    prefix: Annotated[
        str,
        Field(
            description="with `architecture`: what the names of the file's tensors begin with, as in module."
        ),
    ] = "",
    batch: BatchOption = 32,
    precision: PrecisionOption = "float32",
    device: DeviceOption = "auto",
) -> NetworkEncoder:
    """Load a text tower as an encoder that reads text.

    Raises InputError for options that name no tower or two, a missing file, a model type without a text tower,
    weights that do not fit, and a tokenizer that would have to be downloaded.
    """
    checked(base_model=base_model, weights=weights, architecture=architecture, prefix=prefix)
    paths = files(base_model=base_model, weights=weights, architecture=architecture, prefix=prefix)
    identity: dict[str, Any] = {
        "family": "text",
        "files_sha256": {f"{path.parent.name}/{path.name}": hashing.file_digest(path) for path in paths},
    }
    if architecture is not None:
        tower = open_clip_towers.load(architecture, paths[0], prefix)
        identity["architecture"] = architecture
    elif base_model is not None:
        tower = transformers_towers.load_from_base_model(_base_model_folder(paths))
    else:
        tower = transformers_towers.load_from_folder(paths[0].parent)
    return NetworkEncoder(
        tower.network,
        tower.prepare,
        dim=tower.dim,
        batch_size=batch,
        device=device,
        precision=precision,
        reads="text",
        identity=identity | tower.identity,
    )


def checked(
    *,
    base_model: Mapping[str, Any] | None,
    weights: str | None,
    architecture: str | None,
    prefix: str,
    **others: Any,
) -> dict[str, Any]:
    """Check the options of the base model; raise InputError if the options name no tower, or two."""
    if base_model is None and weights is None:
        raise InputError("weights: null; name weights, or a base_model whose text encoder is used")
    if base_model is not None and (weights is not None or architecture is not None):
        raise InputError(
            "base_model: given with weights or architecture; name one model, set the other to null"
        )
    if prefix and architecture is None:
        raise InputError(f"prefix: {prefix!r}, but architecture is null; a prefix applies to open_clip files")
    if base_model is not None:
        base_model = base_model_option.checked(base_model)
    return {
        base_model_option.KEY: base_model,
        "weights": weights,
        "architecture": architecture,
        "prefix": prefix,
    } | others


def files(
    *,
    base_model: Mapping[str, Any] | None,
    weights: str | None,
    architecture: str | None,
    **_others: Any,
) -> list[Path]:
    """Return the files of the tower and its tokenizer; raise InputError if one is missing."""
    if base_model is not None:
        paths = base_model_option.files(base_model)
        subfolders = transformers_towers.base_model_subfolders(_base_model_folder(paths))
        return [path for path in paths if path.name == INDEX or path.parent.name in subfolders]
    if weights is None:
        raise InputError("weights: null; name weights, or a base_model whose text encoder is used")
    if architecture is not None:
        return [weight_paths.file(weights, weight_paths.OPEN_CLIP_FILES)]
    folder = weight_paths.folder(weights, transformers_loader.CONFIG)
    return [
        folder / transformers_loader.CONFIG,
        *transformers_towers.tokenizer_files(folder),
        *transformers_loader.weight_files(folder),
    ]


def others(*, base_model: Mapping[str, Any] | None, **_others: Any) -> list[str]:
    """Return the family of the base model, whose code the features depend on too."""
    return [] if base_model is None else [f"base_models/{base_model_option.split(base_model)[0]}"]


def dim(*, base_model: Mapping[str, Any] | None, **_others: Any) -> int | None:
    """Return the number of features without loading the tower; None if only the tower knows it."""
    if base_model is None:
        return None
    folder = _base_model_folder(files(base_model=base_model, weights=None, architecture=None))
    return description.text_widths(folder)[-1] if transformers_towers.is_unprojected(folder) else None


def _base_model_folder(paths: list[Path]) -> Path:
    return next(path for path in paths if path.name == INDEX).parent
