"""The points that training passes through, and what is said of the one that was chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from attrib_core.common import hashing
from attrib_core.features.heads.heads import Heads
from attrib_core.features.mapper.initialization import Start
from attrib_core.features.mapper.tuning_data import Material

RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Point:
    """One epoch at one penalty; the two scores are mean average precisions by set."""

    penalty: float | None
    epoch: int
    loss: float | None
    drift: float
    train: np.ndarray
    validation: np.ndarray
    start: Start
    heads: Callable[[], Heads]

    @property
    def value(self) -> float:
        return float(self.validation.mean())


def describe(chosen: Point, untuned: Point, material: Material, *, seed: int) -> dict[str, Any]:
    """What was chosen and what it gained over the identity, with a bootstrap interval over the sets.

    The interval does not know that the best of many was taken, so it flatters; the test split
    tells the truth. Its ends are None where there is one validation set alone, of which every resample is the same.
    """
    gains = chosen.validation - untuned.validation
    low, high = _interval(gains, seed)
    scores = f"validation mean average precision {chosen.value:.4f}, untuned {untuned.value:.4f}"
    identity = chosen is untuned
    if identity:
        verdict = f"nothing helped on the validation split, the identity is kept: {scores}"
    else:
        verdict = f"from {chosen.start}, {_trained(chosen)}: {scores}"
    return {
        "verdict": verdict,
        "identity_is_best": identity,
        "start": chosen.start.name,
        "shrinkage": chosen.start.shrinkage,
        "penalty": chosen.penalty,
        "epoch": chosen.epoch,
        "validation_mean_average_precision": chosen.value,
        "untuned_validation_mean_average_precision": untuned.value,
        "gain": float(gains.mean()),
        "gain_low": low,
        "gain_high": high,
        "train_mean_average_precision": float(chosen.train.mean()),
        "untuned_train_mean_average_precision": float(untuned.train.mean()),
        "train_sets": len(material.train.names),
        "validation_sets": len(material.validation.names),
        "train_queries": len(material.train.synth),
        "validation_queries": len(material.validation.synth),
        "validation_distractors": len(material.distractors),
    }


def _interval(gains: np.ndarray, seed: int) -> tuple[float, float] | tuple[None, None]:
    if len(gains) < 2:
        return None, None
    draws = hashing.generator(seed, "mapper gain").integers(0, len(gains), (RESAMPLES, len(gains)))
    low, high = np.quantile(gains[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _trained(point: Point) -> str:
    return "as it is" if point.penalty is None else f"penalty {point.penalty:g}, epoch {point.epoch}"


def row(point: Point, *, chosen: bool) -> dict[str, Any]:
    """A row of the table `mapper_curve`, without its names."""
    return {
        "start": point.start.name,
        "shrinkage": point.start.shrinkage,
        "penalty": point.penalty,
        "epoch": point.epoch,
        "loss": point.loss,
        "drift": point.drift,
        "train_mean_average_precision": float(point.train.mean()),
        "validation_mean_average_precision": point.value,
        "chosen": chosen,
    }
