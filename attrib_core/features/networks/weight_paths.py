"""Resolve `weights`: a path, or a model in the local cache of the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from attrib_core.common import hub_cache
from attrib_core.common.errors import InputError, shown_path

HUB = "hub:"
OPEN_CLIP_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""File names of open_clip weights on the hub."""
_HUB_NAME = re.compile(r"hub:(?P<name>[^@]+)(@(?P<revision>.+))?")


def file(weights: str, names: Sequence[str]) -> Path:
    """Return the weights file: the path itself, or the first of `names` in "hub:owner/model@revision".

    Without "@revision" it is the cache's `main`. Raises InputError for a file that is not there; for a hub model the
    message says how to download it and where to put it.
    """
    if weights.startswith(HUB):
        return _cached(weights, names, "name the file of weights in it by `weights`")
    path = Path(os.path.expanduser(weights))
    if not os.path.isfile(path):  # False, too, for a name that no file can have
        raise InputError(f"weights: no file {shown_path(weights)}; expected a path, or hub:owner/model")
    return path


def folder(weights: str, name: str) -> Path:
    """Return the folder that holds the file `name`: the path itself, or the snapshot in the hub's cache."""
    if weights.startswith(HUB):
        return _cached(weights, [name], "name it by `weights`").parent
    path = Path(os.path.expanduser(weights))
    if not os.path.isfile(path / name):
        raise InputError(
            f"weights: no folder {shown_path(weights)} with a file {name}; expected one, or hub:owner/model"
        )
    return path


def _cached(weights: str, names: Sequence[str], instead: str) -> Path:
    match = _HUB_NAME.fullmatch(weights)
    if match is None:
        raise InputError(
            f"weights: {shown_path(weights)} names no model of the hub; expected hub:owner/model@revision"
        )
    first: InputError | None = None
    for name in names:
        try:
            snapshot = hub_cache.snapshot(
                match["name"], match["revision"], name, key="weights", instead=instead
            )
            return snapshot.path / name
        except InputError as error:
            first = first or error
    raise first or InputError(f"weights: {weights!r}; no file to look for")
