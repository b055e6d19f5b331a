"""The training of one stack: several exemplar sets through one forward and one backward pass.

A set's randomness comes from (seed, set, step) alone, and its rows meet no
companion's: on one thread the result is the same, bit for bit, in whatever
company and at whatever place of the stack.
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
    """What chance decides for one set and step; exemplar rows come first, prior rows after them.

    latents, noise: (rows, channels, height, width) float32. timesteps: (rows,)
    int64. sizes: (rows, 6), see `cropping.micro_conditioning`. ids: (exemplar rows, length), their
    prompts. prior: (prior rows,) positions in the prior. masks: (exemplar rows, 1, height,
    width), where their loss counts; None for everywhere.
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
    """A finished model and its loss, the mean over the last tenth of the steps."""

    delta: Delta
    loss: float


@dataclass(frozen=True)
class Failed:
    """A set whose loss or weights were not finite, and a line that says so with its name and step."""

    reason: str


def draw(
    one: EncodedSet,
    step: int,
    *,
    exemplar_batch: int,
    prior_batch: int,
    timestep_power: float,
    num_train_timesteps: int,
    seed: int,
) -> Draw:
    """Views, prior images, timesteps and noise of a set at a step, by (seed, set, step).

    Timesteps are floor(num_train_timesteps * u ** power). The exemplar rows' u are spread
    over [0, 1), one in each equal share: the same expectation with less variance.
    """
    rng = hashing.generator("customize", seed, one.name, step)
    chosen = rng.integers(0, len(one.views), exemplar_batch)
    count = 0 if one.prior is None else prior_batch
    prior = rng.integers(0, len(one.prior.latents), count) if one.prior is not None else np.zeros(0, np.int64)
    spread = (rng.permutation(exemplar_batch) + rng.uniform(size=exemplar_batch)) / exemplar_batch
    uniform = np.concatenate([spread, rng.uniform(size=count)])
    timesteps = np.minimum(num_train_timesteps * uniform**timestep_power, num_train_timesteps - 1).astype(
        np.int64
    )
    noise = rng.standard_normal((exemplar_batch + count, *one.views.shape[1:]), dtype=np.float32)
    picked = torch.from_numpy(chosen)
    latents, sizes = one.views[picked], one.sizes[picked]
    positions = torch.from_numpy(prior)
    if one.prior is not None:
        latents = torch.cat([latents, one.prior.latents[positions]])
        sizes = torch.cat([sizes, one.prior.sizes[positions]])
    return Draw(
        latents,
        torch.from_numpy(noise),
        torch.from_numpy(timesteps),
        sizes,
        one.ids[picked],
        positions,
        None if one.masks is None else one.masks[picked],
    )


