"""Where the training of heads begins: at features as they are, or at whitened ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attrib_core.features.mapper import whitening
from attrib_core.features.mapper.tuning_data import Material


@dataclass(frozen=True, eq=False)
class Start:
    """Where training begins: features as they are, or whitened with some shrinkage."""

    name: str
    shrinkage: float | None
    white: whitening.Whitening | None

    def __str__(self) -> str:
        return self.name if self.shrinkage is None else f"{self.name} (shrinkage {self.shrinkage:g})"

    def material(self, material: Material) -> Material:
        """The material as seen through this start."""
        return material if self.white is None else material.whitened(self.white)


def begin(
    material: Material, names: Collection[str], shrinkages: Sequence[float], *, shared: bool = False
) -> Iterator[Start]:
    """The identity, then the whitened starts among the names, larger shrinkages first.

    shared  one head maps real and synthesized images, so both are centred alike
    """
    yield Start("identity", None, None)
    for name in sorted(set(names) - {"identity"}):
        pool = np.concatenate([material.distractors, material.negatives])
        spread = whitening.spread(pool, material.train, within=name == "within")
        spread = spread.with_one_mean() if shared else spread
        for shrinkage in sorted(set(shrinkages), reverse=True):
            yield Start(name, shrinkage, spread.whitening(shrinkage))
