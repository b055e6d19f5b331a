"""A base model loaded: the parts of a stock StableDiffusionPipeline, and how pictures and words enter.

Parts are float32 and frozen; convolutions are laid out channels-last, which is
the faster layout on CPUs and recent GPUs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from attrib_core.diffusion.description import BaseModel
from attrib_core.errors import InputError

PICTURES_AT_ONCE = 16


@dataclass(frozen=True)
class Components:
    """What customization and synthesis need of a base model.

    The scheduler is DDIM with the folder's own noise schedule. `token` is the id of
    the modifier token, None before `with_token`; it may stand for several `tokens`,
    whose ids follow one another.
    """

    base: BaseModel
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: DDIMScheduler
    device: torch.device
    token: int | None = None
    tokens: int = 1

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of a latent."""
        side = self.unet.config.sample_size
        side = side if isinstance(side, int) else side[0]
        return self.unet.config.in_channels, side, side

    @property
    def table(self) -> torch.Tensor:
        """The text encoder's token table, (entries, dim)."""
        weight: torch.Tensor = self.text_encoder.get_input_embeddings().weight
        return weight


def load(base: BaseModel, device: str) -> Components:
    """Load a described folder with stock diffusers; only safetensors are read.

    Raises InputError where diffusers cannot make a Stable Diffusion pipeline of it.
    """
    # bars would fill the logs of jobs
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        pipe = StableDiffusionPipeline.from_pretrained(
            base.path,
            dtype=torch.float32,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            use_safetensors=True,
            local_files_only=True,
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise InputError(
            f"{base.path}: diffusers cannot load it as a Stable Diffusion pipeline: {reason}"
        ) from error
    return from_pipeline(pipe, base, device)


def from_pipeline(pipe: StableDiffusionPipeline, base: BaseModel, device: str) -> Components:
    """The parts of a pipeline, frozen, on a device."""
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False).eval().to(device)
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)
    return Components(
        base=base,
        tokenizer=pipe.tokenizer,
        text_encoder=pipe.text_encoder,
        unet=pipe.unet,
        vae=pipe.vae,
        scheduler=DDIMScheduler.from_config(pipe.scheduler.config),
        device=torch.device(device),
    )


def with_token(components: Components, token: str, count: int = 1) -> Components:
    """The same parts with a tokenizer that has one token more; its id comes after all others.

    With a `count` above 1 the token stands for so many, `<new1> <new1>_1 ...`, as the stock
    pipeline expands a token that `load_textual_inversion` gave several vectors.

    Raises InputError where the tokenizer already has the token: training it
    would change what the base model knows by that name.
    """
    known = components.tokenizer.get_vocab()
    if not token.strip() or token in known or f"{token}</w>" in known:
        raise InputError(
            f"modifier token {token!r}: the tokenizer of {components.base.path} already has it;"
            " choose a token that is new, like '<new1>'"
        )
    tokenizer = copy.deepcopy(components.tokenizer)
    names = [token, *(f"{token}_{number}" for number in range(1, count))]
    tokenizer.add_tokens(names)
    ids = tokenizer.convert_tokens_to_ids(names)
    if ids != list(range(ids[0], ids[0] + count)):
        raise InputError(
            f"modifier token {token!r}: the tokenizer of {components.base.path} has one of {names}"
        )
    return replace(components, tokenizer=tokenizer, token=int(ids[0]), tokens=count)


def tokenize(components: Components, prompts: Sequence[str]) -> torch.Tensor:
    """Prompts as (prompts, length) ids, padded as the stock pipeline pads them.

    Raises InputError for a prompt that is longer than the text encoder reads:
    what is cut off may be the very thing that is asked for.
    """
    length = components.tokenizer.model_max_length
    expanded = [_expanded(components, prompt) for prompt in prompts]
    encoded = components.tokenizer(expanded, padding="max_length", max_length=length).input_ids
    for prompt, ids in zip(prompts, encoded, strict=True):
        if len(ids) > length:
            raise InputError(
                f"prompt {prompt!r}: {len(ids)} tokens, the base model reads {length}; shorten it"
            )
    return torch.tensor(encoded, device=components.device)


def tokenize_captions(components: Components, captions: Sequence[str]) -> torch.Tensor:
    """Captions as (captions, length) ids; one that is longer than the text encoder reads is cut off there.

    Unlike a prompt, a caption that was found asks for nothing that could be lost.
    """
    length = components.tokenizer.model_max_length
    encoded = components.tokenizer(
        list(captions), padding="max_length", max_length=length, truncation=True
    ).input_ids
    return torch.tensor(encoded, device=components.device)


def _expanded(components: Components, prompt: str) -> str:
    """The prompt with each modifier token followed by the further ones that it stands for."""
    if components.token is None or components.tokens == 1:
        return prompt
    ids = range(components.token, components.token + components.tokens)
    names = components.tokenizer.convert_ids_to_tokens(list(ids))
    return prompt.replace(names[0], " ".join(names))


def encode_text(components: Components, ids: torch.Tensor) -> torch.Tensor:
    """(prompts, length) ids to hidden states, (prompts, length, dim)."""
    states: torch.Tensor = components.text_encoder(ids).last_hidden_state
    return states


@torch.no_grad()
def encode_pictures(components: Components, pictures: np.ndarray) -> torch.Tensor:
    """(n, side, side, 3) uint8 to latents, (n, channels, height, width), the posterior's mode."""
    parts = []
    for start in range(0, len(pictures), PICTURES_AT_ONCE):
        part = torch.from_numpy(np.ascontiguousarray(pictures[start : start + PICTURES_AT_ONCE]))
        part = part.to(components.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        parts.append(components.vae.encode(part).latent_dist.mode() * components.vae.config.scaling_factor)
    return torch.cat(parts)


@torch.no_grad()
def decode_latents(components: Components, latents: torch.Tensor) -> np.ndarray:
    """Latents to pictures, (n, side, side, 3) uint8, rounded as the stock pipeline rounds."""
    parts = []
    for part in latents.split(PICTURES_AT_ONCE):
        decoded = components.vae.decode(part / components.vae.config.scaling_factor).sample
        shown = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float().cpu().numpy()
        parts.append((shown * 255).round().astype(np.uint8))
    return np.concatenate(parts)


def square(picture: np.ndarray, side: int) -> np.ndarray:
    """The middle square of a picture, resized; (height, width, 3) to (side, side, 3) uint8."""
    height, width, _ = picture.shape
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    cut = picture[top : top + edge, left : left + edge]
    if edge == side:
        return cut
    return np.asarray(Image.fromarray(cut).resize((side, side), Image.Resampling.LANCZOS))
