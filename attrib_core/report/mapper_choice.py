"""How the mapper was chosen: validation over epochs, a line a start and penalty, and the untuned value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrib_core import tables
from attrib_core.report import data
from attrib_core.report.data import Row


@dataclass(frozen=True)
class Choice:
    """Tuning of one encoder: rows of its curve, and what was chosen by the validation split.

    Values are mean average precisions; `gain` has a bootstrap interval over the
    validation sets. Where the identity was best, `penalty` is None and `epoch` 0.
    """

    encoder: str
    curve: list[Row]
    start: str
    penalty: float | None
    epoch: int
    value: float
    untuned: float
    gain: float
    gain_low: float
    gain_high: float
    train: float
    train_untuned: float


def read(curves: Sequence[Path], choices: Sequence[Path], encoders: Sequence[str]) -> list[Choice]:
    """The choices in the order of the encoders; files lie in folders named like these."""
    by_encoder = {path.parent.name: path for path in curves}
    chosen = {path.parent.name: path for path in choices}
    return [_choice(encoder, by_encoder[encoder], data.read_json(chosen[encoder])) for encoder in encoders]


def _choice(encoder: str, curve: Path, chosen: dict[str, Any]) -> Choice:
    return Choice(
        encoder=encoder,
        curve=data.measured(tables.read(curve, "mapper_curve")),
        start=chosen["start"],
        penalty=chosen["penalty"],
        epoch=chosen["epoch"],
        value=chosen["validation_mean_average_precision"],
        untuned=chosen["untuned_validation_mean_average_precision"],
        gain=chosen["gain"],
        gain_low=chosen["gain_low"],
        gain_high=chosen["gain_high"],
        train=chosen["train_mean_average_precision"],
        train_untuned=chosen["untuned_train_mean_average_precision"],
    )
