"""What the families of prior images read: a pool, a folder and a base model; and their options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attrib_core.common import families
from attrib_core.diffusion.customization import prior_images
from attrib_core.diffusion.customization.prior_protocol import PriorClass, PriorInputs, PriorSource
from attrib_core.storage import tables
from tests.diffusion import diffusion_fixtures as fixtures

ANIMAL = PriorClass("object", "animal")
FRUIT = PriorClass("object", "fruit")
ART = PriorClass("style", "art")
NOUNS = ("animal", "fruit", "art")
COUNT = 3
COLOURS = ("red", "green", "blue", "large", "small", "old", "new")


def pool_rows(count: int = 60) -> list[dict[str, Any]]:
    """Rows of a pool whose captions name the classes, some of them twice, in random order."""
    rng = np.random.default_rng(5)
    rows = []
    for number in range(count):
        said = rng.choice(COLOURS, rng.integers(1, 5)).tolist()
        if number % 4:
            said.insert(rng.integers(0, len(said) + 1), NOUNS[number % 3])
        if number % 8 == 1:
            said.append(NOUNS[number % 3].upper())
        rows.append(row(f"row-{rng.integers(10**9):09d}", " ".join(said), number))
    return rows


def row(image_id: str, caption: str, number: int, **changes: Any) -> dict[str, Any]:
    """A row of a pool; its image and perceptual hash depend on its number."""
    plain: dict[str, Any] = {
        "image_id": image_id, "image": {"bytes": fixtures.png(number), "path": None}, "caption": caption,
        "subject": None, "category": None, "style": None, "width": 32, "height": 32,
        "perceptual_hash": number, "licence": "CC0-1.0", "attribution": "nobody",
    }  # fmt: skip
    return plain | changes


def write_pool(
    folder: Path, rows: Sequence[dict[str, Any]], *, size: int, excluded: Sequence[str] = ()
) -> PriorInputs:
    parts = []
    for start in range(0, len(rows), size):
        parts.append(folder / f"part-{start}.parquet")
        tables.write(parts[-1], "pool", list(rows[start : start + size]))
    out = [{"image_id": name, "reason": "near_duplicate", "exemplar_id": "x.0"} for name in excluded]
    tables.write(folder / "excluded.parquet", "excluded", out)
    return PriorInputs(pool=parts, excluded=folder / "excluded.parquet")


@dataclass
class World:
    """The inputs of the families, in a folder of the test, and their options."""

    inputs: PriorInputs
    options: dict[str, dict[str, Any]]
    run: Path

    def source(self, family: str, **changes: Any) -> PriorSource:
        found: PriorSource = families.load(
            "priors", family, self.options[family] | changes, where="prior", device="cpu", seed=3
        )
        return found

    def images(self, family: str, classes: Sequence[PriorClass], **changes: Any) -> list[dict[str, Any]]:
        where, inputs = changes.pop("run", self.run), changes.pop("inputs", self.inputs)
        settings = {"family": family} | self.options[family] | changes
        given = {"run": where, "seed": 3, "code": "code", "device": "cpu"}
        return [
            row
            for _, table in prior_images.images(classes, settings, inputs, **given)
            for row in table.to_pylist()
        ]


def pixels(rows: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (one["kind"], one["category"], one["prior_index"], one["prompt"], one["seed"], one["image"]["bytes"])
        for one in rows
    ]
