"""The components of a loaded Stable Diffusion (XL) pipeline: tokenizing, prompt encoding, and the UNet's prediction.

They are float32 and frozen; convolutions are channels-last, which is faster on CPUs and recent GPUs.
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
from transformers import CLIPTextModel, CLIPTokenizer

from attrib_core.common.errors import InputError, reason
from attrib_core.diffusion.pipeline import description, networks
from attrib_core.diffusion.pipeline.cropping import micro_conditioning
from attrib_core.diffusion.pipeline.description import BaseModel
from attrib_core.diffusion.pipeline.prompt_encoding import PromptEmbeds, TextEncoder


@dataclass(frozen=True)
class Components:
    """The components of a base model that customization and synthesis use.

    `encoders` has one text encoder, or the two of SDXL. The scheduler is DDIM with the noise schedule of the folder.
    The modifier token has `tokens` embeddings, with consecutive ids. `zeros_for_empty_prompt`: the unconditional
    embeddings are zeros, as SDXL's are, instead of those of the empty prompt.
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
        """The tokenizer of the first text encoder."""
        return self.encoders[0].tokenizer

    @property
    def text_encoder(self) -> CLIPTextModel:
        """The first text encoder."""
        return self.encoders[0].model

    @property
    def token(self) -> int | None:
        """The id of the modifier token in the first tokenizer, None before `with_token`."""
        return self.encoders[0].token

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of a latent."""
        side = self.unet.config.sample_size
        side = side if isinstance(side, int) else side[0]
        return self.unet.config.in_channels, side, side

    @property
    def table(self) -> torch.Tensor:
        """The table of token embeddings of the first text encoder, (entries, dim)."""
        return self.encoders[0].table

    @property
    def pooled(self) -> bool:
        """Whether the UNet also takes a pooled embedding and micro-conditioning, as SDXL's does."""
        return bool(self.unet.config.addition_embed_type == "text_time")


def load(base: BaseModel, device: str) -> Components:
    """Load the pipeline of a described folder with stock diffusers; only safetensors are read.

    Raises InputError where diffusers cannot load the pipeline that the folder's index names, and where a network
    would not have all of its weights from the files.
    """
    pipeline, omitted = StableDiffusionPipeline, {"safety_checker": None, "requires_safety_checker": False}
    if description.pipeline_class(base.path) == description.XL:
        pipeline, omitted = StableDiffusionXLPipeline, {"add_watermarker": False}
    networks.check_small_parts(base.path)
    parts = {part: networks.load(base.path, part) for part in description.weight_parts(base.path)}
    try:
        with networks.quiet():
            pipe = pipeline.from_pretrained(
                base.path,
                dtype=torch.float32,
                feature_extractor=None,
                local_files_only=True,
                **parts,
                **omitted,
            )
    except MemoryError:
        raise
    except Exception as error:  # of diffusers, and of transformers for the tokenizers
        raise InputError(
            f"{base.path}: diffusers cannot load it as a Stable Diffusion pipeline: {reason(error)}"
        ) from error
    return from_pipeline(pipe, base, device)


