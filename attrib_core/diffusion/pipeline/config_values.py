"""The numbers in the configurations of a base model that diffusers takes as they are, whatever they are.

Each of them changes what the model computes without an error: a schedule of noise that is not stated, a size of
latents of zero, a scaling factor that is NaN. Without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrib_core.common.errors import InputError, shown
from attrib_core.diffusion.pipeline import description

LARGEST_LATENT = 4096
"""Longest side of a latent: with the usual eightfold autoencoder, images of 32,768 pixels."""
MOST_TIMESTEPS = MOST_ENTRIES = 1_000_000
CLIP_DEFAULTS = {"max_position_embeddings": 77, "vocab_size": 49408}
"""What a CLIP text encoder has whose config omits them: the defaults of transformers."""
COSINE = "squaredcos_cap_v2"
"""The one named schedule of DDIM that has no first and last beta."""
OTHER_KINDS = {"use_flow_sigmas": (None, False), "timestep_type": (None, "discrete")}
"""Options with which a scheduler of the same class has no noise schedule by betas, and the values without."""
ABOVE_ZERO = {
    "unet": ("norm_eps", "mid_block_scale_factor", "resnet_out_scale_factor"),
    "vae": ("scaling_factor",),
    "text_encoder": ("layer_norm_eps",),
}
"""Numbers that a network divides or multiplies by."""
OPTIONAL = ("resnet_out_scale_factor",)
"""Those that may be null."""
NORMALISING = ("latents_mean", "latents_std")


def check_networks(folder: Path) -> None:
    """Check the numbers in the configurations of the networks of a base model.

    Raises InputError with the key for a number that is NaN or infinite, for a size of latents that no image has, for a
    factor that is not above 0, and for an autoencoder that normalises latents by means and deviations.
    """
    for part in description.weight_parts(folder):
        where = folder / part / "config.json"
        values = description.read_json(where)
        for key, value in values.items():
            if any(isinstance(one, float) and not math.isfinite(one) for one in _numbers(value)):
                raise InputError(f"{where}: {key} is {shown(value)}, expected a finite number")
        for key in ABOVE_ZERO[part.removesuffix("_2")]:
            if key in values and not (key in OPTIONAL and values[key] is None):
                _require(where, values, key, _above_zero, "a number above 0")
        for key in NORMALISING if part == "vae" else ():
            if values.get(key) is not None:
                raise InputError(
                    f"{where}: {key} is {shown(values[key])}, expected null: only autoencoders with a scaling_factor"
                    " alone are supported"
                )
        if part == "unet":
            size = values.get("sample_size")
            sides = size if isinstance(size, list) and size else [size]
            if not all(_is_count(side, LARGEST_LATENT) for side in sides):
                raise InputError(
                    f"{where}: sample_size is {shown(size)}, expected the side of a latent, a whole number from 1 to"
                    f" {LARGEST_LATENT}, such as 64"
                )


def check_schedule(where: str, values: Mapping[str, Any]) -> None:
    """Check that the configuration of a scheduler states its noise schedule, which diffusers would make up.

    Raises InputError with the key that is missing, or that no noise schedule by betas has.
    """
    for key, right in OTHER_KINDS.items():
        if values.get(key) not in right:
            raise InputError(
                f"{where}: {key} is {shown(values[key])}, expected {right[1]!r}: only noise schedules by betas, as in"
                " Stable Diffusion, are supported"
            )
    betas = values.get("trained_betas")
    needed = ["num_train_timesteps"]
    if betas is None:
        named = values.get("beta_schedule")
        needed += ["beta_schedule"] if named == COSINE else ["beta_start", "beta_end", "beta_schedule"]
    for key in needed:
        if values.get(key) is None:
            raise InputError(
                f"{where}: lacks {key}; expected the noise schedule that the base model was trained with"
                " (num_train_timesteps, and trained_betas or beta_start, beta_end and beta_schedule)"
            )
    _require(
        where, values, "num_train_timesteps", lambda one: _is_count(one, MOST_TIMESTEPS),
        f"a whole number from 1 to {MOST_TIMESTEPS}, such as 1000",
    )  # fmt: skip
    if betas is None:
        for key in needed[1:-1]:
            _require(where, values, key, _above_zero, "a number between 0 and 1, such as 0.012")
    elif not isinstance(betas, list | tuple) or len(betas) != values["num_train_timesteps"]:
        raise InputError(
            f"{where}: trained_betas is {shown(betas)}, expected a list of num_train_timesteps,"
            f" {values['num_train_timesteps']}, numbers"
        )


def check_tokens(where: Path, tokenizer: Any, encoder: Path) -> None:
    """Compare the tokenizer of a folder with the configuration of its text encoder.

    Raises InputError where the tokenizer gives more tokens than the encoder has positions, or no token for padding or
    one of the special tokens an id that the encoder has no embedding of.
    """
    values = CLIP_DEFAULTS | description.read_json(encoder)
    for key in CLIP_DEFAULTS:
        _require(encoder, values, key, lambda one: _is_count(one, MOST_ENTRIES), "a whole number above 0")
    positions, entries = (values[key] for key in CLIP_DEFAULTS)
    longest = tokenizer.model_max_length
    if longest > positions:
        raise InputError(
            f"{where}/tokenizer_config.json: model_max_length is {longest}, but {encoder} has"
            f" max_position_embeddings {positions}; expected at most as many"
        )
    for name in ("pad", "bos", "eos", "unk"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is None and name == "pad":
            raise InputError(f"{where}: has no pad_token; expected one, such as '<|endoftext|>'")
        if number is not None and number >= entries:
            raise InputError(
                f"{where}: {name}_token is {shown(str(getattr(tokenizer, f'{name}_token')))} with the id {number}, but"
                f" {encoder} has vocab_size {entries}; expected a token that the text encoder knows"
            )


def _require(
    where: Path | str, values: Mapping[str, Any], key: str, right: Callable[[Any], bool], expected: str
) -> None:
    if not right(values[key]):
        raise InputError(f"{where}: {key} is {shown(values[key])}, expected {expected}")


def _above_zero(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def _numbers(value: Any) -> list[Any]:
    """Return a value, or all that is in a list of lists of them."""
    return [number for one in value for number in _numbers(one)] if isinstance(value, list) else [value]
