"""A base model loaded: the parts of a stock Stable Diffusion (XL) pipeline, how words enter, what the UNet predicts.

Parts are float32 and frozen; convolutions are laid out channels-last, which is
the faster layout on CPUs and recent GPUs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from attrib_core.common.errors import InputError
from attrib_core.diffusion.pipeline import description
from attrib_core.diffusion.pipeline.cropping import micro_conditioning
from attrib_core.diffusion.pipeline.description import BaseModel
from attrib_core.diffusion.pipeline.prompt_encoding import PromptEmbeds, TextEncoder


@dataclass(frozen=True)
class Components:
    """What customization and synthesis need of a base model.

    `encoders` has one text encoder, or the two of SDXL. The scheduler is DDIM with the folder's
    own noise schedule. The modifier token may stand for several `tokens`, whose ids follow one
    another. `zeros_for_empty_prompt`: no prompt is told by zeros, not by the text encoders' "".
    """

    base: BaseModel
    encoders: tuple[TextEncoder, ...]
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: DDIMScheduler
    device: torch.device
    tokens: int = 1
    zeros_for_empty_prompt: bool = False

    @property
    def tokenizer(self) -> CLIPTokenizer:
        """That of the first text encoder."""
        return self.encoders[0].tokenizer

    @property
    def text_encoder(self) -> CLIPTextModel:
        """The first one."""
        return self.encoders[0].model

    @property
    def token(self) -> int | None:
        """The modifier token's id in the first tokenizer, None before `with_token`."""
        return self.encoders[0].token

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of a latent."""
        side = self.unet.config.sample_size
        side = side if isinstance(side, int) else side[0]
        return self.unet.config.in_channels, side, side

    @property
    def table(self) -> torch.Tensor:
        """The first text encoder's token table, (entries, dim)."""
        return self.encoders[0].table

    @property
    def pooled(self) -> bool:
        """Whether the UNet takes a pooled embedding and sizes beside hidden states, as SDXL's does."""
        return bool(self.unet.config.addition_embed_type == "text_time")


def load(base: BaseModel, device: str) -> Components:
    """Load a described folder with stock diffusers; only safetensors are read.

    Raises InputError where diffusers cannot make the pipeline of it that its index names.
    """
    # bars would fill the logs of jobs
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    kind, left_out = StableDiffusionPipeline, {"safety_checker": None, "requires_safety_checker": False}
    if description.pipeline_class(base.path) == description.XL:
        kind, left_out = StableDiffusionXLPipeline, {"add_watermarker": False}
    try:
        pipe = kind.from_pretrained(
            base.path,
            dtype=torch.float32,
            feature_extractor=None,
            use_safetensors=True,
            local_files_only=True,
            **left_out,
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise InputError(
            f"{base.path}: diffusers cannot load it as a Stable Diffusion pipeline: {reason}"
        ) from error
    return from_pipeline(pipe, base, device)


def from_pipeline(
    pipe: StableDiffusionPipeline | StableDiffusionXLPipeline, base: BaseModel, device: str
) -> Components:
    """The parts of a pipeline, frozen, on a device.

    Raises InputError where its tokenizers read prompts of different lengths, or its
    autoencoder has means and deviations of latents, which are not taken into account.
    """
    encoders = [TextEncoder(pipe.tokenizer, pipe.text_encoder)]
    if getattr(pipe, "text_encoder_2", None) is not None:
        encoders.append(TextEncoder(pipe.tokenizer_2, pipe.text_encoder_2))
    lengths = [one.tokenizer.model_max_length for one in encoders]
    if len(set(lengths)) > 1:
        raise InputError(f"{base.path}: its tokenizers read {lengths} tokens, expected as many in each")
    if getattr(pipe.vae.config, "latents_mean", None) is not None:
        raise InputError(
            f"{base.path}/vae/config.json: latents_mean is set; only autoencoders with a scaling_factor alone"
            " are supported"
        )
    for part in (pipe.unet, pipe.vae, *(one.model for one in encoders)):
        part.requires_grad_(False).eval().to(device)
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)
    return Components(
        base=base,
        encoders=tuple(encoders),
        unet=pipe.unet,
        vae=pipe.vae,
        # DDIM's own default clips to [-1, 1], which are no bounds of latents; not every scheduler's config says so
        scheduler=DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False),
        device=torch.device(device),
        zeros_for_empty_prompt=bool(pipe.config.get("force_zeros_for_empty_prompt", False)),
    )


