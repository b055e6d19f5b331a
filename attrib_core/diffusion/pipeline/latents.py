"""Images to latents of a base model's autoencoder, and back."""

from __future__ import annotations

import numpy as np
import torch

from attrib_core.diffusion.pipeline.components import Components

BATCH = 16


@torch.no_grad()
def encode_images(components: Components, images: np.ndarray) -> torch.Tensor:
    """Encode (n, side, side, 3) uint8 images to latents, (n, channels, height, width): the posterior's mode."""
    latents = []
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH]))
        batch = batch.to(components.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents.append(components.vae.encode(batch).latent_dist.mode() * components.vae.config.scaling_factor)
    return torch.cat(latents)


@torch.no_grad()
def decode_latents(components: Components, latents: torch.Tensor) -> np.ndarray:
    """Decode latents to images, (n, side, side, 3) uint8, rounded as in the stock pipeline."""
    images = []
    for batch in latents.split(BATCH):
        decoded = components.vae.decode(batch / components.vae.config.scaling_factor).sample
        values = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float().cpu().numpy()
        images.append((values * 255).round().astype(np.uint8))
    return np.concatenate(images)
