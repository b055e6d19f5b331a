"""The protocol of prior images, which every family in `attrib_core/diffusion/priors` implements.

Prior preservation also trains each model on other images of its class (in diffusers: `class_images`). A family
works in two steps: `plan` describes the images of each class without their pixels, which is cheap;
`encoded_images` makes them for those classes that are not stored yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from attrib_core.common.errors import InputError
from attrib_core.diffusion.pipeline.description import BaseModel


class PriorClass(NamedTuple):
    """A class of exemplar sets: kind and coarse noun."""

    kind: str
    category: str


@dataclass(frozen=True)
class PriorInputs:
    """The inputs that a family may read; its module's `READS` names those that it does.

    base: the description of the base model. pool: the files of the pool's parts. excluded: the table of pool rows
    that are no distractors: exemplars, their near duplicates, and images of the same subject or style.
    """

    base: BaseModel | None = None
    pool: Sequence[Path] = ()
    excluded: Path | None = None


@dataclass(frozen=True)
class PriorSet:
    """The planned prior images of a class.

    rows: of the table `prior`, with `image.bytes` None. content: plain values on which the pixels depend, besides
    the rows and the code. locations: where the family finds each image; they may change with the size of parts, so
    they are no part of a key.
    """

    kind: str
    category: str
    rows: list[dict[str, Any]]
    content: Any
    locations: Sequence[Any] = field(default=(), compare=False)


class PriorSource(Protocol):
    """The object that the `load` of a family returns."""

    def plan(self, classes: Sequence[PriorClass], inputs: PriorInputs) -> list[PriorSet]:
        """Plan the images of the classes, in their order; InputError where there are too few."""

    def encoded_images(self, sets: Sequence[PriorSet], inputs: PriorInputs) -> Iterator[bytes]:
        """Yield the encoded images of all rows of some planned sets, in order."""


def prior_row(
    prior_class: PriorClass, number: int, prompt: str, *, seed: int | None = None, path: str | None = None
) -> dict[str, Any]:
    """Make a row of the table `prior` without the image's bytes. path: where the image is from."""
    return {
        "kind": prior_class.kind,
        "category": prior_class.category,
        "prior_index": number,
        "prompt": prompt,
        "seed": seed,
        "image": {"bytes": None, "path": path},
    }


def option_error(option: str, message: str) -> InputError:
    """Make the error for a wrong option of a family; the stage adds the prefix "prior."."""
    error = InputError(f"{option}: {message}")
    error.key = option
    return error
