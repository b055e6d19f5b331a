"""Inputs of the stages `customize` and `prior`: exemplar sets, classes, and prior images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from attrib_core.common.errors import InputError
from attrib_core.diffusion.customization.prior_protocol import PriorClass, PriorInputs
from attrib_core.diffusion.customization.training_data import ExemplarSet
from attrib_core.diffusion.pipeline import description
from attrib_core.storage import tables

EXEMPLAR_COLUMNS = ("exemplar_id", "exemplar_set", "image", "kind", "category", "subject")
ROWS_A_BATCH = 256


def read_part(path: Path, part: int, size: int) -> list[ExemplarSet]:
    """Read the exemplar sets numbered part * size to (part + 1) * size - 1 in the table `exemplars`.

    The table is streamed; only the images of the part are kept in memory.
    """
    numbers: dict[str, int] = {}
    found: dict[str, ExemplarSet] = {}
    for batch in tables.iterate([path], EXEMPLAR_COLUMNS, ROWS_A_BATCH):
        for row in batch.to_pylist():
            name = row["exemplar_set"]
            if numbers.setdefault(name, len(numbers)) // size == part:
                one = found.setdefault(name, ExemplarSet(name, row["kind"], row["category"], {}))
                one.images[row["exemplar_id"]] = row["image"]["bytes"]
                if row["subject"] is not None:
                    one.subjects[row["exemplar_id"]] = row["subject"]
    if not found:
        raise InputError(f"{path}: part {part} of {size} sets asked, but it has {len(numbers)} sets")
    return list(found.values())


def read_classes(path: Path) -> list[PriorClass]:
    """Read the classes of all exemplar sets, sorted."""
    table = tables.read(path, "exemplars", columns=["kind", "category"])
    return sorted({PriorClass(row["kind"], row["category"]) for row in table.to_pylist()})


def read_prior_inputs(base_model: Sequence[str], pool: Sequence[str], excluded: Sequence[str]) -> PriorInputs:
    """Describe what prior images may be taken from; each argument is a path, a list of paths, or an empty list."""
    return PriorInputs(
        base=description.read(Path(str(base_model))) if base_model else None,
        pool=[Path(part) for part in pool],
        excluded=Path(str(excluded)) if excluded else None,
    )


def read_prior(path: Path, classes: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Read the rows of the table `prior` for some classes."""
    wanted = set(classes)
    columns = ("kind", "category", "prompt", "image")
    rows = (row for batch in tables.iterate([path], columns, ROWS_A_BATCH) for row in batch.to_pylist())
    return [row for row in rows if (row["kind"], row["category"]) in wanted]
