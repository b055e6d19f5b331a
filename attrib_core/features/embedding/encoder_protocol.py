"""The interface of an encoder, and loading one from its config section."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from attrib_core.common import families
from attrib_core.common.errors import InputError

INPUT_KINDS = ("images", "text", "both")


class Encoder(Protocol):
    """A feature function on images, on text, or on pairs of both; the families of `encoders` load one.

    `dim` is the number of features. `identity` holds what determines them (family, options, checksum of the weights)
    as plain JSON values. The bits of an input's features do not depend on the other inputs.

    Optional attributes: `reads`, one of INPUT_KINDS and "images" by default, says whether inputs are images, texts, or
    pairs of an image and a text. `batch_size` is the number of inputs encoded together. With `prepare` and
    `encode_prepared`, `encode(inputs)` is `encode_prepared(map(prepare, inputs))`, and `prepare` runs in the threads
    that decode images.
    """

    dim: int
    identity: dict[str, Any]

    def encode(self, inputs: Iterable[Any]) -> np.ndarray:
        """Encode inputs, consumed lazily, as (inputs, dim) float32; an image is (height, width, 3) uint8."""
        ...


def load(section: Mapping[str, Any], where: str, *, device: str = "auto") -> Encoder:
    """Load the encoder of a config section on a device; an InputError names the config key `where`."""
    family, options = families.split(section)
    try:
        encoder: Encoder = families.load("encoders", family, options, where=where, device=device)
    except InputError as error:
        raise error.under(where) from None
    return encoder


def input_kind(encoder: Encoder) -> str:
    """Return what an encoder reads, one of INPUT_KINDS."""
    kind: str = getattr(encoder, "reads", "images")
    if kind not in INPUT_KINDS:
        family = encoder.identity.get("family")
        raise InputError(f"encoder {family!r} reads {kind!r}, expected one of {', '.join(INPUT_KINDS)}")
    return kind


def input_columns(encoder: Encoder, text_column: str | None, *, where: str) -> tuple[str | None, str | None]:
    """Return the image column and the text column that an encoder reads, None for one that it does not.

    Raises InputError if the encoder reads text and `text_column` is None.
    """
    kind = input_kind(encoder)
    if kind != "images" and text_column is None:
        raise InputError(
            f"{where}: encoder {encoder.identity.get('family')!r} reads text; name the column of it"
        )
    return None if kind == "text" else "image", None if kind == "images" else text_column