def train(
    concepts: Sequence[EncodedSet],
    components: Components,
    method: Customizer,
    *,
    steps: int,
    seed: int,
    width: int | None = None,
) -> list[Trained | Failed]:
    """Train a stack of sets for some steps; a model for each, in their order.

    A stack that is not full is filled with copies of its last set, whose results are
    dropped: so every stack of a run has the same shape. `width` is the number of sets
    in it, `method.stack` unless memory asks for fewer. A step of the optimizer sees
    `method.accumulation` batches, of which each has draws of its own. A set whose loss
    is not finite fails alone: the rows of its companions never meet it.
    """
    filled = [*concepts, *[concepts[-1]] * ((width or method.stack) - len(concepts))]
    stack = method.start(components, [one.noun for one in filled], seed)
    history: list[torch.Tensor] = []
    failed: dict[int, Failed] = {}
    with stack.attached(), _checkpointing(components, method.checkpointing):
        for step in progress(range(steps), total=steps, what=f"steps of {len(concepts)} sets"):
            seen = []
            for number in range(method.accumulation):
                turn = step * method.accumulation + number
                losses = step_losses(filled, components, method, turn, seed)
                (losses.sum() / method.accumulation).backward()
                seen.append(losses.detach()[: len(concepts)].cpu())
            stack.update()
            history.append(torch.stack(seen).mean(dim=0))
            for place in (~torch.isfinite(history[-1])).nonzero().flatten().tolist():
                loss = float(history[-1][place])
                reason = _not_finite(concepts[place], "its loss", loss, step, method.rate)
                failed.setdefault(place, Failed(reason))
            if len(failed) == len(concepts):
                break
    made = [stack.delta(place) for place in range(len(concepts))]
    for place, delta in enumerate(made):
        # no loss has seen what the last step did
        if not all(torch.isfinite(one).all() for one in (delta.embedding, *delta.weights.values())):
            reason = _not_finite(concepts[place], "a weight", float("nan"), steps - 1, method.rate)
            failed.setdefault(place, Failed(reason))
    last = torch.stack(history[-max(1, steps // 10) :]).mean(dim=0)
    return [
        failed[place] if place in failed else Trained(made[place], float(last[place]))
        for place in range(len(concepts))
    ]


@contextmanager
def _checkpointing(components: Components, wanted: bool) -> Iterator[None]:
    """Inside, the UNet keeps few activations and computes the others again in the backward pass."""
    if not wanted:
        yield
        return
    components.unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        components.unet.disable_gradient_checkpointing()


def _not_finite(one: EncodedSet, what: str, value: float, step: int, rate: float) -> str:
    return (
        f"exemplar set {one.name!r}: {what} is {value} at step {step}; customizer.learning_rate {rate}"
        " is too high, or an image or the base model is broken"
    )


def step_losses(
    concepts: Sequence[EncodedSet],
    components: Components,
    method: Customizer,
    step: int,
    seed: int,
) -> torch.Tensor:
    """Loss of each set at a step, (sets,): mean squared error of the exemplar rows, plus the weighted prior's.

    The target is noise or velocity, as the scheduler's config says.
    """
    scheduler, device = components.scheduler, components.device
    draws = [
        draw(
            one,
            step,
            exemplar_batch=method.exemplar_batch,
            prior_batch=method.prior_batch,
            timestep_power=method.timestep_power,
            num_train_timesteps=scheduler.config.num_train_timesteps,
            seed=seed,
        )
        for one in concepts
    ]
    latents = torch.cat([one.latents for one in draws])
    noise = torch.cat([one.noise for one in draws]).to(device)
    timesteps = torch.cat([one.timesteps for one in draws]).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=method.precision == "bfloat16"):
        text = encode_text(components, torch.cat([one.ids for one in draws]))
    by_set = text.map(lambda part: part.unflatten(0, (len(concepts), -1)))
    context = concatenate(
        [
            concatenate([by_set.select(place), *_prior_text(one, drawn)])
            for place, (one, drawn) in enumerate(zip(concepts, draws, strict=True))
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
    errors = errors.unflatten(0, (len(concepts), -1))
    losses: torch.Tensor = errors[:, : method.exemplar_batch].mean(dim=1)
    if errors.shape[1] > method.exemplar_batch:
        losses = losses + method.prior_weight * errors[:, method.exemplar_batch :].mean(dim=1)
    return losses


def _row_errors(squares: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """Mean of the squared errors of each row, (rows,), over the cells where its loss counts."""
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
    """Weights of rows at timesteps, (rows,), by min-SNR (Hang et al., ICCV 2023).

    The signal-to-noise ratio, cut at `limit`, over the ratio itself for epsilon, over the
    ratio plus 1 for velocity. Where there is no signal left the first is 1, its limit.
    """
    alphas = components.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    ratio = alphas / (1 - alphas)
    if components.scheduler.config.prediction_type == "v_prediction":
        return ratio.clamp(max=limit) / (ratio + 1)
    return (limit / ratio).clamp(max=1.0)


def _prior_text(one: EncodedSet, drawn: Draw) -> list[PromptEmbeds]:
    return [] if one.prior is None else [one.prior.prompt_embeds.select(drawn.prior)]
