"""Tiny networks, saved by their own libraries, and options that make every family of encoders small."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from attrib_core.common import families, hashing
from attrib_core.diffusion.base_models import bundled
from attrib_core.features.embedding import encoder_protocol

ARCHITECTURE = "test_efficientnet"
STAGES = {"stages": [0, 2, 3], "cells": 2, "deviation": True}


def tiny_weights(folder: Path) -> Path:
    """A tiny network of timm with random weights, saved as its users save theirs."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model(ARCHITECTURE, pretrained=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.running_mean.uniform_(-0.1, 0.1)
    path = folder / "tiny.safetensors"
    save_file(network.state_dict(), path)
    return path


TINY_CLIP = "tiny-clip"
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}


def tiny_open_clip(folder: Path) -> Path:
    """A tiny model of open_clip, made known to it under TINY_CLIP, its random weights saved once."""
    import open_clip
    import torch

    described = folder / f"{TINY_CLIP}.json"
    tower = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32}
    text = {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    described.write_text(json.dumps({"embed_dim": 24, "vision_cfg": tower, "text_cfg": text}))
    open_clip.add_model_config(described)
    path = folder / "open_clip.pt"
    if not path.exists():
        torch.manual_seed(1)
        torch.save(open_clip.create_model(TINY_CLIP, load_weights=False).state_dict(), path)
    return path


def tiny_transformers(folder: Path, kind: str = "vit") -> Path:
    """A tiny model of transformers with an image processor, as `save_pretrained` of both writes them."""
    import torch
    import transformers as library

    path = folder / f"transformers-{kind}"
    if path.exists():
        return path
    square = {"height": 32, "width": 32}
    cut = {"size": {"shortest_edge": 40}, "crop_size": square}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text |= {"max_position_embeddings": 12, "vocab_size": 2196, "projection_dim": 16}
    text |= {"bos_token_id": 2194, "eos_token_id": 2195, "pad_token_id": 2195}
    made: dict[str, tuple[str, Any, Any]] = {
        "vit": (
            "ViTForImageClassification",
            library.ViTConfig(**VISION),
            library.ViTImageProcessor(size=square),
        ),
        "clip": (
            "CLIPModel",
            library.CLIPConfig(
                vision_config=VISION | {"projection_dim": 16}, text_config=text, projection_dim=16
            ),
            library.CLIPImageProcessor(**cut),
        ),
        "siglip": (
            "SiglipModel",
            library.SiglipConfig(vision_config=VISION, text_config=text),
            library.SiglipImageProcessor(size=square),
        ),
        "dinov2": ("Dinov2Model", library.Dinov2Config(**VISION), library.BitImageProcessor(**cut)),
        "dinov2_with_registers": (
            "Dinov2WithRegistersModel",
            library.Dinov2WithRegistersConfig(**VISION),
            library.BitImageProcessor(**cut),
        ),
        "dinov3_vit": (
            "DINOv3ViTModel",
            library.DINOv3ViTConfig(**VISION),
            library.DINOv3ViTImageProcessor(size=square),
        ),
    }
    name, config, processor = made[kind]
    torch.manual_seed(2)
    getattr(library, name)(config).save_pretrained(path)
    processor.save_pretrained(path)
    if kind in ("clip", "siglip"):
        for file in (bundled.FOLDER / "tokenizer").iterdir():
            shutil.copy(file, path)
    return path


def tiny_torchscript(folder: Path) -> Path:
    """A tiny network with two outputs, scripted and saved."""
    import torch

    path = folder / "tiny.torchscript.pt"
    if not path.exists():
        torch.manual_seed(3)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 8, 8), torch.nn.GELU(), torch.nn.Flatten())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(_two(network), torch.zeros(1, 3, 16, 16))
            traced.save(str(path))
    return path


def _two(network: Any) -> Any:
    import torch

    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.network(images)
            return found, 2 * found

    return Two()


def small_options(family: str, weights: Path) -> dict[str, Any]:
    """Options that make a family small; none for one that is unknown here."""
    network = {"architecture": ARCHITECTURE, "weights": str(weights), "size": 32, "batch": 4}
    parts = {
        "shape": {"family": "timm", "weight": 2} | network | STAGES,
        "colour": {"family": "palette", "bins": 2},
        "layout": {"family": "pixel", "size": 3, "weight": 0.5},
    }
    known: dict[str, dict[str, Any]] = {
        "pixel": {"size": 4},
        "palette": {"bins": 3},
        "timm": network,
        "fusion": {"parts": parts, "batch": 4},
        "diffusion": {"base_model": {"family": "bundled"}, "layer": "down_blocks.0", "cells": 2, "batch": 4},
    }
    known["text"] = {"base_model": {"family": "bundled"}, "batch": 4}
    if family == "open_clip":
        return {"architecture": TINY_CLIP, "weights": str(tiny_open_clip(weights.parent)), "batch": 4}
    if family == "transformers":
        return {"weights": str(tiny_transformers(weights.parent)), "batch": 4}
    if family == "torchscript":
        path = tiny_torchscript(weights.parent)
        return {
            "weights": str(path),
            "sha256": hashing.file_digest(path),
            "size": 16,
            "output": 0,
            "batch": 4,
        }
    return known.get(family, {})


def load_small(weights: Path, family: str, /, **options: Any) -> Any:
    """The encoder of a family with small options, on the CPU."""
    return families.load("encoders", family, small_options(family, weights) | options, device="cpu")


NOUNS = ("owl", "cat", "house", "tree", "boat", "apple", "bread", "train")


def words_of(image: np.ndarray) -> str:
    """Words for an image, made of its pixels."""
    random = hashing.generator(image.shape, image.tobytes().hex())
    return "a {} and a {} beside a {}".format(*random.choice(NOUNS, 3))


def given(encoder: Any, images: Iterable[np.ndarray]) -> list[Any]:
    """What an encoder is given of images: themselves, their words, or both."""
    kinds = {"images": lambda one: one, "words": words_of, "both": lambda one: (one, words_of(one))}
    return [kinds[encoder_protocol.reads(encoder)](one) for one in images]
