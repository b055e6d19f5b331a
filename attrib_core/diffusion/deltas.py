"""Deltas: what customization changed, as files that stock diffusers loads.

Two files a model: safetensors of plain UNet keys, which `unet.load_state_dict(...,
strict=False)` takes, and safetensors of one vector under the modifier token's
name, which `load_textual_inversion` takes. (`unet.load_attn_procs` of diffusers'
own Custom Diffusion layout loads nothing and says nothing.)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from attrib_core.diffusion import stacked
from attrib_core.diffusion.components import Components
from attrib_core.errors import InputError


@dataclass(frozen=True)
class Delta:
    """What one customized model changes: UNet weights by state-dict key, and the token's embedding."""

    weights: dict[str, torch.Tensor]
    row: torch.Tensor


def paths(folder: Path, model_key: str) -> tuple[Path, Path]:
    """Delta file and token file of a model."""
    return folder / f"{model_key}.safetensors", folder / f"{model_key}.token.safetensors"


def write(folder: Path, model_key: str, delta: Delta, token: str) -> str:
    """Write both files of a model, each whole or not at all; returns their checksum."""
    weights = {key: value.detach().cpu().contiguous() for key, value in sorted(delta.weights.items())}
    parts = save_tensors(weights), save_tensors({token: delta.row.detach().cpu().contiguous()})
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in zip(paths(folder, model_key), parts, strict=True):
        write_whole(path, content)
    return hashlib.sha256(b"".join(parts)).hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def checksum(delta_path: Path, token_path: Path) -> str:
    """SHA-256 of the delta's bytes followed by the token file's; FileNotFoundError where one is missing."""
    return hashlib.sha256(delta_path.read_bytes() + token_path.read_bytes()).hexdigest()


def read(delta_path: Path, token_path: Path, token: str, expected: str) -> Delta:
    """Both files of a model, after a check of their bytes against a checksum.

    Raises InputError for a missing, changed or unreadable file.
    """
    try:
        parts = delta_path.read_bytes(), token_path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename}: no such delta; run the rule customize_part of its part again"
        ) from None
    if hashlib.sha256(b"".join(parts)).hexdigest() != expected:
        raise InputError(
            f"{delta_path}: its bytes, with those of {token_path.name}, are not those of the table of models;"
            " delete both and run the rule customize_part of its part again"
        )
    try:
        weights, rows = (load_tensors(part) for part in parts)
    except SafetensorError as error:
        raise InputError(f"{delta_path}: not readable as safetensors: {error}") from None
    if set(rows) != {token}:
        raise InputError(f"{token_path}: holds {sorted(rows)}, expected one vector named {token!r}")
    return Delta(weights, rows[token])


@contextmanager
def applied(components: Components, models: Sequence[Delta | None]) -> Iterator[None]:
    """Inside, the i-th of every len(models) equal runs of a batch's rows is by the i-th model.

    None stands for the base model: its own weights, and no embedding for the
    token (its row is NaN, so that a prompt with the token cannot pass unseen).
    Raises InputError for a delta whose keys or shapes do not fit the base model.
    """
    if components.token is None:
        raise ValueError("components without a modifier token; call with_token first")
    names = sorted({key for model in models if model is not None for key in model.weights})
    layers: dict[str, torch.nn.Module] = {}
    for key in names:
        own = stacked.linear_weight(components.unet, key)
        chosen = [own if model is None else model.weights.get(key, own) for model in models]
        for weight in chosen:
            if weight.shape != own.shape:
                raise InputError(
                    f"delta key {key!r}: shape {tuple(weight.shape)}, the base model has {tuple(own.shape)}"
                )
        weights = torch.stack([weight.to(own.device, own.dtype) for weight in chosen])
        layers[key.removesuffix(".weight")] = stacked.StackedLinear(weights)
    table = components.table
    nowhere = torch.full((table.shape[1],), float("nan"))
    rows = torch.stack([nowhere if model is None else model.row.to(nowhere) for model in models])
    embedding = stacked.StackedEmbedding(table, components.token, rows.to(table.device, table.dtype))
    with ExitStack() as stack:
        stack.enter_context(stacked.swapped(components.unet, layers))
        stack.enter_context(stacked.swapped_embedding(components.text_encoder, embedding))
        yield


def load_into(pipe: StableDiffusionPipeline, delta_path: Path, token_path: Path, token: str) -> None:
    """Load a delta into a stock pipeline by stock calls, and check that the weights really changed.

    Raises InputError for keys that the UNet lacks, and where after loading the
    weights are what they were before, or the token's embedding is not the file's.
    """
    weights: dict[str, torch.Tensor] = load_tensors(delta_path.read_bytes())
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items() if key in weights}
    result: Any = pipe.unet.load_state_dict(weights, strict=False)
    if result.unexpected_keys:
        raise InputError(f"{delta_path}: key {result.unexpected_keys[0]!r} is none of the pipeline's UNet")
    after = pipe.unet.state_dict()
    if all(torch.equal(before[key], after[key]) for key in weights):
        raise InputError(
            f"{delta_path}: after loading, no weight of the UNet has changed; is it loaded already?"
        )
    pipe.load_textual_inversion(str(token_path), token=token)
    row = load_tensors(token_path.read_bytes())[token]
    loaded = pipe.text_encoder.get_input_embeddings().weight[pipe.tokenizer.convert_tokens_to_ids(token)]
    if not torch.allclose(loaded.float().cpu(), row.float(), atol=1e-6):
        raise InputError(f"{token_path}: after loading, the embedding of {token!r} is not that of the file")
