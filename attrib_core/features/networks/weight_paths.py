"""Where the weights of an encoder lie: a path of the user's, or the cache of the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from attrib_core.common import hub_cache
from attrib_core.common.errors import InputError

HUB = "hub:"
OPEN_CLIP_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""The names that open_clip's weights have on the hub."""
_NAMED = re.compile(r"hub:(?P<name>[^@]+)(@(?P<revision>.+))?")


def file(weights: str, names: Sequence[str]) -> Path:
    """The file of weights: the path itself, or of "hub:owner/model@revision" the first of `names` there.

    Without "@revision" the cache's `main` is taken. Raises InputError where it is not there, with
    what to fetch and where to put it.
    """
    if weights.startswith(HUB):
        return _cached(weights, names, "name the file of weights in it by `weights`")
    path = Path(weights).expanduser()
    if not path.is_file():
        raise InputError(f"weights: no file {weights!r}; expected a path, or hub:owner/model")
    return path


def folder(weights: str, name: str) -> Path:
    """The folder that holds the file `name`: the path itself, or the snapshot in the hub's cache."""
    if weights.startswith(HUB):
        return _cached(weights, [name], "name it by `weights`").parent
    path = Path(weights).expanduser()
    if not (path / name).is_file():
        raise InputError(
            f"weights: no folder {weights!r} with a file {name}; expected one, or hub:owner/model"
        )
    return path


def _cached(weights: str, names: Sequence[str], instead: str) -> Path:
    told = _NAMED.fullmatch(weights)
    if told is None:
        raise InputError(f"weights: {weights!r} names no model of the hub; expected hub:owner/model@revision")
    first: InputError | None = None
    for name in names:
        try:
            found = hub_cache.snapshot(told["name"], told["revision"], name, key="weights", instead=instead)
            return found.path / name
        except InputError as error:
            first = first or error
    raise first or InputError(f"weights: {weights!r}; no file to look for")
