"""Synthetic tuning data for mappers: queries are their exemplars, rotated, shifted and with noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from attrib_core.features.mapper import exemplar_sets, tune
from attrib_core.features.mapper.tuning_data import TuningData

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


def random_sets(
    count: int, *, seed: int, queries: int = 6, noise: float = 0.3, bend: float = 1.0, dim: int = DIM
) -> exemplar_sets.ExemplarSets:
    """Sets whose queries are their exemplars, rotated by one fixed rotation, shifted and with noise.

    Every third set is a style: 3 exemplars around a centre.
    """
    fixed = np.random.default_rng(99)
    rotation = np.linalg.qr(np.eye(dim) + bend * fixed.normal(size=(dim, dim)) / np.sqrt(dim))[0]
    rotation *= np.sign(np.diag(rotation))
    shift = bend * fixed.normal(size=dim)
    random = np.random.default_rng(seed)
    real, real_set, synth, synth_set = [], [], [], []
    for number in range(count):
        center = random.normal(size=dim)
        for _ in range(3 if number % 3 == 2 else 1):
            real.append(center + 0.1 * random.normal(size=dim))
            real_set.append(number)
        for _ in range(queries):
            synth.append(rotation @ (center + noise * random.normal(size=dim)) + shift)
            synth_set.append(number)
    in_float32 = [np.array(rows, dtype=np.float32) for rows in (real, synth)]
    names = tuple(f"set-{number}" for number in range(count))
    return exemplar_sets.ExemplarSets(
        names, in_float32[0], np.array(real_set), in_float32[1], np.array(synth_set)
    )


def tuning_data(bend: float = 1.0, noise: float = 0.3, negatives: int = 0) -> TuningData:
    pool = np.random.default_rng(5).normal(size=(60 + negatives, DIM)).astype(np.float32)
    train, validation = (
        random_sets(count, seed=seed, bend=bend, noise=noise) for count, seed in ((12, 1), (6, 2))
    )
    return TuningData(train, validation, pool[:60], pool[60:])


def tuned(data: TuningData, penalties: tuple[float, ...] = (0.1, 1.0), **changes: Any) -> tune.Tuning:
    starts = changes.pop("starts", ("identity",))
    shrinkages = changes.pop("shrinkages", (0.05,))
    settings = replace(SETTINGS, **changes)
    return tune.tune(
        data,
        settings,
        encoder="e",
        mapper="linear-both",
        penalties=penalties,
        starts=starts,
        shrinkages=shrinkages,
        seed=3,
    )
