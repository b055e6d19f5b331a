"""Made-up material for mappers: sets whose queries are their exemplars, turned, moved and blurred."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from attrib_core.features.mapper import pairs, tune
from attrib_core.features.mapper.tuning_data import Material

DIM = 12
SETTINGS = tune.Settings(
    temperature=0.1,
    learning_rate=0.005,
    epochs=8,
    patience=8,
    batch_sets=6,
    images_each=2,
    rank=DIM,
    distractors=0,
)


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def plain_loss(
    real: np.ndarray, synth: np.ndarray, groups: np.ndarray, temperature: float, negatives: np.ndarray
) -> float:
    total = 0.0
    for i in range(len(real)):
        own = np.exp(real[i] @ synth[i] / temperature)
        to_real = own + sum(np.exp(synth[i] @ negative / temperature) for negative in negatives)
        to_synth = own
        for j in range(len(real)):
            if groups[j] != groups[i]:
                to_real += np.exp(synth[i] @ real[j] / temperature)
                to_synth += np.exp(real[i] @ synth[j] / temperature)
        total -= np.log(own / to_real) + np.log(own / to_synth)
    return float(total / len(real) / 2)


def made_up(
    count: int, *, seed: int, queries: int = 6, noise: float = 0.3, bend: float = 1.0, dim: int = DIM
) -> pairs.Sets:
    """Sets whose queries are their exemplars turned by one fixed rotation, moved and blurred.

    Every third set is a style: 3 exemplars around a centre.
    """
    fixed = np.random.default_rng(99)
    turn = np.linalg.qr(np.eye(dim) + bend * fixed.normal(size=(dim, dim)) / np.sqrt(dim))[0]
    turn *= np.sign(np.diag(turn))
    move = bend * fixed.normal(size=dim)
    random = np.random.default_rng(seed)
    real, real_set, synth, synth_set = [], [], [], []
    for number in range(count):
        center = random.normal(size=dim)
        for _ in range(3 if number % 3 == 2 else 1):
            real.append(center + 0.1 * random.normal(size=dim))
            real_set.append(number)
        for _ in range(queries):
            synth.append(turn @ (center + noise * random.normal(size=dim)) + move)
            synth_set.append(number)
    as_float = [np.array(rows, dtype=np.float32) for rows in (real, synth)]
    names = tuple(f"set-{number}" for number in range(count))
    return pairs.Sets(names, as_float[0], np.array(real_set), as_float[1], np.array(synth_set))


def material(bend: float = 1.0, noise: float = 0.3, negatives: int = 0) -> Material:
    pool = np.random.default_rng(5).normal(size=(60 + negatives, DIM)).astype(np.float32)
    train, validation = (
        made_up(count, seed=seed, bend=bend, noise=noise) for count, seed in ((12, 1), (6, 2))
    )
    return Material(train, validation, pool[:60], pool[60:])


def tuned(given: Material, penalties: tuple[float, ...] = (0.1, 1.0), **changes: Any) -> tune.Tuning:
    starts = changes.pop("starts", ("identity",))
    shrinkages = changes.pop("shrinkages", (0.05,))
    settings = replace(SETTINGS, **changes)
    return tune.tune(
        given,
        settings,
        encoder="e",
        mapper="linear-both",
        penalties=penalties,
        starts=starts,
        shrinkages=shrinkages,
        seed=3,
    )
