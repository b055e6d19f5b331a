"""LoRA files as other programs write them, and what stock diffusers makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.diffusion.diffusion_fixtures import stock_pipeline

CROSS = ("attn2.to_k", "attn2.to_v")
ATTENTION = tuple(
    f"{kind}.{one}" for kind in ("attn1", "attn2") for one in ("to_q", "to_k", "to_v", "to_out.0")
)
EVERY = (
    *ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2", "conv_in", "conv_out",
    "conv_shortcut", "time_emb_proj", "time_embedding.linear_1", "time_embedding.linear_2", "samplers.0.conv",
)  # fmt: skip
"""Ends of the names of all layers that a LoRA may change."""
Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]


def factors(state: Mapping[str, torch.Tensor], ends: tuple[str, ...], ranks: Iterable[int] = (3,)) -> Factors:
    """Random factors A and B by the names of layers; the ranks take turns."""
    generator, turns, found = torch.Generator().manual_seed(5), list(ranks), {}
    for number, (key, value) in enumerate(
        (key, value) for key, value in state.items() if key.endswith(tuple(f"{end}.weight" for end in ends))
    ):
        rank, ones = turns[number % len(turns)], [1] * (value.ndim - 2)
        found[key.removesuffix(".weight")] = (
            0.1 * torch.randn(rank, *value.shape[1:], generator=generator),
            0.1 * torch.randn(len(value), rank, *ones, generator=generator),
        )
    return found


def kohya(layer: str, part: str) -> str:
    end = {"A": "lora_down.weight", "B": "lora_up.weight", "alpha": "alpha"}[part]
    return f"lora_unet_{layer.replace('.', '_')}.{end}"


def peft(layer: str, part: str) -> str:
    return f"base_model.model.{layer}.lora_{part}.weight"


def diffusers(layer: str, part: str) -> str:
    return f"unet.{layer}.lora_{part}.weight"


def adapter(layer: str, part: str) -> str:
    return f"{layer}.lora_{part}.weight"


def older(layer: str, part: str) -> str:
    return f"unet.{layer}.lora.{ {'A': 'down', 'B': 'up'}[part] }.weight"


def oldest(layer: str, part: str) -> str:
    """As attention processors had them; only attention."""
    layer = layer.replace("attn1.", "attn1.processor.").replace("attn2.", "attn2.processor.")
    return f"unet.{layer.removesuffix('.0')}_lora.{ {'A': 'down', 'B': 'up'}[part] }.weight"


def oldest_without_prefix(layer: str, part: str) -> str:
    return oldest(layer, part).removeprefix("unet.")


Name = Callable[[str, str], str]


def written(
    path: Path,
    name: Name,
    given: Factors,
    alphas: Mapping[str, float] | None = None,
    config: Mapping[str, Any] | None = None,
    prefix: str = "unet.",
) -> Path:
    """Write factors under a layout's names; alphas as tensors by layer, a configuration as diffusers' metadata."""
    stored = {
        name(layer, part): one for layer, pair in given.items() for part, one in zip("AB", pair, strict=True)
    }
    stored |= {name(layer, "alpha"): torch.tensor(alpha) for layer, alpha in (alphas or {}).items()}
    metadata = {"format": "pt"}
    if config is not None:
        metadata["lora_adapter_metadata"] = json.dumps(
            {f"{prefix}{key}": value for key, value in config.items()}
        )
    save_file(stored, path, metadata=metadata)
    return path


class Stock:
    """A stock pipeline that loads one LoRA after the other; `state` has the base model's weights."""

    def __init__(self, folder: Path, pipe: Any = None) -> None:
        self.pipe = stock_pipeline(folder) if pipe is None else pipe
        self.state = {key: value.clone() for key, value in self.pipe.unet.state_dict().items()}

    def merged(self, path: Path, prefix: str | None = "unet") -> dict[str, torch.Tensor]:
        """The UNet's weights with a LoRA merged: by `load_lora_weights`, or for other prefixes the UNet's own call."""
        if prefix == "unet":
            self.pipe.load_lora_weights(path)
        else:
            # without `use_safetensors` diffusers takes another way to the file, and loses its metadata
            self.pipe.unet.load_lora_adapter(path, prefix=prefix, use_safetensors=True)
        self.pipe.fuse_lora()
        self.pipe.unload_lora_weights()
        found = {key: value.clone() for key, value in self.pipe.unet.state_dict().items()}
        self.pipe.unet.load_state_dict(self.state)
        return found
