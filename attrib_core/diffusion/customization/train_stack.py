"""Training of one stack of exemplar sets, from images to files of deltas.

The fingerprint of the code that this module and `training_data` reach is part of every model's key. Code that does
not affect a model (reading tables, listing models) is therefore kept out of them.
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
    """Load the base model, and add the modifier token with `tokens` embeddings."""
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

    Returns the number of sets that fit into memory at a time, at most `width` (default: `method.stack`), and a
    message for each set that failed; the others are written nevertheless.
    """
    began = time.monotonic()
    device = str(loaded.device)
    hardware.reset_peak_memory(device)
    (kind,) = {one.kind for one in members}
    steps = method.steps_of(kind)
    templates = {"object": method.object_prompt, "style": method.style_prompt}
    encoded: list[EncodedSet] = []
    failures = []
    for one in members:
        try:
            prompts = training_data.training_prompts(one, templates, token)
            prior = prior_of.get((one.kind, one.category))
            encoded.append(
                training_data.encode_exemplar_set(
                    one, loaded, method, prompts=prompts, prior=prior, seed=seed
                )
            )
        except InputError as error:
            failures.append(str(error))
    trained, width = _train_within_memory(
        encoded, loaded, method, steps=steps, seed=seed, width=width or method.stack
    )
    seconds, peak = time.monotonic() - began, hardware.peak_memory(device)
    for encoded_set, model in zip(encoded, trained, strict=True):
        if isinstance(model, Failed):
            failures.append(model.reason)
            continue
        key = model_keys[encoded_set.name]
        record = {
            "checksum": delta_files.write(folder, key, model.delta, token),
            "exemplar_set": encoded_set.name,
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


def _train_within_memory(
    sets: Sequence[EncodedSet], loaded: Components, method: Customizer, *, steps: int, seed: int, width: int
) -> tuple[list[Trained | Failed], int]:
    """Train `width` sets at a time, half as many where memory is too small; returns the models and the last width.

    Random draws depend on names and steps, so a narrower stack computes the same up to rounding.
    """
    found: list[Trained | Failed] = []
    while len(found) < len(sets):
        group = sets[len(found) : len(found) + width]
        try:
            found += training_loop.train(group, loaded, method, steps=steps, seed=seed, width=width)
            continue
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
        # outside of `except`, where the error no longer keeps tensors alive
        if width == 1:
            raise InputError(
                f"customizer.stack: not even one set at a time fits into the memory of {loaded.device}; set"
                " customizer.checkpointing to true, or choose a smaller exemplar_batch with more accumulation"
            )
        LOGGER.warning(
            "%d sets at a time do not fit into the memory of %s; trying half", width, loaded.device
        )
        width = (width + 1) // 2
        if loaded.device.type == "cuda":
            torch.cuda.empty_cache()
    return found, width


def _out_of_memory(error: RuntimeError) -> bool:
    """Tell whether an error is for lack of memory: of a class on accelerators, by its message on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def finished(folder: Path, key: str) -> dict[str, Any] | None:
    """Read the record of a finished model and check its files; None where the model must be trained."""
    try:
        record: dict[str, Any] = json.loads((folder / f"{key}.json").read_text("utf-8"))
        if delta_files.checksum(*delta_files.paths(folder, key)) == record["checksum"]:
            return record
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return None
