"""A folder with the headers of Stable Diffusion v1.4, without its weights."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from attrib_core.config.planning.safetensors_headers import Shape

CHANNELS = [320] * 5 + [640] * 5 + [1280] * 6
"""Channels of the 16 cross-attention layers: two in each down block, one in the middle, three in each up block."""


def header_only(path: Path, tensors: dict[str, Shape]) -> None:
    """Write a safetensors file that ends after its header."""
    entries, offset = {}, 0
    for key, shape in tensors.items():
        end = offset + 4 * math.prod(shape)
        entries[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    content = json.dumps(entries).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(content)) + content)


def stable_diffusion(folder: Path) -> Path:
    """Write headers with the cross-attention's keys and values, and the JSON files that a plan reads."""
    keys_and_values = {
        f"blocks.{number}.attn2.{part}.weight": (channels, 768)
        for number, channels in enumerate(CHANNELS)
        for part in ("to_k", "to_v")
    }
    header_only(folder / "unet" / "diffusion_pytorch_model.safetensors", keys_and_values | {"other": (5, 5)})
    header_only(folder / "vae" / "diffusion_pytorch_model.safetensors", {})
    header_only(folder / "text_encoder" / "model.safetensors", {})
    for name, values in {
        "model_index.json": {"_class_name": "StableDiffusionPipeline"},
        "unet/config.json": {"sample_size": 64},
        "vae/config.json": {"block_out_channels": [128, 256, 512, 512]},
        "text_encoder/config.json": {"hidden_size": 768},
    }.items():
        (folder / name).write_text(json.dumps(values))
    return folder
