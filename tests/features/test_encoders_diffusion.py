"""The encoder family `diffusion`: moments of the UNet's activations at a layer and timestep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attrib_core.common import families, hashing
from attrib_core.common.errors import InputError
from attrib_core.config.load import load_config, plain
from attrib_core.features.encoders import diffusion
from tests.features.embedding_fixtures import noise_images

BUNDLED = {"family": "bundled"}


@pytest.mark.parametrize(
    ("layer", "timestep", "draws", "prompt"),
    [("up_blocks.1", 100, 1, ""), ("mid_block", 600, 2, "a fruit"), ("down_blocks.0", 0, 1, "")],
)
def test_features_are_moments_of_the_stock_pipelines_activations(
    load_encoder, layer, timestep, draws, prompt
):
    """With diffusers alone: the complete UNet is run, and a hook records the output of the layer."""
    import torch
    from diffusers import StableDiffusionPipeline

    base = families.load("base_models", "bundled", {})
    pipe = StableDiffusionPipeline.from_pretrained(base.path, safety_checker=None, dtype=torch.float32)
    outputs: list[Any] = []
    pipe.unet.get_submodule(layer).register_forward_hook(
        lambda _module, _inputs, output: outputs.append(output)
    )
    image = noise_images(1, size=64)[0]
    ids = pipe.tokenizer(prompt, padding="max_length", max_length=pipe.tokenizer.model_max_length)[
        "input_ids"
    ]
    expected = []
    with torch.inference_mode():
        text = pipe.text_encoder(torch.tensor([ids])).last_hidden_state
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        latent = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
        for draw in range(draws):
            noise = hashing.generator("diffusion encoder", 7, draw).standard_normal(
                latent.shape[1:], np.float32
            )
            noisy = pipe.scheduler.add_noise(latent, torch.from_numpy(noise)[None], torch.tensor([timestep]))
            pipe.unet(noisy, timestep, text)
            output = outputs.pop()
            values = (output[0] if isinstance(output, tuple) else output)[0].numpy().astype(np.float64)
            expected.append(np.concatenate([values.mean(axis=(1, 2)), values.std(axis=(1, 2))]))
    found = load_encoder(
        "diffusion",
        layer=layer,
        timestep=timestep,
        draws=draws,
        noise=7,
        prompt=prompt,
        cells=1,
        deviation=True,
    )
    assert np.allclose(found.encode([image])[0], np.mean(expected, axis=0), rtol=1e-4, atol=1e-5)


def test_the_noise_depends_on_its_seed_only(load_encoder):
    images = noise_images(3)
    first, again = (load_encoder("diffusion", noise=1, timestep=500).encode(images) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, load_encoder("diffusion", noise=2, timestep=500).encode(images))


def test_options_that_change_features_are_in_the_identity(load_encoder):
    identities = [
        load_encoder("diffusion", **options).identity for options in ({}, {"timestep": 7}, {"prompt": "a"})
    ]
    assert all(one not in identities[:index] for index, one in enumerate(identities))
    assert identities[0]["base_model"] == families.load("base_models", "bundled", {}).fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "up_block.1"}, r"^layer: the UNet has no 'up_block.1', did you mean 'up_blocks.1'"),
        ({"layer": "mid_block", "cells": 60}, "^cells: 60 is more than 'mid_block' has, [0-9]+ on a side"),
        (
            {"layer": "mid_block.attentions.0.transformer_blocks.0"},
            "^layer: .* gives .*expected .1, channels",
        ),
        (
            {"base_model": {"family": "folder", "path": "/none"}},
            "^base_model: /none/model_index.json: no such file",
        ),
        ({"base_model": {"path": "/none"}}, "^base_model.family: this key is needed"),
        (
            {"base_model": {"family": "bundle"}},
            "^base_model.family: no family 'bundle', did you mean 'bundled'",
        ),
    ],
)
def test_options_that_do_not_fit_the_base_model_are_named(load_encoder, options, message):
    with pytest.raises(InputError, match=message):
        load_encoder("diffusion", **options)


def test_the_base_model_is_checked_with_the_config_and_is_part_of_the_fingerprint():
    section = {"family": "diffusion", "base_model": BUNDLED}
    filled = plain(load_config({"encoders": {"x": section}}))["encoders"]["x"]
    assert filled["base_model"] == BUNDLED and filled["layer"] == "up_blocks.1"
    with pytest.raises(InputError, match="^encoders.x.base_model.pth: .* did you mean 'path'"):
        load_config({"encoders": {"x": section | {"base_model": {"family": "folder", "pth": "/a"}}}})
    assert diffusion.others(base_model=BUNDLED) == ["base_models/bundled"]
    own = diffusion.files(base_model=BUNDLED)
    assert own == families.module("base_models", "bundled").files()
    fused = {"parts": {"a": section, "b": {"family": "pixel"}}}
    assert families.module("encoders", "fusion").others(**fused) == ["base_models/bundled"]
