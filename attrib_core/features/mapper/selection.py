"""The checkpoints of training, and a description of the selected one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from attrib_core.common import hashing
from attrib_core.features.heads.heads import Heads
from attrib_core.features.mapper.initialization import Start
from attrib_core.features.mapper.tuning_data import TuningData

RESAMPLES = 2000
"""Bootstrap resamples of the interval of the gain."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The heads after one epoch at one penalty; train and validation hold the mean average precision of each set."""

    penalty: float | None
    epoch: int
    loss: float | None
    drift: float
    train: np.ndarray
    validation: np.ndarray
    start: Start
    heads: Callable[[], Heads]

    @property
    def score(self) -> float:
        """Return the mean average precision on the validation split, by which heads are selected."""
        return float(self.validation.mean())


def describe(chosen: Checkpoint, untuned: Checkpoint, data: TuningData, *, seed: int) -> dict[str, Any]:
    """Describe the selected checkpoint and its gain over the identity, with a bootstrap interval over the sets.

    The interval ignores that the best of many was selected, so it is optimistic; the test split gives an unbiased
    estimate. Its ends are None if there is one validation set only, all of whose resamples are equal.
    """
    gains = chosen.validation - untuned.validation
    low, high = _bootstrap_interval(gains, seed)
    scores = f"validation mean average precision {chosen.score:.4f}, untuned {untuned.score:.4f}"
    if chosen is untuned:
        verdict = f"nothing helped on the validation split, the identity is kept: {scores}"
    else:
        verdict = f"from {chosen.start}, {_training(chosen)}: {scores}"
    return {
        "verdict": verdict,
        "identity_is_best": chosen is untuned,
        "start": chosen.start.name,
        "shrinkage": chosen.start.shrinkage,
        "penalty": chosen.penalty,
        "epoch": chosen.epoch,
        "validation_mean_average_precision": chosen.score,
        "untuned_validation_mean_average_precision": untuned.score,
        "gain": float(gains.mean()),
        "gain_low": low,
        "gain_high": high,
        "train_mean_average_precision": float(chosen.train.mean()),
        "untuned_train_mean_average_precision": float(untuned.train.mean()),
        "train_sets": len(data.train.names),
        "validation_sets": len(data.validation.names),
        "train_queries": len(data.train.synth),
        "validation_queries": len(data.validation.synth),
        "validation_distractors": len(data.distractors),
    }


def _bootstrap_interval(gains: np.ndarray, seed: int) -> tuple[float, float] | tuple[None, None]:
    if len(gains) < 2:
        return None, None
    draws = hashing.generator(seed, "mapper gain").integers(0, len(gains), (RESAMPLES, len(gains)))
    low, high = np.quantile(gains[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _training(checkpoint: Checkpoint) -> str:
    if checkpoint.penalty is None:
        return "as it is"
    return f"penalty {checkpoint.penalty:g}, epoch {checkpoint.epoch}"


def curve_row(checkpoint: Checkpoint, *, chosen: bool) -> dict[str, Any]:
    """Return a row of the table `mapper_curve`, without the columns `encoder` and `mapper`."""
    return {
        "start": checkpoint.start.name,
        "shrinkage": checkpoint.start.shrinkage,
        "penalty": checkpoint.penalty,
        "epoch": checkpoint.epoch,
        "loss": checkpoint.loss,
        "drift": checkpoint.drift,
        "train_mean_average_precision": float(checkpoint.train.mean()),
        "validation_mean_average_precision": checkpoint.score,
        "chosen": chosen,
    }
