"""Training of the bundled denoiser and text encoder.

It uses v-prediction with zero terminal signal-to-noise ratio (Lin et al. 2024, "Common diffusion noise schedules and
sample steps are flawed"): with Stable Diffusion's own schedule a model of this size ignores its prompt. The shipped
weights are an exponential moving average.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from attrib_core.diffusion.base_recipe import checkpoints
from attrib_core.diffusion.base_recipe.corpus import Item, draw_caption


def build_unet(
    channels: Sequence[int], latent_channels: int, size: int, text_width: int
) -> UNet2DConditionModel:
    """Build an untrained UNet, with attention from the second level on, where there are 64 positions."""
    levels = len(channels)
    down = ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (levels - 1)
    up = ("CrossAttnUpBlock2D",) * (levels - 1) + ("UpBlock2D",)
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=tuple(channels),
        down_block_types=down,
        up_block_types=up,
        layers_per_block=1,
        cross_attention_dim=text_width,
        # diffusers reads this as the number of heads
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer, width: int, layers: int) -> CLIPTextModel:
    """Build an untrained CLIP text encoder for a tokenizer."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_scheduler() -> DDIMScheduler:
    """Build the noise schedule of training and sampling."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


class MovingAverage:
    """An exponential moving average of parameters, with a warm-up of its decay."""

    def __init__(self, modules: dict[str, torch.nn.Module], decay: float) -> None:
        self.decay = decay
        self.values = {
            name: {key: value.detach().clone() for key, value in module.state_dict().items()}
            for name, module in modules.items()
        }

    @torch.no_grad()
    def update(self, modules: dict[str, torch.nn.Module], step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, module in modules.items():
            for key, value in module.state_dict().items():
                mean = self.values[name][key]
                if value.is_floating_point():
                    mean.lerp_(value, 1 - decay)
                else:
                    mean.copy_(value)


def train(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    latents: np.ndarray,
    items: Sequence[Item],
    weights: np.ndarray,
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    dropout: float,
    decay: float,
    bfloat16: bool,
    seed: int,
    checkpoint: Path,
    save_every: int,
) -> Iterator[dict[str, Any]]:
    """Train to `steps`, resuming from the checkpoint; yields a row of the loss curve every 20 steps.

    latents: (items, channels, height, width) float16, scaled to unit deviation. weights: (items,), relative sampling
    weights. Captions are drawn at each step and dropped with probability `dropout`, for classifier-free guidance. The
    batch and noise of a step depend only on (seed, step), so a resumed run repeats them.
    """
    scheduler = build_scheduler()
    modules: dict[str, torch.nn.Module] = {"unet": unet, "text_encoder": text_encoder}
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    average = MovingAverage(modules, decay)
    state = checkpoints.load(checkpoint)
    step, seconds = 0, 0.0
    if state is not None:
        for name, module in modules.items():
            module.load_state_dict(state[name])
        optimizer.load_state_dict(state["optimizer"])
        average.values = state["average"]
        step, seconds = state["step"], state["seconds"]
    unet.train()
    text_encoder.train()

    @functools.lru_cache(maxsize=200_000)
    def ids(caption: str) -> tuple[int, ...]:
        encoded = tokenizer(
            caption, padding="max_length", truncation=True, max_length=tokenizer.model_max_length
        )
        return tuple(encoded.input_ids)

    cumulative = np.cumsum(weights / weights.sum())
    began = time.monotonic() - seconds
    losses: list[float] = []
    while step < steps:
        rng = np.random.default_rng([seed, step])
        torch.manual_seed(seed * 1_000_003 + step)
        chosen = np.minimum(np.searchsorted(cumulative, rng.uniform(size=batch)), len(items) - 1)
        captions = ["" if rng.uniform() < dropout else draw_caption(items[i], rng) for i in chosen]
        clean = torch.from_numpy(latents[chosen].astype(np.float32))
        noise = torch.randn_like(clean)
        # stratified over the batch: the same expectation with less variance
        positions = (torch.arange(batch) + torch.rand(batch)) / batch
        timesteps = (positions[torch.randperm(batch)] * scheduler.config.num_train_timesteps).long()
        noisy = scheduler.add_noise(clean, noise, timesteps)
        target = scheduler.get_velocity(clean, noise, timesteps)
        for group in optimizer.param_groups:
            group["lr"] = checkpoints.learning_rate_at(step, steps, learning_rate, 200)
        # on the CPU the backward pass of the fused attention kernel took a third of the step
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            context = text_encoder(torch.tensor([ids(caption) for caption in captions])).last_hidden_state
            predicted = unet(noisy, timesteps, context).sample
        loss = (predicted.float() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        average.update(modules, step)
        losses.append(float(loss.detach()))
        if step % 20 == 0 or step == steps:
            seconds = time.monotonic() - began
            yield {"step": step, "loss": float(np.mean(losses)), "seconds": seconds}
            losses = []
        if step % save_every == 0 or step == steps:
            checkpoints.save(
                checkpoint,
                {name: module.state_dict() for name, module in modules.items()}
                | {
                    "optimizer": optimizer.state_dict(),
                    "average": average.values,
                    "step": step,
                    "seconds": seconds,
                },
            )
