"""Configurations and weights that libraries take as they are and that mean nothing: `check` and a job refuse both."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attrib_core.diffusion.pipeline import networks
from tests.diffusion import diffusion_families_fixtures as other
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.test_weights_of_base_models import (
    PARTS,
    Tensors,
    checked,
    configure,
    refused,
    rewrite,
    same,
    state,
)

SCHEDULER = "scheduler/scheduler_config.json"
STABLE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
SD14 = STABLE | {
    "_class_name": "PNDMScheduler", "_diffusers_version": "0.7.0.dev0", "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None, "clip_sample": False,
}  # fmt: skip
SD21 = STABLE | {
    "_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "clip_sample": False,
    "prediction_type": "v_prediction", "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "trained_betas": None,
}  # fmt: skip
SDXL = STABLE | {
    "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0", "clip_sample": False,
    "interpolation_type": "linear", "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None,
    "use_karras_sigmas": False,
}  # fmt: skip
TRAINED = list(np.linspace(0.001, 0.02, 50))
SCALED = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixtures.save_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "base"))


@pytest.mark.parametrize(
    ("config", "betas"),
    [
        (SD14, SCALED),
        (SD21, SCALED),
        (SDXL, SCALED),
        ({key: value for key, value in SD14.items() if key != "_class_name"}, SCALED),
        (SDXL | {"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -float("inf")}, SCALED),
        (SDXL | {"timestep_type": "discrete", "use_flow_sigmas": False}, SCALED),
        ({"trained_betas": TRAINED, "num_train_timesteps": 50}, np.array(TRAINED)),
        (
            STABLE | {"beta_schedule": "linear", "_class_name": "DDPMScheduler"},
            np.linspace(0.00085, 0.012, 1000),
        ),
    ],
)
def test_schedules_as_published(config: dict[str, Any], betas: np.ndarray, folder: Path) -> None:
    (folder / SCHEDULER).write_text(json.dumps(config))
    assert len(checked(folder)) == 2
    found = networks.scheduler(folder)
    assert np.allclose(found.alphas_cumprod.numpy(), np.cumprod(1 - betas), rtol=1e-4)
    assert found.config.prediction_type == config.get("prediction_type", "epsilon")


def test_the_cosine_schedule_has_no_ends(folder: Path) -> None:
    (folder / SCHEDULER).write_text(
        json.dumps({"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100})
    )
    assert len(checked(folder)) == 2
    place = (np.arange(101) / 100 + 0.008) / 1.008 * np.pi / 2
    betas = np.minimum(1 - np.cos(place[1:]) ** 2 / np.cos(place[:-1]) ** 2, 0.999)
    assert np.allclose(networks.scheduler(folder).betas.numpy(), betas, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0},
            "_class_name is 'FlowMatchEulerDiscreteScheduler', expected a scheduler with a noise schedule by betas",
        ),
        (STABLE | {"_class_name": "EDMEulerScheduler"}, "_class_name is 'EDMEulerScheduler', expected"),
        (STABLE | {"_class_name": "CogVideoXDDIMScheduler"}, "_class_name is 'CogVideoXDDIMScheduler', expected"),
        (STABLE | {"_class_name": "UNet2DConditionModel"}, "_class_name is 'UNet2DConditionModel', expected"),
        ({}, "lacks num_train_timesteps"),
        *(({key: STABLE[key] for key in STABLE if key != one}, f"lacks {one}") for one in STABLE),
        (STABLE | {"use_flow_sigmas": True}, "use_flow_sigmas is True, expected False"),
        (STABLE | {"timestep_type": "continuous"}, "timestep_type is 'continuous', expected 'discrete'"),
        (STABLE | {"num_train_timesteps": 0}, "num_train_timesteps is 0, expected a whole number from 1"),
        (STABLE | {"num_train_timesteps": 10**30}, "expected a whole number from 1"),
        (STABLE | {"num_train_timesteps": True}, "num_train_timesteps is True, expected a whole"),
        (STABLE | {"beta_start": "0.1"}, "beta_start is '0.1', expected a number between 0 and 1"),
        (STABLE | {"beta_end": -0.1}, "beta_end is -0.1, expected a number between 0 and 1"),
        (STABLE | {"beta_schedule": "linear", "beta_end": 1.5}, "betas are from 0.00085 to 1.5, expected"),
        ({"trained_betas": TRAINED, "num_train_timesteps": 1000}, "expected a list of num_train_timesteps, 1000"),
        ({"trained_betas": [0.1, -0.2], "num_train_timesteps": 2}, "betas are from -0.2 to 0.1, expected"),
    ],
)  # fmt: skip
def test_schedules_that_are_not_stated(config: dict[str, Any], message: str, folder: Path) -> None:
    (folder / SCHEDULER).write_text(json.dumps(config))
    for said in refused(folder):
        assert message in said and SCHEDULER in said


def test_the_index_names_the_scheduler_too(folder: Path) -> None:
    configure(folder / "model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"])
    for said in refused(folder):
        assert "model_index.json: scheduler is 'FlowMatchEulerDiscreteScheduler', expected" in said


def integers(tensors: Tensors) -> None:
    key = first_matrix(tensors)
    tensors[key] = tensors[key].int()


def imaginary(tensors: Tensors) -> None:
    key = first_matrix(tensors)
    tensors[key] = tensors[key].to(torch.complex64)


def all_integers(tensors: Tensors) -> None:
    tensors.update({key: value.to(torch.int8) for key, value in tensors.items()})


def zeros(tensors: Tensors) -> None:
    tensors.update({key: -torch.zeros_like(value) for key, value in tensors.items()})


def untrained_zeros(tensors: Tensors) -> None:
    """Zeros but for vectors, as after rounding: weights of normalisation are ones."""
    tensors.update({key: torch.zeros_like(value) for key, value in tensors.items() if value.ndim > 1})


def first_matrix(tensors: Tensors) -> str:
    return min(key for key, value in tensors.items() if value.ndim > 1)


@pytest.mark.filterwarnings("ignore:Casting complex values")
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (integers, "is of type I32, expected floating-point numbers (F64, F32, F16, BF16)"),
        (imaginary, "is of type C64, expected floating-point numbers"),
        (all_integers, "is of type I8, expected floating-point numbers"),
        (zeros, "its weights are zeros alone"),
        (untrained_zeros, "its weights are zeros alone"),
    ],
)
def test_weights_that_are_no_numbers_of_a_network(
    part: str, change: Callable[[Tensors], None], message: str, folder: Path
) -> None:
    rewrite(folder / part / PARTS[part], change)
    for said in refused(folder):
        assert message in said and f"{folder}/{part}" in said


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float8_e4m3fn])
def test_all_types_of_floating_point_numbers(kind: torch.dtype, folder: Path, original: Path) -> None:
    def change(tensors: Tensors) -> None:
        tensors.update({key: value.to(kind) for key, value in tensors.items()})

    rewrite(folder / "unet" / PARTS["unet"], change)
    assert len(checked(folder)) == 2
    expected = {
        key: value.to(kind).float() if key.startswith("unet.") else value
        for key, value in state(original).items()
    }
    assert same(state(folder), expected)


def test_some_zeros_and_further_integers_are_sound(folder: Path, original: Path) -> None:
    def change(tensors: Tensors) -> None:
        for key in sorted(tensors)[:-40]:
            tensors[key] = torch.zeros_like(tensors[key])
        tensors["position_ids"] = torch.arange(24)[None]

    rewrite(folder / "unet" / PARTS["unet"], change)
    checked(folder)
    found, before = state(folder), state(original)
    kept = sorted(key for key in before if key.startswith("unet."))[-40:]
    assert all(torch.equal(found[key], before[key]) for key in kept)
    assert not any(found[key].any() for key in before if key.startswith("unet.") and key not in kept)


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        *(("vae", "scaling_factor", one, "a number above 0") for one in (0, "1", -0.18215, None, True)),
        ("vae", "scaling_factor", float("nan"), "a finite number"),
        ("vae", "latents_mean", [0.1] * 4, "null: only autoencoders with a scaling_factor alone"),
        ("vae", "latents_std", [1.0] * 4, "null: only autoencoders with a scaling_factor alone"),
        ("unet", "norm_eps", float("nan"), "a finite number"),
        ("unet", "norm_eps", 0, "a number above 0"),
        ("unet", "mid_block_scale_factor", float("inf"), "a finite number"),
        *(("unet", "sample_size", one, "") for one in (0, -16, [0, 0], 1.5, None)),
        ("unet", "sample_size", True, ""),
        ("unet", "sample_size", 10**30, "the side of a latent, a whole number from 1 to 4096"),
        ("text_encoder", "layer_norm_eps", -1e-5, "a number above 0"),
        ("text_encoder", "vocab_size", 5.5, ""),
    ],
)
def test_numbers_that_no_network_has(part: str, key: str, value: Any, message: str, folder: Path) -> None:
    configure(folder / part / "config.json", **{key: value})
    for said in refused(folder):
        assert f"{folder}/{part}/config.json: " in said
        assert not message or f"{key} is {value!r}, expected {message}" in said


def test_numbers_that_configs_omit_or_write_otherwise(folder: Path, original: Path) -> None:
    """Stable Diffusion 1.4 has no scaling_factor and no layer_norm_eps of its own, others whole numbers."""
    place = folder / "vae" / "config.json"
    values = json.loads(place.read_text())
    omitted = {"scaling_factor", "latents_mean", "latents_std"}
    place.write_text(json.dumps({key: value for key, value in values.items() if key not in omitted}))
    configure(folder / "unet" / "config.json", sample_size=[fixtures.SIDE // 4] * 2, mid_block_scale_factor=1)
    assert len(checked(folder)) == 2
    assert same(state(folder), state(original))
    configure(place, scaling_factor=1)
    assert len(checked(folder)) == 2


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        (
            "tokenizer/tokenizer_config.json",
            {"model_max_length": 77},
            "tokenizer_config.json: model_max_length is 77, but",
        ),
        ("tokenizer/tokenizer_config.json", {"pad_token": "<pad>"}, "tokenizer: pad_token is '<pad>' with the id"),
        ("tokenizer/tokenizer_config.json", {"eos_token": "<end>"}, "tokenizer: eos_token is '<end>' with the id"),
    ],
)  # fmt: skip
def test_tokenizers_of_another_text_encoder(
    file: str, values: dict[str, Any], message: str, folder: Path
) -> None:
    configure(folder / file, **values)
    for said in refused(folder):
        assert message in said and "text_encoder/config.json has" in said


def test_a_shorter_tokenizer_is_sound(folder: Path) -> None:
    configure(folder / "tokenizer" / "tokenizer_config.json", model_max_length=12)
    assert len(checked(folder)) == 2


def test_the_second_tokenizer_is_compared_with_the_second_encoder(tmp_path: Path) -> None:
    folder = other.save_xl(tmp_path / "xl")
    assert len(checked(folder)) == 2
    configure(folder / "tokenizer_2" / "tokenizer_config.json", pad_token="<pad>")
    for said in refused(folder):
        assert f"{folder}/tokenizer_2: pad_token is '<pad>'" in said and "text_encoder_2/config.json" in said
