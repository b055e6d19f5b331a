"""Features of a base model's own UNet: an image is noised to a timestep and one layer is read.

What the denoiser makes of a noisy image says what it knows of it: deep layers of things, shallow ones
of strokes (Tang et al., 2023, "Emergent correspondence from image diffusion"). Channel means and
deviations of a layer are a style feature that needs no training; with them the Euclidean distance is the
2-Wasserstein distance of Gaussians with these moments (Kumar et al., 2025, "IntroStyle").

    z = autoencoder(image),  z_t = sqrt(a_t) z + sqrt(1 - a_t) noise,  features = layer(z_t, t, prompt)

The noise is drawn from its key (`noise`, its number), the same for every image, so that an image's
features hang on nothing but itself and two images differ by themselves alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from attrib_core.common import families, hashing
from attrib_core.common.errors import InputError, close_matches
from attrib_core.features.networks.network_encoder import (
    BatchOption,
    DeviceOption,
    NetworkEncoder,
    PrecisionOption,
    dimension,
)
from attrib_core.runtime import devices

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "diffusers", "transformers")
"""Distributions whose version may change the features."""
WHERE = "base_model"


def load(
    *,
    base_model: Annotated[
        dict[str, Any],
        Field(description="the base model: a family of `attrib_core/diffusion/base_models` and its options"),
    ],
    layer: Annotated[
        str,
        Field(description="block of the UNet that is read, such as mid_block, up_blocks.1 or down_blocks.0"),
    ] = "up_blocks.1",
    timestep: Annotated[
        int, Field(ge=0, le=999, description="how noisy the image is, 0 hardly, 999 nothing but noise")
    ] = 100,
    prompt: Annotated[str, Field(description="what the UNet is told; empty: nothing")] = "",
    cells: Annotated[
        int, Field(ge=1, le=64, description="activations are averaged over cells x cells areas")
    ] = 1,
    deviation: Annotated[
        bool, Field(description="also the standard deviation of each channel over the image")
    ] = True,
    draws: Annotated[int, Field(ge=1, le=64, description="noises over which features are averaged")] = 1,
    noise: Annotated[int, Field(ge=0, description="names the noises; another number gives others")] = 0,
    batch: BatchOption = 16,
    precision: PrecisionOption = "float32",
    device: DeviceOption = "auto",
) -> NetworkEncoder:
    """Moments of a layer of the base model's UNet: channel means by areas, then deviations.

    Unlike those of `timm`, means and deviations are not scaled to unit length. An image's middle
    square is resized to the base model's resolution, as in customization. Raises InputError for what
    the base model refuses, a layer that it does not have, more cells than the layer has places, and a
    base model whose UNet wants more than a prompt.
    """
    from attrib_core.diffusion.pipeline import components as parts
    from attrib_core.diffusion.pipeline import cropping

    family, options = _section(base_model)
    try:
        base = families.load("base_models", family, options, where=WHERE)
        components = parts.load(base, "cpu")
    except InputError as error:
        raise error.under(WHERE) from None
    network = _reader(components, layer, timestep, prompt, cells, deviation, draws, noise)
    side = base.resolution

    def prepare(image: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 to (side, side, 3) float32 in [-1, 1]."""
        values: np.ndarray = cropping.center_crop(image, side).astype(np.float32) / np.float32(127.5)
        values -= np.float32(1)
        return values

    encoder = NetworkEncoder(
        network,
        prepare,
        dim=dimension(network, side),
        batch=batch,
        device=devices.choose(device),
        precision=precision,
    )
    encoder.identity = {
        "family": "diffusion",
        "base_model": base.fingerprint,
        "layer": layer,
        "timestep": timestep,
        "prompt": prompt,
        "cells": cells,
        "deviation": deviation,
        "draws": draws,
        "noise": noise,
        "dim": encoder.dim,
    } | ({} if precision == "float32" else {"precision": precision})
    return encoder


