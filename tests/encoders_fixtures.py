"""A tiny network with weights on disk, and options that make every family of encoders small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrib_core import families

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
    }
    return known.get(family, {})


def load_small(weights: Path, family: str, /, **options: Any) -> Any:
    """The encoder of a family with small options, on the CPU."""
    return families.load("encoders", family, small_options(family, weights) | options, device="cpu")
