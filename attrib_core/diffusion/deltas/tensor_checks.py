"""Checks of the tensors in files of others: what may be in a delta, and that its numbers are numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from attrib_core.common.errors import InputError
from attrib_core.storage import torch_archive, torch_files

LARGEST = 1e30


def floats(path: Path, stored: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return tensors of any floating-point type as float32, sorted by key.

    Raises InputError for anything else, and for NaN or infinite numbers, with the key.
    """
    found = {}
    for key, value in sorted(stored.items()):
        usable = isinstance(value, torch.Tensor) and value.is_floating_point()
        if not usable or value.is_meta or not torch_archive.is_dense(value):
            raise InputError(
                f"{path}: key {key!r} is not a tensor of floating-point numbers, but {torch_files.describe(value)}"
            )
        found[key] = torch_files.values(value).float()
    check_finite(path, found)
    return found


def check_finite(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise InputError where a tensor has NaN or infinite numbers, with its key and how many."""
    for key, value in tensors.items():
        # a sum is finite only if all numbers are, and reads them once; large ones may overflow it
        if not bool(torch.isfinite(value.sum())):
            broken = int((~torch.isfinite(value)).sum())
            if broken:
                raise InputError(
                    f"{path}: key {key!r} has {broken} of {value.numel()} numbers that are NaN or infinite, as after"
                    " a training that diverged; train it again"
                )


def check_not_all_zero(path: Path, what: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise InputError where there are tensors and all their numbers are zero; `what` names them."""
    if tensors and not any(bool(value.any()) for value in tensors.values()):
        raise InputError(f"{path}: {what}: every number is 0, so nothing was learned, or the file is damaged")


def single_number(path: Path, key: str, value: Any) -> float:
    """Return the finite number of a tensor of one element; InputError for anything else."""
    one = (
        isinstance(value, torch.Tensor)
        and value.numel() == 1
        and not value.is_complex()
        and not value.is_meta
    )
    if not one and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise InputError(f"{path}: key {key!r} is {torch_files.describe(value)}, expected one number")
    number = value if isinstance(value, int) else float(value)  # a whole number of Python may be too large
    if not abs(number) < LARGEST:
        raise InputError(f"{path}: key {key!r} is {str(number)[:20]}, expected a finite number")
    return float(number)
