"""Several encoders side by side: their features at unit length, weighted and concatenated.

The cosine of two images is then the mean of their cosines in the parts, weighted by `weight`.
A part is written like an encoder of the config, with a `weight` beside its options:

    parts:
      content: {family: timm, architecture: tf_efficientnet_lite0, weights: efficientnet-lite0}
      colours: {family: palette, bins: 8, weight: 0.5}

A part may read words where another sees images: `words: {family: text, base_model: {family: bundled}}`.
Parts stand in the order of their names, whatever their order in the config.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.common.validation import validated

FAMILY = "fusion"
IMAGES, BOTH = "images", "both"
Parts = Annotated[
    dict[str, dict[str, Any]],
    Field(
        min_length=1,
        description="encoders by a name of your own: each a family or `preset`, its options, and `weight` (number"
        " above 0, default 1); no fusion among them",
    ),
]


class Part(BaseModel):
    """What a part says beside the options of its family."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    family: str
    weight: float = Field(1.0, gt=0)


class Encoder(Protocol):
    """What a part is loaded as; `reads` may say that it is given words, or pairs of image and words."""

    dim: int
    identity: dict[str, Any]

    def encode(self, inputs: Iterable[Any]) -> np.ndarray: ...


class FusionEncoder:
    """Images as the concatenated features of parts; `dim` is the sum of theirs.

    `reads` is what all parts read, or "both" where they differ.
    """

    def __init__(self, parts: Mapping[str, Encoder], weights: Mapping[str, float], batch: int) -> None:
        self._parts = {name: parts[name] for name in sorted(parts)}
        self._weights, self._batch = weights, batch
        self._reads = {name: getattr(part, "reads", IMAGES) for name, part in self._parts.items()}
        several = set(self._reads.values())
        self.reads = several.pop() if len(several) == 1 else BOTH
        self.dim = sum(part.dim for part in parts.values())
        described = {
            name: {"weight": weights[name], "encoder": part.identity} for name, part in self._parts.items()
        }
        self.identity: dict[str, Any] = {"family": FAMILY, "parts": described, "dim": self.dim}

    def encode(self, inputs: Iterable[Any]) -> np.ndarray:
        """(height, width, 3) uint8 images of any sizes to (images, dim) float32.

        Where `reads` is "words" the inputs are texts, where it is "both" pairs of image and text. A part's
        vector is scaled to the length sqrt(weight); one of zeros stays so. Taken lazily: at most
        `batch` inputs are held at once, since every part must see them.
        """
        source: Iterator[Any] = iter(inputs)
        rows: list[np.ndarray] = []
        while chunk := list(islice(source, self._batch)):
            rows.append(np.concatenate([self._scaled(name, chunk) for name in self._parts], axis=1))
        return np.concatenate(rows) if rows else np.empty((0, self.dim), dtype=np.float32)

    def _scaled(self, name: str, chunk: list[Any]) -> np.ndarray:
        """(chunk, the part's dim) float32. Row by row, so that no sum depends on the other images."""
        own = self._reads[name]
        if own != self.reads:
            chunk = [image if own == IMAGES else words for image, words in chunk]
        vectors = self._parts[name].encode(chunk).astype(np.float64)
        lengths = np.array([np.sqrt(np.square(vector).sum()) for vector in vectors])
        factors = np.sqrt(self._weights[name]) / np.where(lengths > 0, lengths, 1)
        return (vectors * factors[:, np.newaxis]).astype(np.float32)


def load(
    *,
    parts: Parts,
    batch: Annotated[
        int, Field(ge=1, le=1024, description="images held at once; on a GPU the largest `batch` of a part")
    ] = 32,
    device: Annotated[
        str, Field(description="of the parts that do not name one: auto, cpu or cuda")
    ] = "auto",
) -> FusionEncoder:
    """Features of all parts, each at unit length times the square root of its weight.

    Raises InputError, with the key of the part in front, for whatever a part refuses, and for a
    fusion inside the fusion.
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
    """The options with those of every part checked and their defaults filled in."""
    filled: dict[str, dict[str, Any]] = {}
    for name, part in parts.items():
        family, options, weight = _split(name, part)
        inner = families.complete("encoders", {"family": family} | options, f"parts.{name}")
        filled[name] = inner | {"weight": weight}
    return {"parts": filled} | others


def members(*, parts: Mapping[str, Mapping[str, Any]], **_others: Any) -> list[dict[str, Any]]:
    """The sections of the parts, without their weights."""
    split = [_split(name, part) for name, part in parts.items()]
    return [{"family": family} | options for family, options, _ in split]


def dim(*, parts: Mapping[str, Mapping[str, Any]], **_others: Any) -> int | None:
    """Features an image; None where that of a part is not known without opening it."""
    found = [
        families.dim(section, f"parts.{name}")
        for name, section in zip(parts, members(parts=parts), strict=True)
    ]
    known = [width for width in found if width is not None]
    return sum(known) if len(known) == len(found) else None


def files(*, parts: Mapping[str, Mapping[str, Any]], **_others: Any) -> list[Path]:
    """The files of all parts that decide about features."""
    found: list[Path] = []
    for name, part in parts.items():
        family, options, _ = _split(name, part)
        module = families.module("encoders", family, f"parts.{name}")
        try:
            found += module.files(**options) if hasattr(module, "files") else []
        except InputError as error:
            raise error.under(f"parts.{name}") from None
    return found


def others(*, parts: Mapping[str, Mapping[str, Any]], **_others: Any) -> list[str]:
    """Families of other kinds that the parts load."""
    found: list[str] = []
    for name, part in parts.items():
        family, options, _ = _split(name, part)
        module = families.module("encoders", family, f"parts.{name}")
        found += module.others(**options) if hasattr(module, "others") else []
    return found


def _split(name: str, part: Mapping[str, Any]) -> tuple[str, dict[str, Any], float]:
    """Family, options and weight of a part."""
    if isinstance(part, Mapping):
        part = families.with_preset("encoders", part, f"parts.{name}")
    told = validated(Part, part, f"parts.{name}")
    if told.family == FAMILY:
        raise InputError(f"parts.{name}.family: a fusion inside a fusion; put its parts here instead")
    options = {key: value for key, value in part.items() if key not in Part.model_fields}
    return told.family, options, told.weight
