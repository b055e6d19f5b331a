"""What a config names, opened before a run needs it: base model, encoders, index.

`load_config` checks words and numbers. Weights that are missing, an architecture that a library
does not know or an index that FAISS cannot make show only where they are opened, and a run would
meet them after hours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import faiss

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.diffusion.pipeline import description
from attrib_core.features.embedding import encoder_protocol
from attrib_core.features.index.factory_string import AUTO


def opened(config: Mapping[str, Any]) -> Iterator[str]:
    """Open all that a config as plain values names; a line about each.

    On the CPU, whatever the run will use. Raises InputError, with the config's key in front, for
    what cannot be opened.
    """
    family, options = families.split(config["base_model"])
    try:
        base = families.load("base_models", family, options, where="base_model")
    except InputError as error:
        raise error.under("base_model") from None
    widths = " + ".join(map(str, description.text_widths(base.path)))
    yield (
        f"base model: {base.resolution} pixels, {base.prediction_type}, text {widths} wide,"
        f" fingerprint {base.fingerprint[:12]}"
    )
    for name, section in config["encoders"].items():
        encoder = encoder_protocol.load(section, where=f"encoders.{name}", device="cpu")
        yield f"encoder {name}: {encoder.dim} features"
        _index(config["index"]["factory"], encoder.dim, name)


def _index(factory: str, dim: int, encoder: str) -> None:
    if factory == AUTO:  # fits any dimension
        return
    try:
        faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        reason = str(error).rsplit(": ", 1)[-1].strip()
        raise InputError(
            f"index.factory: {factory!r} is no index that FAISS makes of the {dim} features of encoder"
            f" {encoder!r} ({reason}); one that it makes is 'Flat'"
        ) from None
