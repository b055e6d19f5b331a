"""Embeddings of images, of their words or of both: a part of a table of images in, a part of embeddings out.

Streamed: one image is decoded at a time, or a few ahead where threads decode; an encoder holds one
batch, and at most one row group of embeddings waits to be written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from attrib_core.common import families
from attrib_core.common.errors import InputError

READS = ("images", "words", "both")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Encoder(Protocol):
    """What a family of `encoders` gives: a feature function on images, on their words, or on both.

    `dim` is the number of features, `identity` what decides about them (family, options,
    checksum of the weights) as plain JSON values. The bits of an input's features do not
    depend on which inputs are encoded with it.

    An encoder may have `reads`, one of READS: it is then given texts for "words", and pairs of an image
    and a text for "both". Without it, it is given images.

    An encoder may split its work: `encode(inputs)` is then `encode_prepared(map(prepare, inputs))`,
    and `prepare`, of one input, is run by the threads that decode. It may say its `batch`.
    """

    dim: int
    identity: dict[str, Any]

    def encode(self, inputs: Iterable[Any]) -> np.ndarray:
        """What it reads, taken lazily, to (inputs, dim) float32; an image is (height, width, 3) uint8."""
        ...


def load(section: Mapping[str, Any], where: str, *, device: str = "auto") -> Encoder:
    """The encoder of a config section, on a device; an InputError names the config key `where`."""
    family, options = families.split(section)
    try:
        encoder: Encoder = families.load("encoders", family, options, where=where, device=device)
    except InputError as error:
        raise error.under(where) from None
    return encoder


def reads(encoder: Encoder) -> str:
    """What an encoder is given, one of READS."""
    found: str = getattr(encoder, "reads", READS[0])
    if found not in READS:
        family = encoder.identity.get("family")
        raise InputError(f"encoder {family!r} reads {found!r}, expected one of {', '.join(READS)}")
    return found


def columns(encoder: Encoder, words: str | None, *, where: str) -> tuple[str | None, str | None]:
    """The columns of images and of words that an encoder reads; InputError where its words have no column."""
    read = reads(encoder)
    if read != "images" and words is None:
        raise InputError(
            f"{where}: encoder {encoder.identity.get('family')!r} reads words; name their column"
        )
    return None if read == "words" else "image", None if read == "images" else words
