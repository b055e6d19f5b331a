"""Load the text tower of a base model, of CLIP or SigLIP, or of an open_clip model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from attrib_core.common import families, hashing
from attrib_core.common.errors import InputError
from attrib_core.diffusion.pipeline import description
from attrib_core.features.encoders.text import folders, openclip
from attrib_core.features.networks import transformers_loader, weight_paths
from attrib_core.features.networks.network_encoder import (
    BatchOption,
    DeviceOption,
    NetworkEncoder,
    PrecisionOption,
)
from attrib_core.runtime import devices

PACKAGES = ("torch", "transformers", "open_clip_torch")
"""Distributions whose version may change the features."""
BASE = "base_model"


def load(
    *,
    base_model: Annotated[
        dict[str, Any] | None,
        Field(
            description="the base model whose text encoder reads: a family of `attrib_core/diffusion/base_models`"
        ),
    ] = None,
    weights: Annotated[
        str | None,
        Field(
            description="folder of a CLIP or SigLIP as `save_pretrained` of the model and its tokenizer wrote it; with"
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
    """The text tower of a base model, of a model of transformers, or of one of open_clip; it reads words.

    Raises InputError for options that name none of them or two, a folder that lacks a file, a type of
    model without such a tower, weights that do not fit, and a tokenizer that would have to be downloaded.
    """
    checked(base_model=base_model, weights=weights, architecture=architecture, prefix=prefix)
    found = files(base_model=base_model, weights=weights, architecture=architecture, prefix=prefix)
    if architecture is not None:
        made = openclip.opened(architecture, found[0], prefix)
    elif base_model is not None:
        made = folders.of_base_model(_folder(found))
    else:
        made = folders.of_model(found[0].parent)
    encoder = NetworkEncoder(
        made.network,
        made.prepare,
        dim=made.dim,
        batch=batch,
        device=devices.choose(device),
        precision=precision,
        reads="words",
    )
    encoder.identity = (
        {
            "family": "text",
            "files_sha256": {f"{one.parent.name}/{one.name}": hashing.file_digest(one) for one in found},
        }
        | ({} if architecture is None else {"architecture": architecture})
        | made.identity
        | {"dim": encoder.dim}
        | ({} if precision == "float32" else {"precision": precision})
    )
    return encoder


def checked(
    *,
    base_model: Mapping[str, Any] | None,
    weights: str | None,
    architecture: str | None,
    prefix: str,
    **others: Any,
) -> dict[str, Any]:
    """The options with those of the base model checked; InputError where they name no tower, or two."""
    if base_model is None and weights is None:
        raise InputError("weights: null; name weights, or a base_model whose text encoder reads")
    if base_model is not None and (weights is not None or architecture is not None):
        raise InputError("base_model: beside weights or architecture; name one model, the other null")
    if prefix and architecture is None:
        raise InputError(f"prefix: {prefix!r}, but architecture is null; it is for files of open_clip")
    if base_model is not None:
        _section(base_model)
        base_model = families.complete("base_models", base_model, BASE)
    return {BASE: base_model, "weights": weights, "architecture": architecture, "prefix": prefix} | others


def files(
    *,
    base_model: Mapping[str, Any] | None,
    weights: str | None,
    architecture: str | None,
    **_others: Any,
) -> list[Path]:
    """The files of the tower and its tokenizer; InputError where one is missing."""
    if base_model is not None:
        family, options = _section(base_model)
        try:
            found = families.module("base_models", family, BASE).files(**options)
        except InputError as error:
            raise error.under(BASE) from None
        read = folders.read_of(_folder(found))
        return [path for path in found if path.name == folders.INDEX or path.parent.name in read]
    if weights is None:
        raise InputError("weights: null; name weights, or a base_model whose text encoder reads")
    if architecture is not None:
        return [weight_paths.file(weights, weight_paths.OPEN_CLIP_FILES)]
    folder = weight_paths.folder(weights, transformers_loader.CONFIG)
    return [
        folder / transformers_loader.CONFIG,
        *folders.tokenizer_files(folder),
        *transformers_loader.weight_files(folder),
    ]


def others(*, base_model: Mapping[str, Any] | None, **_others: Any) -> list[str]:
    """The family of the base model, whose code counts too."""
    return [] if base_model is None else [f"base_models/{_section(base_model)[0]}"]


def dim(*, base_model: Mapping[str, Any] | None, **_others: Any) -> int | None:
    """Features a text, without opening the tower; None where that takes it."""
    if base_model is None:
        return None
    folder = _folder(files(base_model=base_model, weights=None, architecture=None))
    return description.text_widths(folder)[-1] if folders.pools_states(folder) else None


def _folder(found: list[Path]) -> Path:
    """The folder of a base model, out of its files."""
    return next(path for path in found if path.name == folders.INDEX).parent


def _section(base_model: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if not isinstance(base_model.get("family"), str):
        raise InputError(f"{BASE}.family: this key is needed, and it is missing")
    return families.split(base_model)
