"""Customization and synthesis with the networks of Stable Diffusion v1.4 and SDXL at their real sizes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from attrib_core.diffusion.customization import training_data, training_loop
from attrib_core.diffusion.customization.training_data import EncodedPrior
from attrib_core.diffusion.customizers import crossattn, custom_diffusion
from attrib_core.diffusion.customizers.custom_diffusion import CustomDiffusion
from attrib_core.diffusion.deltas import delta_files
from attrib_core.diffusion.pipeline import components, cropping, sampling
from attrib_core.diffusion.pipeline.description import BaseModel
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion import full_size_fixtures as full
from tests.diffusion.diffusion_fixtures import TOKEN

KEYS_AND_VALUES, CROSS_ATTENTION = 19_169_280, 43_962_560  # as published
TRAINED = ("attn2.to_k.weight", "attn2.to_v.weight")
XL_BLOCKS, XL_LAYERS, XL_KEYS_AND_VALUES = (1, 1, 1), 2, 44_564_480
NEEDED = 10e9  # 7 GB at 256 pixels, 10 at 512, measured
SIDE = int(os.environ.get("FULL_SIZE_LATENT", "32"))  # 64 is 512 pixels, with four times the work


def free_memory() -> float:
    """Available memory in bytes; infinite where the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return float("inf")
    return float(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024


def test_the_number_of_trained_weights() -> None:
    """Counted from names and shapes, without allocating weights."""
    with torch.device("meta"):
        unet = full.unet()
    assert sum(one.numel() for one in unet.parameters()) == 859_520_964

    def count(endings: tuple[str, ...]) -> int:
        layers = {name: layer for name, layer in unet.named_modules() if name.endswith(endings)}
        assert len(layers) == 16 * len(endings)
        return sum(one.numel() for layer in layers.values() for one in layer.parameters())

    assert count(custom_diffusion.KEYS_AND_VALUES) == KEYS_AND_VALUES
    assert count(crossattn.KEYS_AND_VALUES + crossattn.QUERIES_AND_OUTPUTS) == CROSS_ATTENTION


def test_clip_vocabulary(tmp_path: Path) -> None:
    """Known ids of the stock tokenizer."""
    words = full.tokenizer(tmp_path)
    assert len(words) == 49408
    assert words("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


@pytest.mark.slow
def test_two_stacked_steps_and_an_image(tmp_path: Path) -> None:
    if free_memory() < NEEDED:
        pytest.skip(f"needs {NEEDED / 1e9:.0f} GB of free memory, there are {free_memory() / 1e9:.1f}")
    pipe = full.pipeline(tmp_path, SIDE)
    base = BaseModel(tmp_path, "random", SIDE * 8, "epsilon", None)
    loaded = components.with_token(components.from_pipeline(pipe, base, "cpu"), TOKEN)
    method = CustomDiffusion(
        steps=2, learning_rate=1e-5, exemplar_batch=1, prior_batch=1, stack=2, views=1, checkpointing=True
    )
    sets = fixtures.exemplar_sets()[:2]
    with torch.no_grad():
        texts = components.encode_text(loaded, components.tokenize(loaded, ["photo of a fruit"]))
    plain = torch.tensor([cropping.micro_conditioning(SIDE * 8, SIDE * 8, SIDE * 8)])
    ready = []
    for one in sets:
        prior = EncodedPrior(
            torch.randn(1, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(3)), texts, plain
        )
        ready.append(
            training_data.encode_exemplar_set(
                one, loaded, method, prompts=[f"photo of a {TOKEN} {one.noun}"], prior=prior, seed=1
            )
        )
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items() if "attn2.to_" in name}
    first, second = training_loop.train(ready, loaded, method, steps=2, seed=1)
    assert isinstance(first, training_loop.Trained) and isinstance(second, training_loop.Trained)
    assert np.isfinite([first.loss, second.loss]).all()
    assert sum(value.numel() for value in first.delta.weights.values()) == KEYS_AND_VALUES
    assert len(first.delta.weights) == 32 and first.delta.embedding.shape == (768,)
    for key, value in first.delta.weights.items():
        assert not torch.equal(value, before[key]) and not torch.equal(value, second.delta.weights[key])

    noise = sampling.initial_noise(loaded, [7])
    nothing = components.tokenize(loaded, [""])
    with torch.no_grad(), delta_files.apply_deltas(loaded, [first.delta]):
        ids = components.tokenize(loaded, [f"a {TOKEN} fruit in the snow"])
        image = sampling.sample(
            loaded,
            components.encode_text(loaded, ids),
            components.encode_text(loaded, nothing),
            noise,
            steps=2,
            guidance=6.0,
        )
    assert image.shape == (1, SIDE * 8, SIDE * 8, 3) and image.std() > 0

    delta_files.write(tmp_path, "one", first.delta, TOKEN)
    files = delta_files.paths(tmp_path, "one")
    assert files[0].stat().st_size == pytest.approx(4 * KEYS_AND_VALUES, rel=1e-3)  # the published 76.7 MB
    delta_files.load_into(pipe, *files, TOKEN)  # raises where nothing has changed
    state = pipe.unet.state_dict()
    assert all(torch.equal(state[key], value) for key, value in first.delta.weights.items())


def test_the_weights_of_sdxl() -> None:
    """The UNet has 2,567,463,684; the reduced one has the same shapes in fewer transformer blocks."""
    with torch.device("meta"):
        whole, reduced = full.unet_xl(), full.unet_xl(blocks=XL_BLOCKS)
    assert sum(one.numel() for one in whole.parameters()) == 2_567_463_684
    shapes = {key: value.shape for key, value in whole.state_dict().items()}
    own = {key: value.shape for key, value in reduced.state_dict().items()}
    assert own.items() <= shapes.items() and len(own) < len(shapes) / 2
    for every, expected in ((shapes, 340_787_200), (own, XL_KEYS_AND_VALUES)):
        trained = [shape for key, shape in every.items() if key.endswith(TRAINED)]
        assert sum(shape.numel() for shape in trained) == expected


@pytest.mark.slow
def test_two_stacked_steps_and_an_image_of_sdxl(tmp_path: Path) -> None:
    """Real widths; 1 transformer block per layer instead of 1, 2 and 10, and 2 text layers instead of 12 and 32."""
    if free_memory() < NEEDED:
        pytest.skip(f"needs {NEEDED / 1e9:.0f} GB of free memory, there are {free_memory() / 1e9:.1f}")
    pipe = full.pipeline_xl(tmp_path, SIDE, XL_BLOCKS, XL_LAYERS)
    base = BaseModel(tmp_path, "random", SIDE * 8, "epsilon", None)
    loaded = components.with_token(components.from_pipeline(pipe, base, "cpu"), TOKEN)
    method = CustomDiffusion(
        steps=2, learning_rate=1e-5, exemplar_batch=1, prior_batch=0, stack=2, views=1, checkpointing=True
    )
    ready = [
        training_data.encode_exemplar_set(
            one, loaded, method, prompts=[f"photo of a {TOKEN} {one.noun}"], prior=None, seed=1
        )
        for one in fixtures.exemplar_sets()[:2]
    ]
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items() if "attn2.to_" in name}
    first, second = training_loop.train(ready, loaded, method, steps=2, seed=1)
    assert isinstance(first, training_loop.Trained) and isinstance(second, training_loop.Trained)
    assert np.isfinite([first.loss, second.loss]).all()
    assert sum(value.numel() for value in first.delta.weights.values()) == XL_KEYS_AND_VALUES
    assert [row.shape for row in first.delta.embeddings] == [(768,), (1280,)]
    for key, value in first.delta.weights.items():
        assert not torch.equal(value, before[key]) and not torch.equal(value, second.delta.weights[key])

    with torch.no_grad(), delta_files.apply_deltas(loaded, [first.delta]):
        text = components.encode_text(loaded, components.tokenize(loaded, [f"a {TOKEN} fruit in the snow"]))
        assert (
            text.states.shape == (1, 77, 2048) and text.pooled is not None and text.pooled.shape == (1, 1280)
        )
        image = sampling.sample(
            loaded,
            text,
            components.empty_prompt_embeds(loaded, 1),
            sampling.initial_noise(loaded, [7]),
            steps=2,
            guidance=6.0,
        )
    assert image.shape == (1, SIDE * 8, SIDE * 8, 3) and image.std() > 0

    delta_files.write(tmp_path, "one", first.delta, TOKEN)
    delta_files.load_into(
        pipe, *delta_files.paths(tmp_path, "one"), TOKEN
    )  # raises where nothing has changed
    state = pipe.unet.state_dict()
    assert all(torch.equal(state[key], value) for key, value in first.delta.weights.items())
    tokenizers, encoders = (pipe.tokenizer, pipe.tokenizer_2), (pipe.text_encoder, pipe.text_encoder_2)
    for tokenizer, encoder, row in zip(tokenizers, encoders, first.delta.embeddings, strict=True):
        added = tokenizer.convert_tokens_to_ids(TOKEN)
        assert torch.equal(encoder.get_input_embeddings().weight[added], row)
