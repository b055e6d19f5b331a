"""The file of a modifier token: its vectors in the text encoder, or in both of SDXL's.

For one text encoder it has one tensor under the token's name, which
`load_textual_inversion` opens. For two it has `clip_l` and `clip_g`, (vectors, dim) each,
as most trainers and user interfaces of the field write and read it; each goes to
`load_textual_inversion` with its own tokenizer and text encoder. Elsewhere the token is
named as such a file is; ours says it in its metadata too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as save_tensors

from attrib_core.common.errors import InputError

FIRST, SECOND = "clip_l", "clip_g"
NAME = "modifier_token"


def to_bytes(token: str, row: torch.Tensor, second: torch.Tensor | None = None) -> bytes:
    """The file's bytes. `row` and `second` are (dim,), or (vectors, dim) where the token stands for a few."""
    if second is None:
        return save_tensors({token: row.detach().cpu().contiguous()})
    rows = {FIRST: row, SECOND: second}
    tensors = {name: torch.atleast_2d(one.detach().cpu()).contiguous() for name, one in rows.items()}
    return save_tensors(tensors, {NAME: token})


def token_name(path: Path) -> str:
    """The token of a file for two text encoders: what its metadata says, else its own name."""
    if path.suffix != ".safetensors":
        return path.stem
    with safe_open(path, framework="pt") as stored:
        said: dict[str, str] = stored.metadata() or {}
    return said.get(NAME, path.stem)


def is_for_two_encoders(stored: Mapping[str, object]) -> bool:
    """Whether a file is for two text encoders."""
    return bool(stored) and set(stored) <= {FIRST, SECOND}


def embeddings_of(stored: Mapping[str, torch.Tensor], token: str, where: Path) -> list[torch.Tensor]:
    """A token's vectors in each text encoder, from its file's tensors.

    Raises InputError for a file that holds another token, or half of what two text encoders need.
    """
    if is_for_two_encoders(stored):
        return embedding_pair(stored, where)
    if set(stored) != {token}:
        raise InputError(f"{where}: holds {sorted(stored)}, expected one vector named {token!r}")
    return [stored[token]]


def embedding_pair(stored: Mapping[str, torch.Tensor], where: Path) -> list[torch.Tensor]:
    """Vectors for both text encoders; InputError where one is missing or they are not as many."""
    for name in (FIRST, SECOND):
        if name not in stored:
            raise InputError(f"{where}: lacks {name!r}, the token's vectors for one of two text encoders")
    rows = [torch.atleast_2d(stored[name]) for name in (FIRST, SECOND)]
    if len(rows[0]) != len(rows[1]):
        raise InputError(
            f"{where}: {len(rows[0])} vectors of {FIRST} and {len(rows[1])} of {SECOND}, expected as many of each"
        )
    return rows
