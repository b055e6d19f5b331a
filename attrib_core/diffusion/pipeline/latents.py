"""Images as the latents of a base model's autoencoder, and back."""

from __future__ import annotations

import numpy as np
import torch

from attrib_core.diffusion.pipeline.components import Components

IMAGES_AT_ONCE = 16


@torch.no_grad()
def encode_images(components: Components, images: np.ndarray) -> torch.Tensor:
    """(n, side, side, 3) uint8 to latents, (n, channels, height, width), the posterior's mode."""
    parts = []
    for start in range(0, len(images), IMAGES_AT_ONCE):
        part = torch.from_numpy(np.ascontiguousarray(images[start : start + IMAGES_AT_ONCE]))
        part = part.to(components.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        parts.append(components.vae.encode(part).latent_dist.mode() * components.vae.config.scaling_factor)
    return torch.cat(parts)


@torch.no_grad()
def decode_latents(components: Components, latents: torch.Tensor) -> np.ndarray:
    """Latents to images, (n, side, side, 3) uint8, rounded as the stock pipeline rounds."""
    parts = []
    for part in latents.split(IMAGES_AT_ONCE):
        decoded = components.vae.decode(part / components.vae.config.scaling_factor).sample
        shown = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float().cpu().numpy()
        parts.append((shown * 255).round().astype(np.uint8))
    return np.concatenate(parts)
