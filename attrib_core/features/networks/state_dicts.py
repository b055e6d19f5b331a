"""State dicts: read tensors from a weights file without running code, and load them strictly into a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrib_core.common.errors import InputError

if TYPE_CHECKING:
    import torch

WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts save the state dict."""


def read(path: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    """Read the tensors of a weights file by name.

    With a `prefix`, only the tensors whose names begin with it, under the rest of their names. Raises InputError for
    a file that cannot be read or holds no such tensors. Code in a pickle is not run.
    """
    import torch

    state: Any
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has errors of its own for damaged files
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"weights: {path} cannot be read ({line}); expected .safetensors or a plain .pth"
        ) from None
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"weights: {path} holds no state dict; expected names and tensors")
    if not prefix:
        return state
    kept = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if not kept:
        first = next(iter(state), "none at all")
        raise InputError(
            f"prefix: no tensor of {path} has a name that begins with {prefix!r}; the first is {first!r}"
        )
    return kept


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
