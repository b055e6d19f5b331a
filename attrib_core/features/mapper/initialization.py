"""Where the training of heads starts: from embeddings as they are, or from whitened ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attrib_core.features.mapper import whitening
from attrib_core.features.mapper.tuning_data import TuningData


@dataclass(frozen=True, eq=False)
class Start:
    """A start of training: the identity, or whitening with some shrinkage."""

    name: str
    shrinkage: float | None
    whitening: whitening.Whitening | None

    def __str__(self) -> str:
        return self.name if self.shrinkage is None else f"{self.name} (shrinkage {self.shrinkage:g})"

    def transform(self, data: TuningData) -> TuningData:
        """Return the data with the embeddings on which heads are trained from this start."""
        return data if self.whitening is None else data.whitened(self.whitening)


def candidate_starts(
    data: TuningData, names: Collection[str], shrinkages: Sequence[float], *, shared: bool = False
) -> Iterator[Start]:
    """Yield the identity, then the whitened starts among the names, larger shrinkages first.

    With `shared`, one head maps real and synthesized images, so both are centred alike.
    """
    yield Start("identity", None, None)
    for name in sorted(set(names) - {"identity"}):
        pool = np.concatenate([data.distractors, data.negatives])
        covariance = whitening.estimate_covariance(pool, data.train, within=name == "within")
        covariance = covariance.with_shared_mean() if shared else covariance
        for shrinkage in sorted(set(shrinkages), reverse=True):
            yield Start(name, shrinkage, covariance.whitening(shrinkage))
