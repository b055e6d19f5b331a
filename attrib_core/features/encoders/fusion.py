"""A concatenation of several encoders, each scaled to unit length and weighted.

The cosine of two images is then the mean of their cosines in the parts, weighted by `weight`. A part is written like
an encoder of the config, with a `weight` among its options:

    parts:
      content: {family: timm, architecture: tf_efficientnet_lite0, weights: efficientnet-lite0}
      colours: {family: palette, bins: 8, weight: 0.5}

Some parts may read text and others images: `caption: {family: text, base_model: {family: bundled}}`. Parts are
concatenated in the order of their names, whatever their order in the config.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.common.validation import validate
from attrib_core.features.embedding.encoder_protocol import Encoder, input_kind

FAMILY = "fusion"
Parts = Annotated[
    dict[str, dict[str, Any]],
    Field(
        min_length=1,
        description="encoders by a name of your own: each with a family or `preset`, its options, and `weight`"
        " (number above 0, default 1); not a fusion itself",
    ),
]


class Part(BaseModel):
    """The keys of a part other than the options of its family."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    family: str
    weight: float = Field(1.0, gt=0)


class FusionEncoder:
    """The concatenated features of parts; `dim` is the sum of theirs.

    `reads` is that of all parts, or "both" where they differ.
    """

    def __init__(self, parts: Mapping[str, Encoder], weights: Mapping[str, float], batch_size: int) -> None:
        self._parts = {name: parts[name] for name in sorted(parts)}
        self._weights, self._batch_size = weights, batch_size
        self._reads = {name: input_kind(part) for name, part in self._parts.items()}
        kinds = set(self._reads.values())
        self.reads = kinds.pop() if len(kinds) == 1 else "both"
        self.dim = sum(part.dim for part in parts.values())
        descriptions = {
            name: {"weight": weights[name], "encoder": part.identity} for name, part in self._parts.items()
        }
        self.identity: dict[str, Any] = {"family": FAMILY, "parts": descriptions, "dim": self.dim}

    def encode(self, inputs: Iterable[Any]) -> np.ndarray:
        """Encode (height, width, 3) uint8 images, texts, or pairs of both (see `reads`) as (inputs, dim) float32.

        The vector of a part is scaled to the length sqrt(weight); a zero vector stays zero. Inputs are consumed
        lazily: at most `batch_size` of them are held, since every part must encode them.
        """
        iterator: Iterator[Any] = iter(inputs)
        features: list[np.ndarray] = []
        while batch := list(islice(iterator, self._batch_size)):
            features.append(np.concatenate([self._scaled(name, batch) for name in self._parts], axis=1))
        return np.concatenate(features) if features else np.empty((0, self.dim), dtype=np.float32)

    def _scaled(self, name: str, batch: list[Any]) -> np.ndarray:
        """Return the scaled features of one part, (batch, dim of the part) float32."""
        reads = self._reads[name]
        if reads != self.reads:
            batch = [image if reads == "images" else text for image, text in batch]
        vectors = self._parts[name].encode(batch).astype(np.float64)
        # row by row: a sum over the whole array could depend on the other rows
        lengths = np.array([np.sqrt(np.square(vector).sum()) for vector in vectors])
        factors = np.sqrt(self._weights[name]) / np.where(lengths > 0, lengths, 1)
        return (vectors * factors[:, np.newaxis]).astype(np.float32)


def load(
    *,
    parts: Parts,
    batch: Annotated[
        int, Field(ge=1, le=1024, description="images held at once; on a GPU the largest `batch` of a part")
    ] = 32,
    device: Annotated[str, Field(description="of parts that do not name one: auto, cpu or cuda")] = "auto",
) -> FusionEncoder:
    """Load all parts, each to be scaled to the square root of its weight.

    Raises InputError, with the key of the part in front, for errors of a part and for a fusion inside the fusion.
    """
    loaded: dict[str, Encoder] = {}
    weights: dict[str, float] = {}
    for name, part in parts.items():
        family, options, weights[name] = _split(name, part)
        try:
            loaded[name] = families.load("encoders", family, options, where=f"parts.{name}", device=device)
        except InputError as error:
            raise error.under(f"parts.{name}") from None
    return FusionEncoder(loaded, weights, batch)


def checked(*, parts: Mapping[str, Mapping[str, Any]], **others: Any) -> dict[str, Any]:
    """Check the options of every part and return all options with defaults filled in."""
    filled: dict[str, dict[str, Any]] = {}
    for name, part in parts.items():
        family, options, weight = _split(name, part)
        inner = families.complete("encoders", {"family": family} | options, f"parts.{name}")
        filled[name] = inner | {"weight": weight}
    return {"parts": filled} | others


def members(*, parts: Mapping[str, Mapping[str, Any]], **_others: Any) -> list[dict[str, Any]]:
    """Return the sections of the parts, without their weights."""
    split = [_split(name, part) for name, part in parts.items()]
    return [{"family": family} | options for family, options, _ in split]


def dim(*, parts: Mapping[str, Mapping[str, Any]], **_others: Any) -> int | None:
    """Return the number of features; None if that of a part is not known without loading it."""
    dims = [
        families.dim(section, f"parts.{name}")
        for name, section in zip(parts, members(parts=parts), strict=True)
    ]
    known = [dim for dim in dims if dim is not None]
    return sum(known) if len(known) == len(dims) else None


def files(*, parts: Mapping[str, Mapping[str, Any]], **_others: Any) -> list[Path]:
    """Return the files of all parts that determine their features."""
    found: list[Path] = []
    for name, module, options in _modules(parts):
        try:
            found += module.files(**options) if hasattr(module, "files") else []
        except InputError as error:
            raise error.under(f"parts.{name}") from None
    return found


def others(*, parts: Mapping[str, Mapping[str, Any]], **_others: Any) -> list[str]:
    """Return the families of other kinds that the parts load."""
    found: list[str] = []
    for _, module, options in _modules(parts):
        found += module.others(**options) if hasattr(module, "others") else []
    return found


def _modules(parts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ModuleType, dict[str, Any]]]:
    """Yield name, family module and options of each part."""
    for name, part in parts.items():
        family, options, _ = _split(name, part)
        yield name, families.module("encoders", family, f"parts.{name}"), options


def _split(name: str, part: Mapping[str, Any]) -> tuple[str, dict[str, Any], float]:
    """Return family, options and weight of a part."""
    if isinstance(part, Mapping):
        part = families.with_preset("encoders", part, f"parts.{name}")
    keys = validate(Part, part, f"parts.{name}")
    if keys.family == FAMILY:
        raise InputError(f"parts.{name}.family: a fusion inside a fusion; put its parts here instead")
    options = {key: value for key, value in part.items() if key not in Part.model_fields}
    return keys.family, options, keys.weight
