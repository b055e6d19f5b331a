"""Training of the bundled autoencoder: a small stock `AutoencoderKL`, 64 px to 16 x 16 x 8.

Two settings make it learn in minutes. All normalisations have one group: with more, each group loses its own mean,
and with it flat colours. And training begins on crops: the network is convolutional, and small images allow more steps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL

from attrib_core.diffusion.base_recipe import checkpoints


def build(channels: list[int], latent_channels: int, size: int) -> AutoencoderKL:
    """Build an untrained autoencoder, which downsamples by 2 ** (levels - 1)."""
    levels = len(channels)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(channels),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=1,
        sample_size=size,
        mid_block_add_attention=False,
    )


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """Convert (n, size, size, 3) uint8 to (n, 3, size, size) float32 in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def psnr(model: AutoencoderKL, images: np.ndarray) -> float:
    """Compute the mean peak signal-to-noise ratio of the reconstructions, in dB."""
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(images), 64):
            target = to_tensor(images[start : start + 64])
            shown = model.decode(model.encode(target).latent_dist.mode()).sample.clamp(-1, 1)
            error = ((shown - target) / 2).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
            total += float((-10 * torch.log10(error)).sum())
    return total / len(images)


def train(
    model: AutoencoderKL,
    images: np.ndarray,
    *,
    steps: int,
    batch: int,
    crop: int,
    crop_share: float,
    learning_rate: float,
    kl_weight: float,
    decoder_only: bool,
    seed: int,
    checkpoint: Path,
) -> Iterator[dict[str, Any]]:
    """Train to `steps`, resuming from the checkpoint; yields a row of the loss curve every 50 steps.

    For the first `crop_share` of the steps the batches are crops of `crop` pixels, more of them as they are smaller,
    then full images. With `decoder_only` the encoder, and with it every latent, does not change.
    """
    if decoder_only:
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    state = checkpoints.load(checkpoint)
    step, seconds = 0, 0.0
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds = state["step"], state["seconds"]
    size = images.shape[1]
    began = time.monotonic() - seconds
    while step < steps:
        rng = np.random.default_rng([seed, step])
        torch.manual_seed(seed * 1_000_003 + step)
        if step < crop_share * steps:
            y, x = rng.integers(0, (size - crop) // 4 + 1, 2) * 4
            chosen = rng.integers(0, len(images), batch * (size // crop) ** 2 // 2)
            target = to_tensor(images[chosen, y : y + crop, x : x + crop])
        else:
            target = to_tensor(images[rng.integers(0, len(images), batch)])
        posterior = model.encode(target).latent_dist
        shown = model.decode(posterior.sample()).sample
        loss = (shown - target).abs().mean() + (shown - target).square().mean()
        loss = loss + kl_weight * posterior.kl().mean() / target[0].numel()
        for group in optimizer.param_groups:
            group["lr"] = checkpoints.learning_rate_at(step, steps, learning_rate, 50)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0 or step == steps:
            seconds = time.monotonic() - began
            yield {"step": step, "loss": float(loss.detach()), "seconds": seconds}
        if step % 500 == 0 or step == steps:
            checkpoints.save(
                checkpoint,
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                    "seconds": seconds,
                },
            )
