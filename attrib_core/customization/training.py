"""The training of one stack: several exemplar sets through one forward and one backward pass.

A set's randomness comes from (seed, set, step) alone, and its rows meet no
companion's: on one thread the result is the same, bit for bit, in whatever
company and at whatever place of the stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from attrib_core import keys
from attrib_core.customization.concepts import Concept
from attrib_core.diffusion.components import Components, encode_text
from attrib_core.diffusion.deltas import Delta
from attrib_core.errors import InputError
from attrib_core.jobs import progress


class Stack(Protocol):
    """Several models in training, as a method keeps them."""

    def attached(self) -> AbstractContextManager[None]:
        """Inside, the network works with the weights of the stack."""

    def update(self) -> None:
        """One optimizer step from the gradients at hand."""

    def delta(self, position: int) -> Delta:
        """What the model at a position has become."""


class Customizer(Protocol):
    """What `load` of a family of customizers returns: a method with its settings."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def exemplar_batch(self) -> int: ...
    @property
    def prior_batch(self) -> int: ...
    @property
    def prior_weight(self) -> float: ...
    @property
    def stack(self) -> int: ...
    @property
    def timestep_power(self) -> float: ...
    @property
    def views(self) -> int: ...
    @property
    def scale_jitter(self) -> float: ...
    @property
    def shift(self) -> float: ...
    @property
    def object_prompt(self) -> str: ...
    @property
    def style_prompt(self) -> str: ...

    def steps_of(self, kind: str) -> int:
        """Optimizer steps of a set of a kind, object or style."""

    def start(self, components: Components, nouns: Sequence[str]) -> Stack:
        """A stack of models at step 0, one for each noun."""


@dataclass(frozen=True)
class Draw:
    """What chance decides for one set and step; exemplar rows come first, prior rows after them.

    latents, noise: (rows, channels, height, width) float32. timesteps: (rows,)
    int64. ids: (exemplar rows, length), their prompts. prior: (prior rows,) positions in
    the prior.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    ids: torch.Tensor
    prior: torch.Tensor


@dataclass(frozen=True)
class Trained:
    """A finished model and its loss, the mean over the last tenth of the steps."""

    delta: Delta
    loss: float


def draw(
    one: Concept,
    step: int,
    *,
    exemplar_batch: int,
    prior_batch: int,
    timestep_power: float,
    horizon: int,
    seed: int,
) -> Draw:
    """Views, prior pictures, timesteps and noise of a set at a step, by (seed, set, step).

    Timesteps are floor(horizon * u ** power). The exemplar rows' u are spread
    over [0, 1), one in each equal share: the same expectation with less variance.
    """
    rng = keys.generator("customize", seed, one.name, step)
    chosen = rng.integers(0, len(one.views), exemplar_batch)
    count = 0 if one.prior is None else prior_batch
    prior = rng.integers(0, len(one.prior.latents), count) if one.prior is not None else np.zeros(0, np.int64)
    spread = (rng.permutation(exemplar_batch) + rng.uniform(size=exemplar_batch)) / exemplar_batch
    uniform = np.concatenate([spread, rng.uniform(size=count)])
    timesteps = np.minimum(horizon * uniform**timestep_power, horizon - 1).astype(np.int64)
    noise = rng.standard_normal((exemplar_batch + count, *one.views.shape[1:]), dtype=np.float32)
    picked = torch.from_numpy(chosen)
    latents = one.views[picked]
    positions = torch.from_numpy(prior)
    if one.prior is not None:
        latents = torch.cat([latents, one.prior.latents[positions]])
    return Draw(latents, torch.from_numpy(noise), torch.from_numpy(timesteps), one.ids[picked], positions)


def train(
    concepts: Sequence[Concept], components: Components, method: Customizer, *, steps: int, seed: int
) -> list[Trained]:
    """Train a stack of sets for some steps; a model for each, in their order.

    A stack that is not full is filled with copies of its last set, whose results
    are dropped: so every stack of a run has the same shape. Raises InputError,
    with set and step, for a loss that is not finite.
    """
    filled = [*concepts, *[concepts[-1]] * (method.stack - len(concepts))]
    stack = method.start(components, [one.noun for one in filled])
    history: list[torch.Tensor] = []
    with stack.attached():
        for step in progress(range(steps), total=steps, what=f"steps of {len(concepts)} sets"):
            losses = step_losses(filled, components, method, step, seed)
            losses.sum().backward()
            stack.update()
            history.append(losses.detach()[: len(concepts)].cpu())
            _check_finite(history[-1], concepts, step, method.learning_rate)
    last = torch.stack(history[-max(1, steps // 10) :]).mean(dim=0)
    return [Trained(stack.delta(position), float(last[position])) for position in range(len(concepts))]


def step_losses(
    concepts: Sequence[Concept],
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
            horizon=scheduler.config.num_train_timesteps,
            seed=seed,
        )
        for one in concepts
    ]
    latents = torch.cat([one.latents for one in draws])
    noise = torch.cat([one.noise for one in draws]).to(device)
    timesteps = torch.cat([one.timesteps for one in draws]).to(device)
    states = encode_text(components, torch.cat([one.ids for one in draws])).unflatten(0, (len(concepts), -1))
    context = torch.cat(
        [
            torch.cat([own, *_prior_states(one, drawn)])
            for own, one, drawn in zip(states, concepts, draws, strict=True)
        ]
    )
    noisy = scheduler.add_noise(latents, noise, timesteps).contiguous(memory_format=torch.channels_last)
    if scheduler.config.prediction_type == "v_prediction":
        target = scheduler.get_velocity(latents, noise, timesteps)
    else:
        target = noise
    predicted = components.unet(noisy, timesteps, context).sample
    errors = (predicted - target).square().mean(dim=(1, 2, 3)).unflatten(0, (len(concepts), -1))
    losses: torch.Tensor = errors[:, : method.exemplar_batch].mean(dim=1)
    if errors.shape[1] > method.exemplar_batch:
        losses = losses + method.prior_weight * errors[:, method.exemplar_batch :].mean(dim=1)
    return losses


def _prior_states(one: Concept, drawn: Draw) -> list[torch.Tensor]:
    return [] if one.prior is None else [one.prior.states[drawn.prior]]


def _check_finite(losses: torch.Tensor, concepts: Sequence[Concept], step: int, rate: float) -> None:
    wrong = (~torch.isfinite(losses)).nonzero().flatten().tolist()
    if wrong:
        raise InputError(
            f"exemplar set {concepts[wrong[0]].name!r}: its loss is {float(losses[wrong[0]])} at step {step};"
            f" customizer.learning_rate {rate} is too high, or a picture or the base model is broken"
        )
