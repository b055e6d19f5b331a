"""Helpers of tests that train models: encoded sets, trained models as one vector, and distances between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from attrib_core.diffusion.customization import inputs, training_data, training_loop
from attrib_core.diffusion.customization.method import Customizer
from attrib_core.diffusion.customization.training_data import EncodedSet, ExemplarSet
from attrib_core.diffusion.customization.training_loop import Trained
from attrib_core.diffusion.deltas.delta_files import Delta
from attrib_core.diffusion.pipeline.components import Components
from tests.diffusion.diffusion_fixtures import TOKEN


def encode_sets(
    components: Components, prior_file: Path, sets: Sequence[ExemplarSet], views: int = 4
) -> list[EncodedSet]:
    """Encode the sets with a prompt for each exemplar and with the prior images of their classes."""
    classes = sorted({(one.kind, one.category) for one in sets})
    method = Customizer(views=views, scale_jitter=0.1, shift=0.08)
    prior = training_data.encode_prior_images(inputs.read_prior(prior_file, classes), components, classes)
    return [
        training_data.encode_exemplar_set(
            one, components, method, prompts=[f"{TOKEN} {one.noun} {number}" for number in range(len(one.images))],
            prior=prior[one.kind, one.category], seed=1,
        )
        for one in sets
    ]  # fmt: skip


def train_models(
    sets: Sequence[EncodedSet], components: Components, method: Customizer, *, seed: int = 5, **options: Any
) -> list[Trained]:
    """Train the sets in one stack; none of them may fail."""
    models = training_loop.train(sets, components, method, steps=method.steps, seed=seed, **options)
    assert all(isinstance(model, Trained) for model in models)
    return models  # type: ignore[return-value]


def flat(delta: Delta) -> torch.Tensor:
    """All numbers of a delta in one vector."""
    return torch.cat([value.flatten() for value in (*delta.weights.values(), *delta.embeddings)])


def same(first: Trained, second: Trained) -> bool:
    """Whether two models are equal, bit for bit."""
    return torch.equal(flat(first.delta), flat(second.delta)) and first.loss == second.loss


def relative_distance(found: torch.Tensor, expected: torch.Tensor, start: torch.Tensor) -> float:
    """The distance of two trainings from one start, as a share of how far the second went, without the hundredth of
    the entries that differ most.

    AdamW divides a gradient by its size. Where it is close to zero, its sign is that of rounding, which differs with
    the processor, the threads and the width of a batch; so a few entries go elsewhere, by as much as any went.
    """
    differences = (found - expected).flatten().abs().sort().values
    moved = (expected - start).flatten()
    assert float(differences[-1]) <= 2 * float(moved.abs().max())
    return float(differences[: -math.ceil(len(differences) / 100)].norm() / moved.norm())


def stored_deltas(store: Path) -> dict[str, bytes]:
    """The files of deltas in the store below a folder, by name."""
    return {path.name: path.read_bytes() for path in store.glob("store/deltas/*.safetensors")}
