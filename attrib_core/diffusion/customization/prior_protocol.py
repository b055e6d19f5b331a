"""Prior images: what the stage and the families of `attrib_core/diffusion/priors` say to each other.

Prior preservation trains each model also on images of its class that show anything but the
exemplar. A family answers in two steps: `planned`, the images of each class by all but their
pixels, which is cheap; and `images`, the pixels of those classes that are not kept from before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from attrib_core.common.errors import InputError
from attrib_core.diffusion.pipeline.description import BaseModel


class PriorClass(NamedTuple):
    """The class of some exemplar sets: kind and coarse noun."""

    kind: str
    category: str


@dataclass(frozen=True)
class PriorInputs:
    """What a family may take images from, as far as its module's `READS` names it.

    base: the described base model. pool: the files of the pool's parts. excluded: the table
    of what is no distractor, that is the exemplars and what answers for them.
    """

    base: BaseModel | None = None
    pool: Sequence[Path] = ()
    excluded: Path | None = None


@dataclass(frozen=True)
class PriorSet:
    """The prior images of a class, planned.

    rows: of the table `prior`, with `image.bytes` None. content: plain values that say, beside
    the rows and the code, what the pixels depend on. places: where the family finds each image,
    for itself; they may change with the size of parts and so count for nothing.
    """

    kind: str
    category: str
    rows: list[dict[str, Any]]
    content: Any
    places: Sequence[Any] = field(default=(), compare=False)


class PriorSource(Protocol):
    """What the `load` of a family returns."""

    def plan(self, classes: Sequence[PriorClass], inputs: PriorInputs) -> list[PriorSet]:
        """The sets of the classes, in their order; InputError where there are too few images."""

    def encoded_images(self, sets: Sequence[PriorSet], inputs: PriorInputs) -> Iterator[bytes]:
        """The encoded images of all rows of some planned sets, in order."""


def row(
    one: PriorClass, number: int, prompt: str, *, seed: int | None = None, path: str | None = None
) -> dict[str, Any]:
    """A row of the table `prior` whose image is still to come. path: where the image is from."""
    return {
        "kind": one.kind,
        "category": one.category,
        "prior_index": number,
        "prompt": prompt,
        "seed": seed,
        "image": {"bytes": None, "path": path},
    }


def wrong(option: str, message: str) -> InputError:
    """The error that an option of a family is wrong; the stage puts "prior." in front."""
    error = InputError(f"{option}: {message}")
    error.key = option
    return error
