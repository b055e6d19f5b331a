"""Tiny untrained base models of other families: Stable Diffusion 2 and SDXL, configured as the originals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.diffusion.diffusion_fixtures import CAPTIONS, SIDE

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def tokenizer(folder: Path, pad: str | None = None) -> CLIPTokenizer:
    from attrib_core.diffusion.base_recipe.tokenizer import train_tokenizer

    place = folder.with_name(f"{folder.name}-tokenizer")
    if not place.exists():
        train_tokenizer(CAPTIONS, 600, 24, place)
    found: CLIPTokenizer = CLIPTokenizer.from_pretrained(place, **({} if pad is None else {"pad_token": pad}))
    return found


def text_config(words: CLIPTokenizer, width: int, **changes: Any) -> CLIPTextConfig:
    options = {
        "vocab_size": len(words), "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 3,
        "num_attention_heads": 4, "max_position_embeddings": words.model_max_length, "hidden_act": "quick_gelu",
        "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": 1,
        "projection_dim": 24, "initializer_range": 0.3,
    }  # fmt: skip
    return CLIPTextConfig(**(options | changes))


def unet(text_width: int, **changes: Any) -> UNet2DConditionModel:
    options = {
        "sample_size": SIDE // 4, "in_channels": 4, "out_channels": 4, "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "layers_per_block": 1,
        "cross_attention_dim": text_width, "attention_head_dim": [2, 4], "use_linear_projection": True,
        "norm_num_groups": 16,
    }  # fmt: skip
    return UNet2DConditionModel(**(options | changes)).eval()


def save_sd2(folder: Path) -> Path:
    """Like 768-v: v-prediction, and an OpenCLIP text encoder whose config omits the last layer."""
    from attrib_core.diffusion.base_recipe import autoencoder

    torch.manual_seed(0)
    words = tokenizer(folder, pad="!")
    pipe = StableDiffusionPipeline(
        vae=autoencoder.build([16, 16, 16], 4, SIDE), unet=unet(40, upcast_attention=True), tokenizer=words,
        text_encoder=CLIPTextModel(text_config(words, 40, hidden_act="gelu")).eval(),
        scheduler=PNDMScheduler(prediction_type="v_prediction", skip_prk_steps=True, **NOISE),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder)
    return folder


def save_xl(folder: Path, **changes: Any) -> Path:
    """Like SDXL base 1.0: the second tokenizer pads with "!", and its encoder's config has the end token 2."""
    from attrib_core.diffusion.base_recipe import autoencoder

    torch.manual_seed(0)
    first, second = tokenizer(folder), tokenizer(folder, pad="!")
    network = unet(
        24 + 40, transformer_layers_per_block=[1, 2], addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8, **changes,
    )  # fmt: skip
    pipe = StableDiffusionXLPipeline(
        vae=autoencoder.build([16, 16, 16], 4, SIDE), unet=network, tokenizer=first, tokenizer_2=second,
        text_encoder=CLIPTextModel(text_config(first, 24)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(
            text_config(second, 40, hidden_act="gelu", eos_token_id=2)
        ).eval(),
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", **NOISE), add_watermarker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder)
    return folder
