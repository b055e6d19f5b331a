"""One stack from exemplars to files.

The fingerprint of the code that this module and `concepts` reach is part of every
model's key. So what does not touch a model (reading tables, listing models)
stays out of them.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from attrib_core.customization import concepts, training
from attrib_core.customization.concepts import ExemplarSet, Prior
from attrib_core.customization.training import Customizer
from attrib_core.diffusion import components, deltas
from attrib_core.diffusion.components import Components
from attrib_core.diffusion.description import BaseModel
from attrib_core.errors import InputError
from attrib_core.jobs import duration

LOGGER = logging.getLogger(__name__)


def network(base: BaseModel, token: str, device: str) -> Components:
    """The base model, loaded, with the modifier token."""
    return components.with_token(components.load(base, device), token)


def train(
    members: Sequence[ExemplarSet],
    model_keys: Mapping[str, str],
    prior_of: Mapping[tuple[str, str], Prior],
    loaded: Components,
    method: Customizer,
    *,
    folder: Path,
    token: str,
    seed: int,
) -> None:
    """Train a stack of sets of one kind and write their models to a folder, each with its record last."""
    began = time.monotonic()
    (kind,) = {one.kind for one in members}
    steps = method.steps_of(kind)
    templates = {"object": method.object_prompt, "style": method.style_prompt}
    ready = [
        concepts.concept(
            one,
            loaded,
            prompts=concepts.training_prompts(one, templates, token),
            prior=prior_of.get((one.kind, one.category)),
            views=method.views,
            scale_jitter=method.scale_jitter,
            shift=method.shift,
            seed=seed,
        )
        for one in members
    ]
    try:
        trained = training.train(ready, loaded, method, steps=steps, seed=seed)
    except torch.cuda.OutOfMemoryError:
        raise InputError(
            f"customizer.stack: {method.stack} sets at a time do not fit the memory of {loaded.device};"
            " choose a smaller number"
        ) from None
    seconds = time.monotonic() - began
    for one, model in zip(members, trained, strict=True):
        key = model_keys[one.name]
        record = {
            "checksum": deltas.write(folder, key, model.delta, token),
            "exemplar_set": one.name,
            "steps": steps,
            "loss": model.loss,
            "seconds": seconds / len(members),
            "device": str(loaded.device),
        }
        deltas.write_whole(folder / f"{key}.json", json.dumps(record, indent=2).encode())
    LOGGER.info("customized %d sets in %s", len(members), duration(seconds))


def finished(folder: Path, key: str) -> dict[str, Any] | None:
    """The record of a finished model, after a check of its files' bytes; None where it must be made."""
    try:
        record: dict[str, Any] = json.loads((folder / f"{key}.json").read_text("utf-8"))
        if deltas.checksum(*deltas.paths(folder, key)) == record["checksum"]:
            return record
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return None