def checked(*, base_model: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """The options with those of the base model checked and their defaults filled in."""
    _section(base_model)
    return {WHERE: families.complete("base_models", base_model, WHERE)} | others


def files(*, base_model: Mapping[str, Any], **_others: Any) -> list[Path]:
    """The files of the base model; InputError where weights are missing."""
    family, options = _section(base_model)
    module = families.module("base_models", family, WHERE)
    try:
        return list(module.files(**options)) if hasattr(module, "files") else []
    except InputError as error:
        raise error.under(WHERE) from None


def others(*, base_model: Mapping[str, Any], **_others: Any) -> list[str]:
    """The family of the base model, whose code counts too."""
    return [f"base_models/{_section(base_model)[0]}"]


def _section(base_model: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if not isinstance(base_model.get("family"), str):
        raise InputError(f"{WHERE}.family: this key is needed, and it is missing")
    return families.split(base_model)


class _Read(Exception):
    """Ends the pass through the UNet where the layer has been read."""


def _reader(
    components: Any,
    layer: str,
    timestep: int,
    prompt: str,
    cells: int,
    deviation: bool,
    draws: int,
    noise: int,
) -> torch.nn.Module:
    """A module that takes (n, 3, side, side) in [-1, 1] to (n, features)."""
    import torch
    from torch.nn import functional

    from attrib_core.diffusion.pipeline import components as parts

    unet, vae = components.unet, components.vae
    if getattr(unet.config, "addition_embed_type", None):
        raise InputError(
            f"{WHERE}: its UNet wants more than a prompt ({unet.config.addition_embed_type!r}), as SDXL's does;"
            " expected one like Stable Diffusion 1 or 2"
        )
    blocks = [
        name for name, _ in unet.named_modules() if name.startswith(("down_blocks.", "up_blocks.", "mid_"))
    ]
    if layer not in blocks:
        near = close_matches(layer, [name for name in blocks if name.count(".") <= 1])
        raise InputError(f"layer: the UNet has no {layer!r}, {near}")
    drawn = [
        hashing.generator("diffusion encoder", noise, draw).standard_normal(
            components.latent_shape, np.float32
        )
        for draw in range(draws)
    ]
    with torch.inference_mode():
        ids = parts.tokenize(components, [prompt])
        told = components.text_encoder(ids).last_hidden_state.clone()

    class Reader(torch.nn.Module):
        unet: Any
        vae: Any
        told: torch.Tensor
        noises: torch.Tensor
        kept: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.unet, self.vae = unet, vae
            self.register_buffer("told", told)
            self.register_buffer("noises", torch.from_numpy(np.stack(drawn)))
            self.register_buffer("kept", components.scheduler.alphas_cumprod[timestep].clone())
            self._found: list[torch.Tensor] = []
            unet.get_submodule(layer).register_forward_hook(self._catch)

        def _catch(self, _module: torch.nn.Module, _given: Any, output: Any) -> None:
            self._found.append(output[0] if isinstance(output, tuple | list) else output)
            raise _Read

        def _activations(self, noisy: torch.Tensor) -> torch.Tensor:
            self._found.clear()
            with suppress(_Read):
                self.unet(noisy, timestep, self.told.expand(len(noisy), -1, -1))
            return self._found.pop()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            latents = self.vae.encode(images).latent_dist.mode() * self.vae.config.scaling_factor
            total: Any = 0
            for one in self.noises:
                values = self._activations(latents * self.kept.sqrt() + one * (1 - self.kept).sqrt())
                moments = [functional.adaptive_avg_pool2d(values, cells).flatten(1)]
                if deviation:
                    moments.append(values.std(dim=(2, 3), correction=0))
                total = total + torch.cat(moments, dim=1)
            mean: torch.Tensor = total / draws
            return mean

    reader = Reader().eval()
    with torch.inference_mode():
        found = reader._activations(torch.zeros(1, *components.latent_shape))
    if found.ndim != 4:
        raise InputError(
            f"layer: {layer!r} gives {tuple(found.shape)}, expected (1, channels, height, width)"
        )
    if cells > min(found.shape[2:]):
        raise InputError(f"cells: {cells} is more than {layer!r} has, {min(found.shape[2:])} on a side")
    return reader
