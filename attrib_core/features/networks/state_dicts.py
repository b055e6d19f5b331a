"""State dicts of networks: read from a file as tensors alone, held against the network, put in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrib_core.common.errors import InputError

if TYPE_CHECKING:
    import torch

WRAPPERS = ("state_dict", "model")


def read(path: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a file by name, out of the wrapping that training scripts put around them.

    With a `prefix` those alone whose names begin with it, under the rest of their names. No code
    of a pickle is run. Raises InputError for what cannot be read or holds no such tensors.
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


def fill(network: Any, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load a state dict; every tensor of the network must be there and fit, and none be left over."""
    wanted = network.state_dict()
    odd = [f"{name} missing" for name in wanted if name not in state]
    odd += [f"{name} unexpected" for name in state if name not in wanted]
    odd += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    if odd:
        raise InputError(
            f"weights: {path} does not fit the network in {len(odd)} tensors, the first: {odd[0]}"
        )
    network.load_state_dict(dict(state))
