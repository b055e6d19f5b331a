"""A plain implementation of customizing one set: hooks on a stock UNet, torch's own clipping and AdamW."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from attrib_core.diffusion.customization import training_loop
from attrib_core.diffusion.customization.method import Customizer
from attrib_core.diffusion.customization.training_data import EncodedSet
from attrib_core.diffusion.pipeline.components import Components

Prepared = dict[str, torch.nn.Parameter]


def keys_and_values(unet: Any, ends: tuple[str, ...] = ("attn2.to_k", "attn2.to_v")) -> Prepared:
    """Prepare the weights of Custom Diffusion, by state-dict key, with the first token of keys and values detached."""
    trained = {}
    for name, layer in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            layer.register_forward_hook(lambda _, __, out: torch.cat([out[:, :1].detach(), out[:, 1:]], 1))
        if name.endswith(ends):
            trained |= {
                f"{name}.{part}": one.requires_grad_() for part, one in layer.named_parameters(recurse=False)
            }
    return trained


def train_plainly(
    data: EncodedSet,
    loaded: Components,
    method: Customizer,
    seed: int,
    prepare: Callable[[Any], Prepared] = keys_and_values,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Train; returns the weights under the names of `prepare`, and the token's embedding."""
    unet, text_encoder = copy.deepcopy(loaded.unet), copy.deepcopy(loaded.text_encoder)
    table = text_encoder.get_input_embeddings()
    noun = loaded.tokenizer(data.noun, add_special_tokens=False).input_ids
    row = torch.nn.Parameter(table.weight[noun].mean(dim=0))
    text_encoder.resize_token_embeddings(len(loaded.tokenizer))
    table = text_encoder.get_input_embeddings()
    table.register_forward_hook(
        lambda _, given, out: torch.where((given[0] == loaded.token)[..., None], row, out)
    )
    trained = prepare(unet)
    parameters = [*trained.values(), row]
    optimizer = torch.optim.AdamW(parameters, method.learning_rate, weight_decay=method.weight_decay)
    scheduler = loaded.scheduler
    for step in range(method.steps):
        drawn = training_loop.draw(
            data,
            step,
            method,
            num_train_timesteps=scheduler.config.num_train_timesteps,
            seed=seed,
        )
        own = torch.cat([text_encoder(ids[None]).last_hidden_state for ids in drawn.ids])
        assert data.prior is not None
        context = torch.cat([own, data.prior.prompt_embeds.states[drawn.prior]])
        alpha = scheduler.alphas_cumprod[drawn.timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * drawn.latents + (1 - alpha).sqrt() * drawn.noise
        if scheduler.config.prediction_type == "epsilon":
            target = drawn.noise
        else:
            target = alpha.sqrt() * drawn.noise - (1 - alpha).sqrt() * drawn.latents
        predicted = unet(noisy, drawn.timesteps, context).sample
        first, rest = predicted[: method.exemplar_batch], predicted[method.exemplar_batch :]
        loss = torch.nn.functional.mse_loss(first, target[: method.exemplar_batch])
        loss = loss + method.prior_weight * torch.nn.functional.mse_loss(
            rest, target[method.exemplar_batch :]
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, method.gradient_clip)
        optimizer.step()
    return {key: value.detach() for key, value in trained.items()}, row.detach()