def with_token(components: Components, token: str, count: int = 1) -> Components:
    """The same parts with tokenizers that have one token more; its id comes after all others.

    With a `count` above 1 the token stands for so many, `<new1> <new1>_1 ...`, as the stock
    pipeline expands a token that `load_textual_inversion` gave several vectors.

    Raises InputError where the tokenizer already has the token: training it
    would change what the base model knows by that name.
    """
    names = [token, *(f"{token}_{number}" for number in range(1, count))]
    encoders = []
    for encoder in components.encoders:
        known = encoder.tokenizer.get_vocab()
        if not token.strip() or token in known or f"{token}</w>" in known:
            raise InputError(
                f"modifier token {token!r}: the tokenizer of {components.base.path} already has it;"
                " choose a token that is new, like '<new1>'"
            )
        tokenizer = copy.deepcopy(encoder.tokenizer)
        tokenizer.add_tokens(names)
        ids = tokenizer.convert_tokens_to_ids(names)
        if ids != list(range(ids[0], ids[0] + count)):
            raise InputError(
                f"modifier token {token!r}: the tokenizer of {components.base.path} has one of {names}"
            )
        encoders.append(replace(encoder, tokenizer=tokenizer, token=int(ids[0])))
    return replace(components, encoders=tuple(encoders), tokens=count)


def tokenize(components: Components, prompts: Sequence[str]) -> torch.Tensor:
    """Prompts as (prompts, length) ids, padded as the stock pipeline pads them.

    Of a base model with two text encoders, the ids for the second follow those for the first in
    a row, which then is twice as long: the two pad with different tokens.

    Raises InputError for a prompt that is longer than the text encoders read:
    what is cut off may be the very thing that is asked for.
    """
    found = []
    for encoder in components.encoders:
        length = encoder.tokenizer.model_max_length
        expanded = [_expanded(encoder, components.tokens, prompt) for prompt in prompts]
        encoded = encoder.tokenizer(expanded, padding="max_length", max_length=length).input_ids
        for prompt, ids in zip(prompts, encoded, strict=True):
            if len(ids) > length:
                raise InputError(
                    f"prompt {prompt!r}: {len(ids)} tokens, the base model reads {length}; shorten it"
                )
        found.append(torch.tensor(encoded, device=components.device))
    return torch.cat(found, dim=1)


def tokenize_captions(components: Components, captions: Sequence[str]) -> torch.Tensor:
    """Captions as ids, as `tokenize` gives them; one that is longer than the text encoders read is cut off there.

    Unlike a prompt, a caption that was found asks for nothing that could be lost.
    """
    found = []
    for encoder in components.encoders:
        length = encoder.tokenizer.model_max_length
        encoded = encoder.tokenizer(list(captions), padding="max_length", max_length=length, truncation=True)
        found.append(torch.tensor(encoded.input_ids, device=components.device))
    return torch.cat(found, dim=1)


def has_token(components: Components, ids: torch.Tensor) -> torch.Tensor:
    """Which rows of ids, as `tokenize` gives them, have the modifier token: (prompts,) bool."""
    found = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    pieces = ids.chunk(len(components.encoders), dim=1)
    for encoder, own in zip(components.encoders, pieces, strict=True):
        if encoder.token is not None:
            found |= (own >= encoder.token).any(dim=1)
    return found


def _expanded(encoder: TextEncoder, tokens: int, prompt: str) -> str:
    """The prompt with each modifier token followed by the further ones that it stands for."""
    if encoder.token is None or tokens == 1:
        return prompt
    ids = range(encoder.token, encoder.token + tokens)
    names = encoder.tokenizer.convert_ids_to_tokens(list(ids))
    return prompt.replace(names[0], " ".join(names))


def encode_text(components: Components, ids: torch.Tensor) -> PromptEmbeds:
    """Ids as `tokenize` gives them to what the UNet is told.

    Where it takes a pooled embedding, states are the penultimate ones of all text encoders side
    by side, and the embedding is the last encoder's, as the stock SDXL pipeline has them.
    """
    if not components.pooled:
        return PromptEmbeds(components.text_encoder(ids).last_hidden_state)
    pieces = ids.chunk(len(components.encoders), dim=1)
    outputs = [
        encoder.model(own, output_hidden_states=True)
        for encoder, own in zip(components.encoders, pieces, strict=True)
    ]
    return PromptEmbeds(
        torch.cat([one.hidden_states[-2] for one in outputs], dim=-1), outputs[-1].text_embeds
    )


@torch.no_grad()
def empty_prompt_embeds(components: Components, count: int) -> PromptEmbeds:
    """What the UNet is told where nothing is asked for, for a number of rows."""
    empty = encode_text(components, tokenize(components, [""]))
    return (empty.map(torch.zeros_like) if components.zeros_for_empty_prompt else empty).expand(count)


def predict(
    components: Components,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    text: PromptEmbeds,
    sizes: torch.Tensor | None = None,
) -> torch.Tensor:
    """The UNet's prediction for noisy latents, shaped as they are.

    sizes: (rows, 6), see `micro_conditioning`, for a UNet that takes them; None for whole images of
    the base model's resolution, which is what the stock pipeline asks for.
    """
    added = None
    if components.pooled:
        side = components.base.resolution
        if sizes is None:
            sizes = torch.tensor([micro_conditioning(side, side, side)]).expand(len(noisy), -1)
        added = {"text_embeds": text.pooled, "time_ids": sizes.to(noisy)}
    predicted: torch.Tensor = components.unet(noisy, timesteps, text.states, added_cond_kwargs=added).sample
    return predicted
