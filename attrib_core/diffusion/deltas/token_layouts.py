"""The files of tokens that other tools write, and the names that a token can have.

- one tensor for each token under its name: `<new1>.bin`, this package's own files and those of diffusers;
- `clip_l` and `clip_g`: the two text encoders of SDXL, see `token_file`;
- `emb_params`: an embedding of a web user interface, whose name is that of the file;
- {string_to_param: {*: ...}, name: ...}: those of the code of textual inversion and of the same interfaces before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from attrib_core.common.errors import InputError
from attrib_core.diffusion.deltas import tensor_checks, token_file
from attrib_core.storage import torch_files

WEB_UI, WEB_UI_OLDER = "emb_params", "string_to_param"
RENAME = "give it another name with --token"


def recognised(stored: Mapping[str, Any]) -> bool:
    """Tell whether the content of a file is the embedding of a token, or of several."""
    if token_file.is_for_two_encoders(stored) or WEB_UI_OLDER in stored:
        return True
    return all(isinstance(value, torch.Tensor) and "." not in key for key, value in stored.items())


def read(path: Path, stored: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the embeddings by token, and those in the second text encoder; InputError for what is no embedding."""
    if token_file.is_for_two_encoders(stored):
        pair = tensor_checks.floats(path, stored)
        first, second = token_file.embedding_pair(pair, path)
        tensor_checks.check_not_all_zero(path, "the token's embeddings", pair)
        token = token_file.token_name(path)
        return _checked(path, {token: first}, zeros=True), _checked(path, {token: second}, zeros=True)
    if WEB_UI_OLDER in stored:
        params = stored[WEB_UI_OLDER]
        if not isinstance(params, Mapping) or len(params) != 1:
            raise InputError(
                f"{path}: key {WEB_UI_OLDER!r} is {torch_files.describe(params)}, expected the embedding of one token"
            )
        name = stored.get("name")
        stored = {name if isinstance(name, str) and name else path.stem: next(iter(params.values()))}
    elif set(stored) == {WEB_UI}:
        stored = {path.stem: stored[WEB_UI]}
    elif WEB_UI in stored:
        raise InputError(
            f"{path}: has {WEB_UI!r} next to {sorted(set(stored) - {WEB_UI})}, expected one of them"
        )
    return tokens(path, stored), {}


def tokens(path: Path, stored: Mapping[str, Any], *, zeros: bool = False) -> dict[str, torch.Tensor]:
    """Check the embeddings of tokens, by their names; `zeros`: whether one may be zero."""
    return _checked(path, tensor_checks.floats(path, stored), zeros=zeros)


def _checked(path: Path, found: dict[str, torch.Tensor], *, zeros: bool) -> dict[str, torch.Tensor]:
    for token, row in found.items():
        if row.ndim not in (1, 2) or not row.numel():
            raise InputError(
                f"{path}: {token!r} has shape {tuple(row.shape)}, expected a vector, or a few of them"
            )
        if not zeros:
            tensor_checks.check_not_all_zero(path, f"the embedding of token {token!r}", {token: row})
    return found


def name_problem(token: str) -> str:
    """Say why a prompt cannot have a token of this name; "" where it can."""
    if not token.strip():
        return "is empty"
    if token != "".join(token.split()):
        return "has a space, which prompts have between words"
    return "" if token.isprintable() else "has a letter that cannot be printed"


def renamed(
    path: Path, found: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor], name: str
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Give the one token of a delta another name; InputError where it has none, or several."""
    if len(found) != 1:
        raise InputError(f"{path}: --token {name!r} names one token, the delta has {sorted(found) or 'none'}")
    return dict(zip([name], found.values(), strict=True)), dict(zip([name], second.values(), strict=False))
