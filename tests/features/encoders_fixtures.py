"""Tiny networks, saved by their own libraries, and options that make each family of encoders small."""

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
    """Save a tiny timm network with random weights, as its users do."""
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
    """Register a tiny open_clip model as TINY_CLIP and save its random weights once."""
    import open_clip
    import torch

    config = folder / f"{TINY_CLIP}.json"
    tower = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32}
    text = {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config.write_text(json.dumps({"embed_dim": 24, "vision_cfg": tower, "text_cfg": text}))
    open_clip.add_model_config(config)
    path = folder / "open_clip.pt"
    if not path.exists():
        torch.manual_seed(1)
        torch.save(open_clip.create_model(TINY_CLIP, load_weights=False).state_dict(), path)
    return path


def tiny_transformers(folder: Path, kind: str = "vit") -> Path:
    """Save a tiny transformers model with its image processor once."""
    import torch
    import transformers as library

    path = folder / f"transformers-{kind}"
    if path.exists():
        return path
    square = {"height": 32, "width": 32}
    crop = {"size": {"shortest_edge": 40}, "crop_size": square}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text |= {"max_position_embeddings": 12, "vocab_size": 2196, "projection_dim": 16}
    text |= {"bos_token_id": 2194, "eos_token_id": 2195, "pad_token_id": 2195}
    parts: dict[str, tuple[str, Any, Any]] = {
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
            library.CLIPImageProcessor(**crop),
        ),
        "siglip": (
            "SiglipModel",
            library.SiglipConfig(vision_config=VISION, text_config=text),
            library.SiglipImageProcessor(size=square),
        ),
        "dinov2": ("Dinov2Model", library.Dinov2Config(**VISION), library.BitImageProcessor(**crop)),
        "dinov2_with_registers": (
            "Dinov2WithRegistersModel",
            library.Dinov2WithRegistersConfig(**VISION),
            library.BitImageProcessor(**crop),
        ),
        "dinov3_vit": (
            "DINOv3ViTModel",
            library.DINOv3ViTConfig(**VISION),
            library.DINOv3ViTImageProcessor(size=square),
        ),
    }
    name, config, processor = parts[kind]
    torch.manual_seed(2)
    getattr(library, name)(config).save_pretrained(path)
    processor.save_pretrained(path)
    if kind in ("clip", "siglip"):
        for file in (bundled.FOLDER / "tokenizer").iterdir():
            shutil.copy(file, path)
    return path


def tiny_torchscript(folder: Path) -> Path:
    """Save a tiny TorchScript network with two outputs once."""
    import torch

    path = folder / "tiny.torchscript.pt"
    if not path.exists():
        torch.manual_seed(3)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 8, 8), torch.nn.GELU(), torch.nn.Flatten())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(_with_two_outputs(network), torch.zeros(1, 3, 16, 16))
            traced.save(str(path))
    return path


def _with_two_outputs(network: Any) -> Any:
    import torch

    class TwoOutputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = self.network(images)
            return features, 2 * features

    return TwoOutputs()


def small_options(family: str, weights: Path) -> dict[str, Any]:
    """Options that make a family small; none for a family that is not listed here."""
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
        "text": {"base_model": {"family": "bundled"}, "batch": 4},
    }
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
    """Load the encoder of a family with small options, on the CPU."""
    return families.load("encoders", family, small_options(family, weights) | options, device="cpu")


NOUNS = ("owl", "cat", "house", "tree", "boat", "apple", "bread", "train")


def text_for(image: np.ndarray) -> str:
    """A text that depends on the pixels of an image."""
    random = hashing.generator(image.shape, image.tobytes().hex())
    return "a {} and a {} next to a {}".format(*random.choice(NOUNS, 3))


def inputs_for(encoder: Any, images: Iterable[np.ndarray]) -> list[Any]:
    """The inputs of an encoder for images: the images, a text for each, or both."""
    make = {"images": lambda one: one, "text": text_for, "both": lambda one: (one, text_for(one))}
    return [make[encoder_protocol.input_kind(encoder)](image) for image in images]
