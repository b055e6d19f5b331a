"""Sampling with classifier-free guidance, with the schedulers of diffusers.

The stock pipeline samples images of one model; here each image of a batch may belong to another model (see
`stacked_layers`). The unconditional and the conditional row of an image are neighbours in the batch, so that both
meet the weights of its model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from attrib_core.common.errors import InputError
from attrib_core.diffusion.pipeline.components import Components, predict
from attrib_core.diffusion.pipeline.latents import decode_latents
from attrib_core.diffusion.pipeline.prompt_encoding import PromptEmbeds, interleave

LARGEST_ETA = 1 - 1e-6
"""With eta 1 and a timestep of zero signal, the stock scheduler takes the root of 0, or by rounding of less, which
is NaN."""


def initial_noise(components: Components, seeds: Sequence[int]) -> torch.Tensor:
    """Draw standard normal latents, (seeds, channels, height, width), from one generator per seed."""
    drawn = [
        np.random.default_rng(seed).standard_normal(components.latent_shape, dtype=np.float32)
        for seed in seeds
    ]
    return torch.from_numpy(np.stack(drawn)).to(components.device)


def step_noise(components: Components, seeds: Sequence[int], step: int) -> torch.Tensor:
    """Draw the standard normal noise of a step, shaped as the latents, by seed and number of the step."""
    drawn = [
        np.random.default_rng([seed, 1 + step]).standard_normal(components.latent_shape, dtype=np.float32)
        for seed in seeds
    ]
    return torch.from_numpy(np.stack(drawn)).to(components.device)


@torch.no_grad()
def sample(
    components: Components,
    conditional: PromptEmbeds,
    unconditional: PromptEmbeds,
    noise: torch.Tensor,
    *,
    steps: int,
    guidance: float,
    eta: float = 0.0,
    seeds: Sequence[int] = (),
    solver: str = "ddim",
) -> np.ndarray:
    """Sample images from initial noise; (n, side, side, 3) uint8.

    conditional, unconditional: embeddings of n prompts. noise: (n, channels, height, width). The guided prediction
    is the unconditional one plus `guidance` times the difference of the two. With `eta` above 0 each DDIM step adds
    noise, drawn by the `seeds` of the images. `solver` is "ddim" or "dpm++", the DPM-Solver++ (Lu et al., 2022) of
    second order of diffusers, which adds no noise.
    """
    if eta > 0 and len(seeds) != len(noise):
        raise ValueError(f"eta {eta}: {len(seeds)} seeds for {len(noise)} images")
    eta = min(eta, LARGEST_ETA)
    scheduler = _scheduler(components, solver, eta)
    options = {"eta": eta} if solver == "ddim" else {}
    scheduler.set_timesteps(steps, device=components.device)
    context = interleave(unconditional, conditional)
    latents = noise * scheduler.init_noise_sigma
    for number, timestep in enumerate(scheduler.timesteps):
        rows = latents.repeat_interleave(2, dim=0).contiguous(memory_format=torch.channels_last)
        predicted = predict(components, rows, timestep, context)
        without, with_prompt = predicted.unflatten(0, (-1, 2)).unbind(1)
        added = step_noise(components, seeds, number) if eta > 0 else None
        latents = scheduler.step(
            without + guidance * (with_prompt - without), timestep, latents, variance_noise=added, **options
        ).prev_sample
    return decode_latents(components, latents)


def _scheduler(
    components: Components, solver: str, eta: float
) -> DDIMScheduler | DPMSolverMultistepScheduler:
    """Return the scheduler of a solver, on the base model's own noise schedule."""
    if solver == "ddim":
        return components.scheduler
    if solver != "dpm++":
        raise InputError(f"synthesis.solver: {solver!r}, choose 'ddim' or 'dpm++'")
    if eta > 0:
        raise InputError(
            f"synthesis.eta: {eta}, but solver 'dpm++' adds no noise; set eta to 0 or solver to 'ddim'"
        )
    return DPMSolverMultistepScheduler.from_config(
        components.scheduler.config, algorithm_type="dpmsolver++", solver_order=2
    )
