"""The network of Stable Diffusion v1.4 at its full size, with random weights, in memory alone."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

MERGES = 49152 - 256 - 2  # of the file's lines, those that OpenAI's CLIP uses
START, END = "<|startoftext|>", "<|endoftext|>"


def unet(side: int = 64) -> UNet2DConditionModel:
    """UNet for latents of a side; 64 is 512 pixels. The side is no part of any weight."""
    return UNet2DConditionModel(
        sample_size=side, in_channels=4, out_channels=4, layers_per_block=2,
        block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8,
    )  # fmt: skip


def tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's own, from the list of merges that the package open_clip carries."""
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
        unk_token=END, bos_token=START, eos_token=END, pad_token=END, model_max_length=77,
    )  # fmt: skip


def _byte_letters() -> list[str]:
    """The letter that stands for each byte, in CLIP's order: printable ones first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(256 - len(printable))]


def pipeline(folder: Path, side: int) -> StableDiffusionPipeline:
    """All parts, seeded."""
    torch.manual_seed(0)
    text = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        vocab_size=49408, max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=768,
    )  # fmt: skip
    blocks: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2,
    }  # fmt: skip
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True,
    )  # fmt: skip
    network = unet(side)
    network.set_attn_processor(AttnProcessor2_0())
    return StableDiffusionPipeline(
        vae=AutoencoderKL(latent_channels=4, sample_size=side * 8, **blocks), text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer(folder), unet=network, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
