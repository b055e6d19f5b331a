"""Compression of deltas to LoRA files: read by stock diffusers, equal to the delta at full rank."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from attrib_core.common.errors import InputError
from attrib_core.diffusion.deltas import svd_compression
from attrib_core.diffusion.deltas.delta_files import Delta
from tests.diffusion.diffusion_fixtures import stock_pipeline


def delta(state: dict[str, torch.Tensor], rank: int) -> Delta:
    """Differences of a known rank to the keys and values."""
    generator = torch.Generator().manual_seed(1)
    weights = {
        key: value
        + torch.randn(len(value), rank, generator=generator)
        @ torch.randn(rank, value.shape[1], generator=generator)
        for key, value in state.items()
        if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }
    return Delta(weights, torch.zeros(32))


def test_factors_multiply_to_the_difference(tiny_base: Path) -> None:
    base = stock_pipeline(tiny_base).unet.state_dict()
    change = delta(base, rank=3)
    for rank, exact in ((3, True), (99, True), (2, False)):
        found = svd_compression.compress(change, base, rank)
        assert len(found) == 2 * len(change.weights)
        for key, weight in change.weights.items():
            name = f"unet.{key.removesuffix('.weight')}"
            product = found[f"{name}.lora_B.weight"] @ found[f"{name}.lora_A.weight"]
            assert torch.allclose(product, weight - base[key], atol=1e-4) == exact


def test_stock_diffusers_opens_the_file(tiny_base: Path, tmp_path: Path) -> None:
    pipe = stock_pipeline(tiny_base)
    change = delta(pipe.unet.state_dict(), rank=2)
    path = tmp_path / "one.safetensors"
    save_file(svd_compression.compress(change, pipe.unet.state_dict(), rank=32), path)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    words = torch.randn(1, 24, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        untouched = pipe.unet(noise, 500, words).sample
        pipe.load_lora_weights(path)
        shown = pipe.unet(noise, 500, words).sample
        other = stock_pipeline(tiny_base)
        other.unet.load_state_dict(change.weights, strict=False)
        expected = other.unet(noise, 500, words).sample
    torch.testing.assert_close(shown, expected, rtol=1e-4, atol=1e-4)
    assert (shown - untouched).abs().max() > 0.01


def test_wrong_values(tiny_base: Path) -> None:
    base = stock_pipeline(tiny_base).unet.state_dict()
    with pytest.raises(InputError, match="rank 0: expected 1 or more"):
        svd_compression.compress(delta(base, 1), base, 0)
    with pytest.raises(InputError, match="delta key 'x.weight': the base model's UNet has no such weight"):
        svd_compression.compress(Delta({"x.weight": torch.zeros(1, 1)}, torch.zeros(1)), base, 1)
