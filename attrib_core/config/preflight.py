"""Open the base model, encoders and index of a config before a run needs them.

`load_config` checks keys and values only. Missing weights, an unknown architecture or an index
that FAISS cannot build show only when they are opened, which in a run may be hours later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import faiss

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.diffusion.pipeline import description, weight_files
from attrib_core.features.embedding import encoder_protocol
from attrib_core.features.index.factory_string import AUTO


def open_all(config: Mapping[str, Any]) -> Iterator[str]:
    """Open base model, encoders and index of a config (plain values) and yield a line about each.

    Everything is opened on the CPU. Raises InputError, prefixed with the config key, for what
    cannot be opened.
    """
    family, options = families.split(config["base_model"])
    try:
        base = families.load("base_models", family, options, where="base_model")
        notes = list(_check_weights(base.path))
    except InputError as error:
        raise error.under("base_model") from None
    widths = " + ".join(map(str, description.text_widths(base.path)))
    yield (
        f"base model: {base.resolution} pixels, {base.prediction_type}, text {widths} wide,"
        f" fingerprint {base.fingerprint[:12]}"
    )
    yield from notes
    for name, section in config["encoders"].items():
        encoder = encoder_protocol.load(section, where=f"encoders.{name}", device="cpu")
        yield f"encoder {name}: {encoder.dim} features"
        _check_index(config["index"]["factory"], encoder.dim, name)


def _check_weights(folder: Path) -> Iterator[str]:
    """Compare the weights of a base model with its networks, read all of their numbers once, and yield lines."""
    from attrib_core.diffusion.pipeline import networks  # imports torch

    for note in networks.check(folder):
        yield f"warning: {note}"
    paths = [
        path
        for part, stem in description.weight_parts(folder).items()
        for path in weight_files.of_part(folder / part, stem)
    ]
    size = sum(weight_files.check_numbers(path) for path in paths)
    yield f"base model weights: {len(paths)} files, {size / 1e9:.2f} GB read once, no NaN"


def _check_index(factory: str, dim: int, encoder: str) -> None:
    if factory == AUTO:  # fits any dimension
        return
    try:
        faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        reason = str(error).rsplit(": ", 1)[-1].strip()
        raise InputError(
            f"index.factory: {factory!r} is no index that FAISS builds for the {dim} features of encoder"
            f" {encoder!r} ({reason}); 'Flat' always works"
        ) from None
