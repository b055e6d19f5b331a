"""The file of a modifier token: its embedding in the text encoder, or in both text encoders of SDXL.

For one text encoder it has one tensor under the token's name, which `load_textual_inversion` reads. For two it has
`clip_l` and `clip_g`, (vectors, dim) each, as most trainers and user interfaces write and read it; each of them goes
to `load_textual_inversion` with its own tokenizer and text encoder. The name of such a file is the token; files that
this package writes also have it in their metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors

from attrib_core.common.errors import InputError
from attrib_core.storage import safetensors_files

FIRST, SECOND = "clip_l", "clip_g"
NAME = "modifier_token"


def to_bytes(token: str, embedding: torch.Tensor, embedding_2: torch.Tensor | None = None) -> bytes:
    """Serialize embeddings, each (dim,), or (vectors, dim) where the token has several vectors."""
    if embedding_2 is None:
        return save_tensors({token: embedding.detach().cpu().contiguous()})
    pair = {FIRST: embedding, SECOND: embedding_2}
    tensors = {name: torch.atleast_2d(one.detach().cpu()).contiguous() for name, one in pair.items()}
    return save_tensors(tensors, {NAME: token})


def token_name(path: Path) -> str:
    """Read the token of a file for two text encoders from its metadata, or else from the name of the file."""
    if path.suffix != ".safetensors":
        return path.stem
    return safetensors_files.header(path).metadata.get(NAME, path.stem)


def is_for_two_encoders(stored: Mapping[str, object]) -> bool:
    """Tell whether the tensors of a file are for two text encoders."""
    return bool(stored) and set(stored) <= {FIRST, SECOND}


def embeddings_of(stored: Mapping[str, torch.Tensor], token: str, where: Path) -> list[torch.Tensor]:
    """Return a token's embedding in each text encoder, from the tensors of its file.

    Raises InputError for a file of another token, or with only one of two embeddings.
    """
    if is_for_two_encoders(stored):
        return embedding_pair(stored, where)
    if set(stored) != {token}:
        raise InputError(f"{where}: holds {sorted(stored)}, expected one vector named {token!r}")
    return [stored[token]]


def embedding_pair(stored: Mapping[str, torch.Tensor], where: Path) -> list[torch.Tensor]:
    """Return the embeddings for both text encoders; InputError without one, or with unlike numbers of vectors."""
    for name in (FIRST, SECOND):
        if name not in stored:
            raise InputError(f"{where}: lacks {name!r}, the token's embedding in one of two text encoders")
    rows = [torch.atleast_2d(stored[name]) for name in (FIRST, SECOND)]
    if len(rows[0]) != len(rows[1]):
        raise InputError(
            f"{where}: {len(rows[0])} vectors of {FIRST} and {len(rows[1])} of {SECOND}, expected as many of each"
        )
    return rows
