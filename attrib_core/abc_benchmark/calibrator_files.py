"""Read and write calibrators: the published checkpoint, and the `calibrator.json` of a run or `abc calibrate`.

A published checkpoint is a state dict of two numbers, `inv_tau` and `bias`; our bias is
`published_fit.GAIN` times the second.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from attrib_core.attribution.calibration.calibrators import (
    CALIBRATORS,
    Fitted,
    check_published,
    from_description,
)
from attrib_core.attribution.calibration.published_fit import GAIN
from attrib_core.attribution.calibration.published_form import FORMULA, PublishedCalibrator
from attrib_core.common.errors import InputError
from attrib_core.storage import tables, text_files, torch_files
from attrib_core.storage.torch_files import describe

RELEASED = "released"
"""Name of the calibrator of a published checkpoint."""


def read(path: Path, absent_share: float) -> dict[str, Fitted]:
    """Read the fitted calibrators of a checkpoint (`.pth`, `.pt`) or a `calibrator.json`, by name.

    `absent_share` is the assumed share of queries whose sources are absent. Raises InputError, with file and
    key, for anything else.
    """
    path = Path(path)
    text_files.check_path(path, where="--calibrator: ")
    if path.suffix in (".pth", ".pt"):
        return {RELEASED: _checkpoint(path)}
    if path.suffix == ".json":
        return _json(path, absent_share)
    raise InputError(
        f"--calibrator: {path} is a file {path.suffix!r}, expected .pth (a published checkpoint) or .json"
    )


def save(published: Fitted, path: Path) -> None:
    """Write the fitted calibrator `published` as a published checkpoint."""
    import torch

    numbers = published.description["checkpoint"]
    torch_files.save({key: torch.tensor(numbers[key]) for key in ("inv_tau", "bias")}, path)


def _checkpoint(path: Path) -> Fitted:
    content = torch_files.read(path, tensors="mapped")
    if not isinstance(content, dict) or set(content) != {"inv_tau", "bias"}:
        raise InputError(f"{path}: is {describe(content)}, expected a state dict with inv_tau and bias")
    inverse, bias = (_number(path, key, content[key]) for key in ("inv_tau", "bias"))
    if inverse <= 0:
        raise InputError(f"{path}: inv_tau is {inverse:g}, expected more than 0")
    found = PublishedCalibrator(1.0 / inverse, bias * GAIN)
    try:
        check_published(found)
    except ValueError as error:
        raise InputError(
            f"{path}: inv_tau is {inverse:g}, bias {bias:g}: as tau and {GAIN:g} bias, {error}"
        ) from None
    return Fitted(
        found, {"form": FORMULA, **found._asdict(), "checkpoint": {"inv_tau": inverse, "bias": bias}}
    )


def _number(path: Path, key: str, value: Any) -> float:
    found = torch_files.array(value)
    number = float(found.item()) if found is not None and found.size == 1 else math.nan
    if not math.isfinite(number):
        raise InputError(f"{path}: {key} is {describe(value)}, expected a tensor of one finite number")
    return number


def _json(path: Path, absent_share: float) -> dict[str, Fitted]:
    content = tables.read_json(path)
    forms = content.get("forms") if isinstance(content, dict) else None
    if not isinstance(forms, dict) or not any(name in CALIBRATORS for name in forms):
        raise InputError(f"{path}: no forms of {', '.join(CALIBRATORS)}, expected a calibrator.json")
    try:
        return {
            name: Fitted(from_description(name, about, absent_share), about)
            for name, about in forms.items()
            if name in CALIBRATORS
        }
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
