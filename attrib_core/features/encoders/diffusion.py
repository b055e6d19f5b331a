"""Diffusion features: the activations of one UNet layer of a base model, for an image noised to one timestep.

Deep layers represent objects, shallow ones strokes (Tang et al., 2023, "Emergent correspondence from image
diffusion"). Channel means and standard deviations of a layer are a training-free style feature; the Euclidean distance
between them is the 2-Wasserstein distance of Gaussians with diagonal covariance (Kumar et al., 2025, "IntroStyle").

    z = autoencoder(image),  z_t = sqrt(a_t) z + sqrt(1 - a_t) noise,  features = layer(z_t, t, prompt)

The noise is seeded with `noise` and the number of the draw, not with the image: it is the same for every image, so that
the features of two images differ by the images alone.
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
from attrib_core.features.networks import base_model_option
from attrib_core.features.networks.network_encoder import (
    BatchOption,
    DeviceOption,
    NetworkEncoder,
    PrecisionOption,
    image_feature_dim,
)

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "diffusers", "transformers")
"""Distributions whose version may change the features."""


def load(
    *,
    base_model: Annotated[
        dict[str, Any],
        Field(description="the base model: a family of `attrib_core/diffusion/base_models` and its options"),
    ],
    layer: Annotated[
        str,
        Field(description="UNet block whose activations are the features, such as mid_block or up_blocks.1"),
    ] = "up_blocks.1",
    timestep: Annotated[
        int, Field(ge=0, le=999, description="diffusion timestep: 0 almost no noise, 999 nothing but noise")
    ] = 100,
    prompt: Annotated[str, Field(description="prompt that conditions the UNet; may be empty")] = "",
    cells: Annotated[
        int, Field(ge=1, le=64, description="activations are averaged over a grid of cells x cells")
    ] = 1,
    deviation: Annotated[
        bool, Field(description="also the standard deviation of each channel over the image")
    ] = True,
    draws: Annotated[
        int, Field(ge=1, le=64, description="number of noise draws that features are averaged over")
    ] = 1,
    noise: Annotated[int, Field(ge=0, description="seed of the noise")] = 0,
    batch: BatchOption = 16,
    precision: PrecisionOption = "float32",
    device: DeviceOption = "auto",
) -> NetworkEncoder:
    """Load a base model and return an encoder of moments of one UNet layer: channel means by cell, then deviations.

    Unlike those of `timm`, means and deviations are not scaled to unit length. The central square of an image is
    resized to the base model's resolution, as in customization. Raises InputError for errors of the base model, a
    layer that it does not have, more cells than the layer has positions, and a UNet with more conditions than a prompt.
    """
    from attrib_core.diffusion.pipeline import components as pipeline_components
    from attrib_core.diffusion.pipeline import cropping

    family, options = base_model_option.split(base_model)
    try:
        base = families.load("base_models", family, options, where=base_model_option.KEY)
        components = pipeline_components.load(base, "cpu")
    except InputError as error:
        raise error.under(base_model_option.KEY) from None
    network = _layer_moments(components, layer, timestep, prompt, cells, deviation, draws, noise)
    side = base.resolution

    def prepare(image: np.ndarray) -> np.ndarray:
        """Crop and resize a (height, width, 3) uint8 image to (side, side, 3) float32 in [-1, 1]."""
        values: np.ndarray = cropping.center_crop(image, side).astype(np.float32) / np.float32(127.5)
        values -= np.float32(1)
        return values

    identity = {
        "family": "diffusion",
        "base_model": base.fingerprint,
        "layer": layer,
        "timestep": timestep,
        "prompt": prompt,
        "cells": cells,
        "deviation": deviation,
        "draws": draws,
        "noise": noise,
    }
    return NetworkEncoder(
        network,
        prepare,
        dim=image_feature_dim(network, side),
        batch_size=batch,
        device=device,
        precision=precision,
        identity=identity,
    )


def checked(*, base_model: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """Check the options of the base model and return all options with its defaults filled in."""
    return {base_model_option.KEY: base_model_option.checked(base_model)} | others


def files(*, base_model: Mapping[str, Any], **_others: Any) -> list[Path]:
    """Return the files of the base model; raise InputError if weights are missing."""
    return base_model_option.files(base_model)


def others(*, base_model: Mapping[str, Any], **_others: Any) -> list[str]:
    """Return the family of the base model, whose code the features depend on too."""
    return [f"base_models/{base_model_option.split(base_model)[0]}"]


class _LayerReached(Exception):
    """Ends the forward pass of the UNet once the layer has been computed."""


def _layer_moments(
    components: Any,
    layer: str,
    timestep: int,
    prompt: str,
    cells: int,
    deviation: bool,
    draws: int,
    noise: int,
) -> torch.nn.Module:
    """Return a module that maps (n, 3, side, side) in [-1, 1] to (n, features)."""
    import torch
    from torch.nn import functional

    from attrib_core.diffusion.pipeline import components as pipeline_components

    unet, vae = components.unet, components.vae
    if getattr(unet.config, "addition_embed_type", None):
        raise InputError(
            f"base_model: its UNet needs more than a prompt ({unet.config.addition_embed_type!r}), as SDXL's does;"
            " expected one like Stable Diffusion 1 or 2"
        )
    blocks = [
        name for name, _ in unet.named_modules() if name.startswith(("down_blocks.", "up_blocks.", "mid_"))
    ]
    if layer not in blocks:
        near = close_matches(layer, [name for name in blocks if name.count(".") <= 1])
        raise InputError(f"layer: the UNet has no {layer!r}, {near}")
    noises = [
        hashing.generator("diffusion encoder", noise, draw).standard_normal(
            components.latent_shape, np.float32
        )
        for draw in range(draws)
    ]
    with torch.inference_mode():
        token_ids = pipeline_components.tokenize(components, [prompt])
        prompt_embeds = components.text_encoder(token_ids).last_hidden_state.clone()

    class LayerMoments(torch.nn.Module):
        unet: Any
        vae: Any
        prompt_embeds: torch.Tensor
        noises: torch.Tensor
        alpha_cumprod: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.unet, self.vae = unet, vae
            self.register_buffer("prompt_embeds", prompt_embeds)
            self.register_buffer("noises", torch.from_numpy(np.stack(noises)))
            self.register_buffer("alpha_cumprod", components.scheduler.alphas_cumprod[timestep].clone())
            self._outputs: list[torch.Tensor] = []
            unet.get_submodule(layer).register_forward_hook(self._hook)

        def _hook(self, _module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            self._outputs.append(output[0] if isinstance(output, tuple | list) else output)
            raise _LayerReached

        def _activations(self, noisy: torch.Tensor) -> torch.Tensor:
            self._outputs.clear()
            with suppress(_LayerReached):
                self.unet(noisy, timestep, self.prompt_embeds.expand(len(noisy), -1, -1))
            return self._outputs.pop()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            latents = self.vae.encode(images).latent_dist.mode() * self.vae.config.scaling_factor
            total: Any = 0
            alpha = self.alpha_cumprod
            for noise in self.noises:
                values = self._activations(latents * alpha.sqrt() + noise * (1 - alpha).sqrt())
                moments = [functional.adaptive_avg_pool2d(values, cells).flatten(1)]
                if deviation:
                    moments.append(values.std(dim=(2, 3), correction=0))
                total = total + torch.cat(moments, dim=1)
            mean: torch.Tensor = total / draws
            return mean

    network = LayerMoments().eval()
    with torch.inference_mode():
        shape = tuple(network._activations(torch.zeros(1, *components.latent_shape)).shape)
    if len(shape) != 4:
        raise InputError(f"layer: {layer!r} gives {shape}, expected (1, channels, height, width)")
    if cells > min(shape[2:]):
        raise InputError(f"cells: {cells} is more than {layer!r} has, {min(shape[2:])} on a side")
    return network
