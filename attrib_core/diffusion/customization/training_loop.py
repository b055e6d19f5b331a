"""The training loop of one stack: several exemplar sets in one forward and one backward pass.

The random numbers of a set depend only on (seed, set, step), and its rows do not interact with those of other sets:
on one thread the result is the same, bit for bit, whatever else is in the stack and in whatever order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from attrib_core.common import hashing
from attrib_core.diffusion.customization.method import Customizer
from attrib_core.diffusion.customization.training_data import EncodedSet
from attrib_core.diffusion.deltas.delta_files import Delta
from attrib_core.diffusion.pipeline.components import Components, encode_text, predict
from attrib_core.diffusion.pipeline.prompt_encoding import PromptEmbeds, concatenate
from attrib_core.runtime.progress import progress


@dataclass(frozen=True)
class Draw:
    """The random draws of one set and step; exemplar rows come first, then prior rows.

    latents, noise: (rows, channels, height, width) float32. timesteps: (rows,) int64. sizes: (rows, 6), see
    `micro_conditioning`. ids: (exemplar rows, length), their prompts. prior: (prior rows,) positions in the prior.
    masks: (exemplar rows, 1, height, width), where their loss counts; None for everywhere.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    sizes: torch.Tensor
    ids: torch.Tensor
    prior: torch.Tensor
    masks: torch.Tensor | None = None


@dataclass(frozen=True)
class Trained:
    """A trained model and its loss, averaged over the last tenth of the steps."""

    delta: Delta
    loss: float


@dataclass(frozen=True)
class Failed:
    """A set whose loss or weights were not finite; `reason` names the set and the step."""

    reason: str


def draw(data: EncodedSet, step: int, method: Customizer, *, num_train_timesteps: int, seed: int) -> Draw:
    """Draw views, prior images, timesteps and noise of a set at a step, by (seed, set, step).

    Timesteps are floor(num_train_timesteps * u ** timestep_power). The u of the exemplar rows are stratified over
    [0, 1): the same expectation with less variance.
    """
    rng = hashing.generator("customize", seed, data.name, step)
    rows = method.exemplar_batch
    views = rng.integers(0, len(data.views), rows)
    count = 0 if data.prior is None else method.prior_batch
    prior = (
        rng.integers(0, len(data.prior.latents), count) if data.prior is not None else np.zeros(0, np.int64)
    )
    stratified = (rng.permutation(rows) + rng.uniform(size=rows)) / rows
    uniform = np.concatenate([stratified, rng.uniform(size=count)])
    timesteps = np.minimum(
        num_train_timesteps * uniform**method.timestep_power, num_train_timesteps - 1
    ).astype(np.int64)
    noise = rng.standard_normal((rows + count, *data.views.shape[1:]), dtype=np.float32)
    chosen = torch.from_numpy(views)
    latents, sizes = data.views[chosen], data.sizes[chosen]
    positions = torch.from_numpy(prior)
    if data.prior is not None:
        latents = torch.cat([latents, data.prior.latents[positions]])
        sizes = torch.cat([sizes, data.prior.sizes[positions]])
    return Draw(
        latents,
        torch.from_numpy(noise),
        torch.from_numpy(timesteps),
        sizes,
        data.ids[chosen],
        positions,
        None if data.masks is None else data.masks[chosen],
    )


