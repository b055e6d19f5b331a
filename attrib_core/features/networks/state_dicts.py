"""State dicts: read tensors from a weights file without running code, and load them strictly into a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrib_core.common.errors import InputError
from attrib_core.storage import safetensors_files, torch_files
from attrib_core.storage.file_kinds import Kind, recognise, wrong_kind

if TYPE_CHECKING:
    import torch

EXPECTED = ".safetensors or a .pth of a state_dict"
WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts save the state dict."""


def read(path: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    """Read the tensors of a weights file by name.

    With a `prefix`, only the tensors whose names begin with it, under the rest of their names. Raises InputError for
    a file that cannot be read or holds no such tensors. Code in a pickle is not run.
    """
    import torch

    state = _content(path)
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(
            f"weights: {path} holds no state dict but {torch_files.describe(state)}; expected names and tensors"
        )
    odd = next((name for name in state if not isinstance(name, str)), None)
    if odd is not None:
        raise InputError(
            f"weights: {path} holds no state dict: key {odd!r} is no text; expected names of tensors"
        )
    if not prefix:
        return state
    kept = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if not kept:
        first = next(iter(state), "none at all")
        raise InputError(
            f"prefix: no tensor of {path} has a name that begins with {prefix!r}; the first is {first!r}"
        )
    return kept


def _content(path: Path) -> Any:
    """Return what a weights file holds, by what it is, whatever its name."""
    try:
        if recognise(path, EXPECTED) is Kind.SAFETENSORS:
            return safetensors_files.load(path, EXPECTED, mapped=True)[0]
        wrong_kind(path, EXPECTED, *torch_files.READABLE)
        return torch_files.read(path)
    except InputError as error:
        raise InputError(f"weights: {error}") from None


def load(network: Any, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load a state dict into a network.

    Raises InputError for a tensor that is missing, unexpected or of another shape; `path` names the file.
    """
    expected = network.state_dict()
    problems = [f"{name} missing" for name in expected if name not in state]
    problems += [f"{name} unexpected" for name in state if name not in expected]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    if problems:
        raise InputError(
            f"weights: {path} does not fit the network in {len(problems)} tensors, the first: {problems[0]}"
        )
    network.load_state_dict(dict(state))
