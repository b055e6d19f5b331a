"""Selection of each mapper on the validation split: curves over epochs, and the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrib_core.attribution.metrics import metrics_table
from attrib_core.attribution.metrics.metrics_table import Row
from attrib_core.storage import tables


@dataclass(frozen=True)
class Choice:
    """The curve of one mapper of one encoder, and the choice.

    Values are mean average precisions; `gain` has a bootstrap interval over the validation sets, None where there is
    only one. `kept`: the identity was best. `penalty` is None where the start was chosen without training.
    """

    encoder: str
    mapper: str
    curve: list[Row]
    kept: bool
    start: str
    shrinkage: float | None
    penalty: float | None
    epoch: int
    value: float
    untuned: float
    gain: float
    gain_low: float | None
    gain_high: float | None
    train: float
    train_untuned: float


def read(
    curves: Sequence[Path], choices: Sequence[Path], encoders: Sequence[str], mappers: Sequence[str]
) -> list[Choice]:
    """Read the choices in the order of encoders and mappers: `<encoder>/<mapper>.curve.parquet`, `.choice.json`."""
    rows, chosen = ({_owner(path): path for path in paths} for paths in (curves, choices))
    pairs = [(encoder, mapper) for encoder in encoders for mapper in mappers]
    return [_choice(*pair, rows[pair], tables.read_json(chosen[pair])) for pair in pairs]


def _owner(path: Path) -> tuple[str, str]:
    """Encoder and mapper of a file; the name of a mapper may have dots."""
    return path.parent.name, path.name.rsplit(".", 2)[0]


def _choice(encoder: str, mapper: str, curve: Path, chosen: dict[str, Any]) -> Choice:
    return Choice(
        encoder=encoder,
        mapper=mapper,
        curve=metrics_table.nan_to_none(tables.read(curve, "mapper_curve")),
        kept=chosen["identity_is_best"],
        start=chosen["start"],
        shrinkage=chosen["shrinkage"],
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