def train(
    sets: Sequence[EncodedSet],
    components: Components,
    method: Customizer,
    *,
    steps: int,
    seed: int,
    width: int | None = None,
) -> list[Trained | Failed]:
    """Train a stack of sets for some steps; returns a model for each, in their order.

    A stack that is not full is padded with copies of its last set, whose results are dropped, so that every stack of
    a run has the same shape. `width` is the number of sets in it, `method.stack` unless memory is too small. An
    optimizer step sees `method.accumulation` batches, each with its own draws. A set whose loss is not finite fails
    alone and does not affect the others.
    """
    padded = [*sets, *[sets[-1]] * ((width or method.stack) - len(sets))]
    stack = method.start(components, [one.noun for one in padded], seed)
    history: list[torch.Tensor] = []
    failed: dict[int, Failed] = {}
    with stack.attached(), _checkpointing(components, method.checkpointing):
        for step in progress(range(steps), total=steps, what=f"steps of {len(sets)} sets"):
            batches = []
            for number in range(method.accumulation):
                draw_step = step * method.accumulation + number
                losses = step_losses(padded, components, method, draw_step, seed)
                (losses.sum() / method.accumulation).backward()
                batches.append(losses.detach()[: len(sets)].cpu())
            stack.update()
            history.append(torch.stack(batches).mean(dim=0))
            for position in (~torch.isfinite(history[-1])).nonzero().flatten().tolist():
                loss = float(history[-1][position])
                reason = _not_finite(sets[position], "its loss", loss, step, method.rate)
                failed.setdefault(position, Failed(reason))
            if len(failed) == len(sets):
                break
    deltas = [stack.delta(position) for position in range(len(sets))]
    for position, delta in enumerate(deltas):
        # the weights after the last step are in no loss
        if not all(torch.isfinite(one).all() for one in (delta.embedding, *delta.weights.values())):
            reason = _not_finite(sets[position], "a weight", float("nan"), steps - 1, method.rate)
            failed.setdefault(position, Failed(reason))
    last = torch.stack(history[-max(1, steps // 10) :]).mean(dim=0)
    return [
        failed[position] if position in failed else Trained(deltas[position], float(last[position]))
        for position in range(len(sets))
    ]


@contextmanager
def _checkpointing(components: Components, enabled: bool) -> Iterator[None]:
    """Enable gradient checkpointing of the UNet in this context."""
    if not enabled:
        yield
        return
    components.unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        components.unet.disable_gradient_checkpointing()


def _not_finite(data: EncodedSet, what: str, value: float, step: int, rate: float) -> str:
    return (
        f"exemplar set {data.name!r}: {what} is {value} at step {step}; customizer.learning_rate {rate}"
        " is too high, or an image or the base model is broken"
    )


def step_losses(
    sets: Sequence[EncodedSet],
    components: Components,
    method: Customizer,
    step: int,
    seed: int,
) -> torch.Tensor:
    """Compute the loss of each set at a step, (sets,): the mean squared error of exemplar rows plus the weighted
    one of prior rows. The target is noise or velocity, by the prediction type of the scheduler.
    """
    scheduler, device = components.scheduler, components.device
    draws = [
        draw(one, step, method, num_train_timesteps=scheduler.config.num_train_timesteps, seed=seed)
        for one in sets
    ]
    latents = torch.cat([one.latents for one in draws])
    noise = torch.cat([one.noise for one in draws]).to(device)
    timesteps = torch.cat([one.timesteps for one in draws]).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=method.precision == "bfloat16"):
        prompt_embeds = encode_text(components, torch.cat([one.ids for one in draws]))
    by_set = prompt_embeds.map(lambda tensor: tensor.unflatten(0, (len(sets), -1)))
    context = concatenate(
        [
            concatenate([by_set.select(position), *_prior_prompts(one, drawn)])
            for position, (one, drawn) in enumerate(zip(sets, draws, strict=True))
        ]
    )
    noisy = scheduler.add_noise(latents, noise, timesteps).contiguous(memory_format=torch.channels_last)
    if scheduler.config.prediction_type == "v_prediction":
        target = scheduler.get_velocity(latents, noise, timesteps)
    else:
        target = noise
    with torch.autocast(device.type, torch.bfloat16, enabled=method.precision == "bfloat16"):
        sizes = torch.cat([one.sizes for one in draws])
        predicted = predict(components, noisy, timesteps, context, sizes)
    errors = _row_errors((predicted.float() - target).square(), draws)
    if method.min_snr is not None:
        errors = errors * min_snr_weights(components, timesteps, method.min_snr)
    errors = errors.unflatten(0, (len(sets), -1))
    losses: torch.Tensor = errors[:, : method.exemplar_batch].mean(dim=1)
    if errors.shape[1] > method.exemplar_batch:
        losses = losses + method.prior_weight * errors[:, method.exemplar_batch :].mean(dim=1)
    return losses


def _row_errors(squares: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """Average the squared errors of each row, (rows,), over the cells where its loss counts."""
    if all(one.masks is None for one in draws):
        return squares.mean(dim=(1, 2, 3))
    masks = []
    for one in draws:
        rows = squares.new_ones(len(one.latents), 1, *squares.shape[2:])
        if one.masks is not None:
            rows[: len(one.masks)] = one.masks
        masks.append(rows)
    mask = torch.cat(masks)
    return (squares.mean(dim=1, keepdim=True) * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))


def min_snr_weights(components: Components, timesteps: torch.Tensor, limit: float) -> torch.Tensor:
    """Compute min-SNR loss weights of rows at timesteps, (rows,) (Hang et al., ICCV 2023).

    The signal-to-noise ratio, clamped at `limit`, over the ratio itself for epsilon, or over the ratio plus 1 for
    velocity. At a ratio of zero the first is 1, its limit.
    """
    alphas = components.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    ratio = alphas / (1 - alphas)
    if components.scheduler.config.prediction_type == "v_prediction":
        return ratio.clamp(max=limit) / (ratio + 1)
    return (limit / ratio).clamp(max=1.0)


def _prior_prompts(data: EncodedSet, drawn: Draw) -> list[PromptEmbeds]:
    return [] if data.prior is None else [data.prior.prompt_embeds.select(drawn.prior)]
