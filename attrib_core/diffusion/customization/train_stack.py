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

from attrib_core.common.errors import InputError
from attrib_core.diffusion.customization import training_data, training_loop
from attrib_core.diffusion.customization.augmentation import Augmentation
from attrib_core.diffusion.customization.method import Customizer
from attrib_core.diffusion.customization.training_data import EncodedPrior, EncodedSet, ExemplarSet
from attrib_core.diffusion.customization.training_loop import Failed, Trained
from attrib_core.diffusion.deltas import delta_files
from attrib_core.diffusion.pipeline import components
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.diffusion.pipeline.description import BaseModel
from attrib_core.runtime import hardware
from attrib_core.runtime.durations import duration
from attrib_core.storage import atomic

LOGGER = logging.getLogger(__name__)


def load_network(base: BaseModel, token: str, device: str, tokens: int = 1) -> Components:
    """The base model, loaded, with the modifier token, which may stand for several."""
    return components.with_token(components.load(base, device), token, tokens)


def train(
    members: Sequence[ExemplarSet],
    model_keys: Mapping[str, str],
    prior_of: Mapping[tuple[str, str], EncodedPrior],
    loaded: Components,
    method: Customizer,
    *,
    folder: Path,
    token: str,
    seed: int,
    width: int | None = None,
) -> tuple[int, list[str]]:
    """Train a stack of sets of one kind and write their models to a folder, each with its record last.

    Returns how many sets fit the memory at a time, at most `width` (`method.stack` where that
    is None), and a line for each set that failed; the others are written nevertheless.
    """
    began = time.monotonic()
    device = str(loaded.device)
    hardware.reset_peak_memory(device)
    (kind,) = {one.kind for one in members}
    steps = method.steps_of(kind)
    ready: list[EncodedSet] = []
    failures = []
    for one in members:
        try:
            ready.append(_prepared(one, loaded, method, prior_of.get((one.kind, one.category)), token, seed))
        except InputError as error:
            failures.append(str(error))
    trained, width = _fitting(ready, loaded, method, steps=steps, seed=seed, width=width or method.stack)
    seconds, peak = time.monotonic() - began, hardware.peak_memory(device)
    for concept, model in zip(ready, trained, strict=True):
        if isinstance(model, Failed):
            failures.append(model.reason)
            continue
        key = model_keys[concept.name]
        record = {
            "checksum": delta_files.write(folder, key, model.delta, token),
            "exemplar_set": concept.name,
            "steps": steps,
            "loss": model.loss,
            "seconds": seconds / len(members),
            "peak_memory": peak,
            "threads": hardware.threads(),
            "device": device,
            "device_name": hardware.device_name(device),
        }
        atomic.write_bytes(folder / f"{key}.json", json.dumps(record, indent=2).encode())
    LOGGER.info(
        "customized %d sets in %s, %.0f MB at most",
        len(members) - len(failures),
        duration(seconds),
        peak / 1e6,
    )
    return width, failures


def _prepared(
    one: ExemplarSet,
    loaded: Components,
    method: Customizer,
    prior: EncodedPrior | None,
    token: str,
    seed: int,
) -> EncodedSet:
    templates = {"object": method.object_prompt, "style": method.style_prompt}
    return training_data.encode_exemplar_set(
        one,
        loaded,
        prompts=training_data.training_prompts(one, templates, token),
        prior=prior,
        views=method.views,
        scale_jitter=method.scale_jitter,
        shift=method.shift,
        seed=seed,
        augmentation=Augmentation(
            random_resize=method.random_resize,
            size_prompts=method.size_prompts,
            loss_mask=method.loss_mask,
            horizontal_flip=method.horizontal_flip,
        ),
    )


def _fitting(
    ready: Sequence[EncodedSet], loaded: Components, method: Customizer, *, steps: int, seed: int, width: int
) -> tuple[list[Trained | Failed], int]:
    """Train `width` sets at a time, and half as many wherever memory is too small; models and last width.

    Draws hang on names and steps, so that a narrower stack computes the same but for rounding.
    """
    found: list[Trained | Failed] = []
    while len(found) < len(ready):
        piece = ready[len(found) : len(found) + width]
        try:
            found += training_loop.train(piece, loaded, method, steps=steps, seed=seed, width=width)
            continue
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
        # outside of `except`, so that the error holds no tensors any more
        if width == 1:
            raise InputError(
                f"customizer.stack: not even one set at a time fits the memory of {loaded.device}; set"
                " customizer.checkpointing to true, or choose a smaller exemplar_batch with more accumulation"
            )
        LOGGER.warning("%d sets at a time do not fit the memory of %s; trying half", width, loaded.device)
        width = (width + 1) // 2
        if loaded.device.type == "cuda":
            torch.cuda.empty_cache()
    return found, width


def _out_of_memory(error: RuntimeError) -> bool:
    """On an accelerator torch has a class for it, on the CPU a message."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def finished(folder: Path, key: str) -> dict[str, Any] | None:
    """The record of a finished model, after a check of its files' bytes; None where it must be made."""
    try:
        record: dict[str, Any] = json.loads((folder / f"{key}.json").read_text("utf-8"))
        if delta_files.checksum(*delta_files.paths(folder, key)) == record["checksum"]:
            return record
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return None
