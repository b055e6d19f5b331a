"""The networks of Stable Diffusion v1.4 and SDXL, with random weights, only in memory."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor2_0
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

MERGES = 49152 - 256 - 2  # of the file's lines, those that OpenAI's CLIP uses
START, END = "<|startoftext|>", "<|endoftext|>"
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
}  # fmt: skip
XL_BLOCKS = (1, 2, 10)  # transformer blocks of a layer, level by level


def unet(side: int = 64) -> UNet2DConditionModel:
    """The UNet for latents of a side, which affects no weight; 64 is 512 pixels."""
    return UNet2DConditionModel(
        sample_size=side, in_channels=4, out_channels=4, layers_per_block=2,
        block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8,
    )  # fmt: skip


def unet_xl(side: int = 128, blocks: tuple[int, ...] = XL_BLOCKS) -> UNet2DConditionModel:
    """SDXL's UNet for latents of a side, with a number of transformer blocks per layer at each level."""
    return UNet2DConditionModel(
        sample_size=side, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=list(blocks), attention_head_dim=[5, 10, 20], use_linear_projection=True,
        cross_attention_dim=2048, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )  # fmt: skip


def pipeline_xl(folder: Path, side: int, blocks: tuple[int, ...], layers: int) -> StableDiffusionXLPipeline:
    """The complete pipeline, seeded, with `layers` instead of 12 and 32 in the text encoders."""
    torch.manual_seed(0)
    both: dict[str, Any] = {"vocab_size": 49408, "max_position_embeddings": 77, "num_hidden_layers": layers}
    first = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_attention_heads=12, hidden_act="quick_gelu",
        projection_dim=768, **both,
    )  # fmt: skip
    second = CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_attention_heads=20, hidden_act="gelu",
        projection_dim=1280, eos_token_id=2, **both,
    )  # fmt: skip
    network = unet_xl(side, blocks)
    network.set_attn_processor(AttnProcessor2_0())
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL(sample_size=side * 8, scaling_factor=0.13025, **VAE), unet=network,
        text_encoder=CLIPTextModel(first), text_encoder_2=CLIPTextModelWithProjection(second),
        tokenizer=tokenizer(folder), tokenizer_2=tokenizer(folder, pad="!"),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
    )  # fmt: skip


def tokenizer(folder: Path, pad: str = END) -> CLIPTokenizer:
    """CLIP's own tokenizer, from the merges in the package open_clip."""
    file = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")[1 : MERGES + 1]
    letters = list(_byte_letters())
    words = [
        *letters,
        *(f"{one}</w>" for one in letters),
        *("".join(one.split()) for one in merges),
        START,
        END,
    ]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"),
        unk_token=END, bos_token=START, eos_token=END, pad_token=pad, model_max_length=77,
    )  # fmt: skip


def _byte_letters() -> list[str]:
    """The letter for each byte, in CLIP's order: printable ones first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(256 - len(printable))]


def pipeline(folder: Path, side: int) -> StableDiffusionPipeline:
    """The complete pipeline, seeded."""
    torch.manual_seed(0)
    text = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        vocab_size=49408, max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=768,
    )  # fmt: skip
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True,
    )  # fmt: skip
    network = unet(side)
    network.set_attn_processor(AttnProcessor2_0())
    return StableDiffusionPipeline(
        vae=AutoencoderKL(sample_size=side * 8, **VAE), text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer(folder), unet=network, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