def from_pipeline(
    pipe: StableDiffusionPipeline | StableDiffusionXLPipeline, base: BaseModel, device: str
) -> Components:
    """Take the components of a pipeline, frozen, to a device.

    Raises InputError where its tokenizers have different lengths, or its autoencoder normalises latents by means
    and deviations, which is not supported.
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
    for module in (pipe.unet, pipe.vae, *(one.model for one in encoders)):
        module.requires_grad_(False).eval().to(device)
    for module in (pipe.unet, pipe.vae):
        module.to(memory_format=torch.channels_last)
    return Components(
        base=base,
        encoders=tuple(encoders),
        unet=pipe.unet,
        vae=pipe.vae,
        scheduler=networks.scheduler(base.path, pipe.scheduler.config),
        device=torch.device(device),
        zeros_for_empty_prompt=bool(pipe.config.get("force_zeros_for_empty_prompt", False)),
    )


def with_token(components: Components, token: str, count: int = 1) -> Components:
    """Add the modifier token to the tokenizers; its id comes after all others.

    With a `count` above 1 it becomes several tokens, `<new1> <new1>_1 ...`, as in the stock pipeline after
    `load_textual_inversion` with several vectors. Raises InputError where a tokenizer already has the token:
    training it would change a word that the base model knows.
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
    """Tokenize prompts to ids, (prompts, length), padded as in the stock pipeline.

    With two text encoders, which pad with different tokens, a row has the ids for the first and then those for the
    second. Raises InputError for a prompt that is longer than the text encoders' context: what truncation removes
    may be the modifier token itself.
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
    """Tokenize captions as `tokenize` does, but truncate long ones: captions of found images need not be complete."""
    found = []
    for encoder in components.encoders:
        length = encoder.tokenizer.model_max_length
        encoded = encoder.tokenizer(list(captions), padding="max_length", max_length=length, truncation=True)
        found.append(torch.tensor(encoded.input_ids, device=components.device))
    return torch.cat(found, dim=1)


def has_token(components: Components, ids: torch.Tensor) -> torch.Tensor:
    """Find the rows of tokenized prompts that have the modifier token: (prompts,) bool."""
    found = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    per_encoder = ids.chunk(len(components.encoders), dim=1)
    for encoder, own in zip(components.encoders, per_encoder, strict=True):
        if encoder.token is not None:
            found |= (own >= encoder.token).any(dim=1)
    return found


def _expanded(encoder: TextEncoder, tokens: int, prompt: str) -> str:
    """Expand each modifier token in a prompt to all of its tokens."""
    if encoder.token is None or tokens == 1:
        return prompt
    ids = range(encoder.token, encoder.token + tokens)
    names = encoder.tokenizer.convert_ids_to_tokens(list(ids))
    return prompt.replace(names[0], " ".join(names))


def encode_text(components: Components, ids: torch.Tensor) -> PromptEmbeds:
    """Encode tokenized prompts to the embeddings that condition the UNet.

    With a pooled embedding, the states are the concatenated penultimate ones of all text encoders, and the pooled
    embedding is the last encoder's, as in the stock SDXL pipeline.
    """
    if not components.pooled:
        return PromptEmbeds(components.text_encoder(ids).last_hidden_state)
    per_encoder = ids.chunk(len(components.encoders), dim=1)
    outputs = [
        encoder.model(own, output_hidden_states=True)
        for encoder, own in zip(components.encoders, per_encoder, strict=True)
    ]
    return PromptEmbeds(
        torch.cat([one.hidden_states[-2] for one in outputs], dim=-1), outputs[-1].text_embeds
    )


@torch.no_grad()
def empty_prompt_embeds(components: Components, count: int) -> PromptEmbeds:
    """Return the unconditional embeddings of classifier-free guidance, for `count` rows."""
    empty = encode_text(components, tokenize(components, [""]))
    return (empty.map(torch.zeros_like) if components.zeros_for_empty_prompt else empty).expand(count)


def predict(
    components: Components,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    prompt_embeds: PromptEmbeds,
    sizes: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the UNet's prediction for noisy latents, in their shape.

    sizes: (rows, 6), see `micro_conditioning`, used where the UNet takes them; None for uncropped images of the
    base model's resolution, as in the stock pipeline.
    """
    added = None
    if components.pooled:
        side = components.base.resolution
        if sizes is None:
            sizes = torch.tensor([micro_conditioning(side, side, side)]).expand(len(noisy), -1)
        added = {"text_embeds": prompt_embeds.pooled, "time_ids": sizes.to(noisy)}
    predicted: torch.Tensor = components.unet(
        noisy, timesteps, prompt_embeds.states, added_cond_kwargs=added
    ).sample
    return predicted
