"""Sampling with deltas: compared with the stock pipeline and with the formula of DDIM, and deltas that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from safetensors.torch import save_file

from attrib_core.common.errors import InputError
from attrib_core.diffusion.deltas import delta_files
from attrib_core.diffusion.deltas.delta_files import Delta
from attrib_core.diffusion.pipeline import components, description, sampling
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.diffusion.pipeline.latents import decode_latents
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.diffusion_fixtures import TOKEN, close, random_delta, stock_pipeline

OPTIONS: dict[str, Any] = {
    "steps": 3,
    "guidance": 3.0,
    "batch": 5,
    "image_format": "png",
    "quality": 90,
    "samples_each": 2,
    "control_samples_each": 2,
}


def stock(
    pipe: StableDiffusionPipeline,
    loaded: Components,
    prompts: Sequence[str],
    seeds: Sequence[int],
    scheduler: type = DDIMScheduler,
) -> np.ndarray:
    """Images of the stock pipeline from the same latents."""
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    shown = pipe(
        list(prompts),
        latents=sampling.initial_noise(loaded, seeds),
        num_inference_steps=OPTIONS["steps"],
        guidance_scale=OPTIONS["guidance"],
        output_type="np",
    ).images
    return (shown * 255).round().astype(np.uint8)


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
def test_images_are_those_of_the_stock_pipeline(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, prediction_type: str, solver: str
) -> None:
    folder = fixtures.save_base(tmp_path_factory.mktemp("other") / "tiny", prediction_type=prediction_type)
    loaded = components.with_token(components.load(description.describe(folder), "cpu"), TOKEN)
    model = random_delta(loaded, 1)
    checksum = delta_files.write(tmp_path / "deltas", "key", model, TOKEN)
    files = delta_files.paths(tmp_path / "deltas", "key")
    assert checksum == delta_files.checksum(*files)
    prompts, controls = [f"a {TOKEN} fruit in the snow", f"{TOKEN} art"], ["a fruit in the snow", "art"]
    seeds = [1, 2]

    pipe = stock_pipeline(folder)
    scheduler = {"ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler}[solver]
    expected = [stock(pipe, loaded, controls, seeds, scheduler)]
    delta_files.load_into(pipe, *files, TOKEN)
    expected.append(stock(pipe, loaded, prompts, seeds, scheduler))

    ids = components.tokenize(loaded, [*controls, *prompts])
    nothing = components.empty_prompt_embeds(loaded, 4)
    with torch.no_grad(), delta_files.apply_deltas(loaded, [None, None, model, model]):
        shown = sampling.sample(
            loaded,
            components.encode_text(loaded, ids),
            nothing,
            sampling.initial_noise(loaded, seeds * 2),
            steps=OPTIONS["steps"],
            guidance=OPTIONS["guidance"],
            solver=solver,
        )
    assert close(shown[:2], expected[0])
    assert close(shown[2:], expected[1])
    assert not close(expected[0], expected[1])


def test_a_delta_of_another_network_is_refused(loaded: Components) -> None:
    good = random_delta(loaded, 0)
    key = next(iter(good.weights))
    for weights, message in [
        ({"no.such.layer.weight": good.weights[key]}, "the base model's UNet has no such layer"),
        ({"conv_in.weight": good.weights[key]}, "expected the weight or the bias of a linear layer"),
        ({key: good.weights[key][:3]}, r"shape \(3, 32\), the base model has \(64, 32\)"),
    ]:
        with (
            pytest.raises(InputError, match=message),
            delta_files.apply_deltas(loaded, [Delta(weights, good.embedding)]),
        ):
            pass


def test_the_base_model_has_no_embedding_for_the_token(loaded: Components) -> None:
    ids = components.tokenize(loaded, [f"a {TOKEN} fruit", "a fruit"])
    with delta_files.apply_deltas(loaded, [None, None]):
        states = components.encode_text(loaded, ids).states
    assert torch.isnan(states[0]).any() and not torch.isnan(states[1]).any()


def test_guidance_one_is_the_condition_only(loaded: Components) -> None:
    """With guidance 1 the unconditional prompt does not matter."""
    ids = components.tokenize(loaded, ["a fruit"])
    other = components.tokenize(loaded, ["an animal in the snow"])
    noise = sampling.initial_noise(loaded, [3])
    states, nothing = (components.encode_text(loaded, one) for one in (ids, other))
    first = sampling.sample(loaded, states, nothing, noise, steps=2, guidance=1.0)
    second = sampling.sample(loaded, states, states, noise, steps=2, guidance=1.0)
    assert close(first, second)
    assert not close(first, sampling.sample(loaded, states, nothing, noise, steps=2, guidance=9.0))


def test_noise_depends_only_on_the_seed(loaded: Components) -> None:
    both = sampling.initial_noise(loaded, [5, 6])
    assert torch.equal(both[1:], sampling.initial_noise(loaded, [6]))
    many = sampling.initial_noise(loaded, range(200))
    assert abs(float(many.mean())) < 0.01 and abs(float(many.std()) - 1) < 0.01


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_noise_of_the_steps(tmp_path: Path, prediction_type: str, eta: float) -> None:
    """Formula 12 of the DDIM paper, with noise by seed and step."""
    folder = fixtures.save_base(tmp_path / "tiny", prediction_type=prediction_type)
    loaded = components.load(description.describe(folder), "cpu")
    seeds, steps, guidance = [3, 4], 4, 2.0
    with torch.no_grad():
        states = components.encode_text(loaded, components.tokenize(loaded, ["a fruit", "an animal"]))
        nothing = components.empty_prompt_embeds(loaded, 2)
    noise = sampling.initial_noise(loaded, seeds)
    shown = sampling.sample(
        loaded, states, nothing, noise, steps=steps, guidance=guidance, eta=eta, seeds=seeds
    )

    scheduler, latents = loaded.scheduler, noise.double()
    scheduler.set_timesteps(steps)
    for number, timestep in enumerate(scheduler.timesteps):
        with torch.no_grad():
            without, given = (
                loaded.unet(latents.float(), timestep, text.states).sample for text in (nothing, states)
            )
        predicted = (without + guidance * (given - without)).double()
        now = scheduler.alphas_cumprod[timestep].double()
        before = int(timestep) - 1000 // steps
        after = (scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod).double()
        if prediction_type == "epsilon":
            image, rest = (latents - (1 - now).sqrt() * predicted) / now.sqrt(), predicted
        else:
            image = now.sqrt() * latents - (1 - now).sqrt() * predicted
            rest = now.sqrt() * predicted + (1 - now).sqrt() * latents
        sigma = min(eta, sampling.LARGEST_ETA) * ((1 - after) / (1 - now)).sqrt() * (1 - now / after).sqrt()
        added = np.stack(
            [
                np.random.default_rng([seed, 1 + number]).standard_normal((4, 8, 8), np.float32)
                for seed in seeds
            ]
        )
        latents = (
            after.sqrt() * image
            + (1 - after - sigma**2).clamp(min=0).sqrt() * rest
            + sigma * torch.from_numpy(added)
        )
    assert close(shown, decode_latents(loaded, latents.float()))


def test_token_files_are_checked(loaded: Components, tmp_path: Path) -> None:
    delta_files.write(tmp_path, "key", random_delta(loaded, 0), TOKEN)
    delta_path, token_path = delta_files.paths(tmp_path, "key")
    save_file({"<other>": torch.zeros(32)}, token_path)
    with pytest.raises(
        InputError, match=rf"{token_path}: holds \['<other>'\], expected one vector named '<new1>'"
    ):
        delta_files.read(delta_path, token_path, TOKEN, delta_files.checksum(delta_path, token_path))
    delta_path.write_bytes(b"no safetensors")
    with pytest.raises(InputError, match=rf"{delta_path}: not readable as safetensors"):
        delta_files.read(delta_path, token_path, TOKEN, delta_files.checksum(delta_path, token_path))
