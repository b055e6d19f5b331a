"""Train Custom Diffusion for one exemplar set in one process, as the public trainers do.

Started by `customize.py`. The protocol is that of the trainers of Kumari et al. (CVPR 2023) and of the example of
diffusers, reimplemented from their description, without data loaders and logging: at each step images pass the
autoencoder and all prompts the text encoder; the optimizer has keys, values and the entire token table, of which
all gradients but the new token's are set to zero. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import save_file
from transformers.utils import logging as transformers_logging

from attrib_core.runtime import hardware
from benchmarks.clocks import timed

TOKEN, CATEGORY, SIDE, PRIOR_WEIGHT, CLIP = "<new1>", "bird", 64, 1.0, 1.0


def main() -> None:
    """Load, train, write the delta."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="folder in diffusers layout")
    parser.add_argument("--folder", type=Path, required=True, help="where the delta is written")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--repeats", type=int, required=True)
    parser.add_argument("--clock", required=True)
    parser.add_argument("--exemplars", type=int, required=True, help="exemplar images a step")
    parser.add_argument("--priors", type=int, required=True, help="prior images a step")
    parser.add_argument("--rate", type=float, required=True, help="learning rate")
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()

    pipe = StableDiffusionPipeline.from_pretrained(given.base, safety_checker=None)
    pipe.tokenizer.add_tokens([TOKEN])
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer))
    token = pipe.tokenizer.convert_tokens_to_ids(TOKEN)
    table = pipe.text_encoder.get_input_embeddings().weight
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False)
    trained = {}
    for name, layer in pipe.unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            layer.register_forward_hook(lambda _, __, out: torch.cat([out[:, :1].detach(), out[:, 1:]], 1))
            trained[f"{name}.weight"] = layer.weight.requires_grad_()
    parameters = [*trained.values(), table.requires_grad_()]
    optimizer = torch.optim.AdamW(parameters, given.rate)
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    rows = given.exemplars + given.priors
    images = np.random.default_rng(0).integers(0, 256, (rows, 3, SIDE, SIDE), dtype=np.uint8)
    pixels = torch.from_numpy(images).float() / 127.5 - 1
    prompts = [f"a {TOKEN} {CATEGORY}"] * given.exemplars + [f"a {CATEGORY}"] * given.priors
    length = pipe.tokenizer.model_max_length
    ids = pipe.tokenizer(prompts, padding="max_length", max_length=length, return_tensors="pt").input_ids

    def run(steps: int) -> None:
        for _ in range(steps):
            with torch.no_grad():
                latents = pipe.vae.encode(pixels).latent_dist.sample() * pipe.vae.config.scaling_factor
            noise = torch.randn_like(latents)
            timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (rows,))
            noisy = scheduler.add_noise(latents, noise, timesteps)
            target = scheduler.get_velocity(latents, noise, timesteps)
            states = pipe.text_encoder(ids).last_hidden_state
            errors = (pipe.unet(noisy, timesteps, states).sample - target).square()
            loss = errors[: given.exemplars].mean()
            if given.priors:
                loss = loss + PRIOR_WEIGHT * errors[given.exemplars :].mean()
            loss.backward()
            table.grad[torch.arange(len(table)) != token] = 0
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            optimizer.zero_grad()

    times = timed(run, steps=given.steps, repeats=given.repeats, clock=given.clock)
    delta = {name: weight.detach() for name, weight in trained.items()}
    save_file(delta, given.folder / "published.safetensors")
    save_file({TOKEN: table[token].detach().clone()}, given.folder / "published.token.safetensors")
    print(json.dumps({"times": times, "peak": hardware.peak_memory()}))


if __name__ == "__main__":
    main()
