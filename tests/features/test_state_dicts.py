"""Weights files: read by what they are, whatever their names; what holds no state dict is named in one line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from attrib_core.common.errors import InputError
from attrib_core.features.networks import state_dicts

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.bfloat16)}
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 492265168\n"


def old(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def script(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), path)


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.pth.tar", "w.safetensors"])
@pytest.mark.parametrize("save", [torch.save, old, save_file])
def test_weights_are_read_by_what_they_are(
    save: Callable[[Any, Path], None], name: str, tmp_path: Path
) -> None:
    if name.endswith("safetensors") and save is not save_file:
        pytest.skip("torch takes such a name for the format")
    path = tmp_path / name
    wrappers: list[dict[str, Any]] = [STATE]
    if save is not save_file:
        wrappers += [{"state_dict": STATE, "epoch": 3}, {"model": STATE, "optimizer": {"lr": 0.1}}]
        wrappers.append({name: torch.nn.Parameter(value) for name, value in STATE.items()})
    for content in wrappers:
        save(content, path)
        found = state_dicts.read(path)
        assert set(found) == set(STATE)
        assert all(
            torch.equal(found[key], value) and found[key].dtype == value.dtype for key, value in STATE.items()
        )


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize(
    ("write", "words"),
    [
        (
            lambda path: torch.save({"state_dict": STATE, "args": argparse.Namespace(lr=1)}, path),
            "needs code to unpickle (argparse.Namespace), refused",
        ),
        (lambda path: torch.save({"lr": np.float64(1)} | STATE, path), "needs code to unpickle (numpy"),
        (lambda path: path.write_text(LFS), "is a Git LFS pointer"),
        (script, "is a TorchScript program; expected .safetensors or a .pth of a state_dict"),
        (lambda path: torch.save({1: torch.ones(2)}, path), "key 1 is no text; expected names of tensors"),
        (lambda path: torch.save(STATE | {"epoch": 3}, path), "holds no state dict but a dict with"),
        (lambda path: torch.save([1, 2], path), "holds no state dict but a list of 2"),
        (lambda path: path.write_bytes(b"\x10\0\0\0\0\0\0\0{" + b"x" * 40), "not readable as safetensors: "),
        (lambda path: path.mkdir(), "a folder; expected .safetensors"),
    ],
)
def test_other_files_are_one_line(write: Callable[[Path], Any], words: str, tmp_path: Path) -> None:
    write(tmp_path / "w.pth")
    with pytest.raises(InputError) as caught:
        state_dicts.read(tmp_path / "w.pth")
    line = str(caught.value)
    assert line.startswith("weights: ") and words in line and "\n" not in line and "\x1b" not in line
    assert not any(advice in line for advice in ("weights_only", "trust", "unsafe"))
