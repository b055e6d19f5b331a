"""The file layouts of deltas that other tools write, read into one representation and written from it.

- `unet`: safetensors (or a pickled dictionary) of UNet keys, with a file for each token: this package's own layout,
  and with `.pt` and `<new1>.bin` that of the published deltas;
- `custom-diffusion`: `delta.bin` of the Custom Diffusion code, {unet: ..., modifier_token: ...}, and for SDXL
  modifier_token_2; compressed, it has two factors u, v for each weight;
- `diffusers`: `pytorch_custom_diffusion_weights.bin` or `.safetensors`, with keys of attention processors. Stock
  diffusers writes it, and reads it without effect;
- `lora`: two factors for each weight, in one of the layouts of `lora_layouts`, which `load_lora_weights` reads;
- `token`: only a token's embedding, for one or two text encoders (see `token_layouts`).

Pickled files are read as tensors only: anything else in them is refused and not executed. Tensors with NaN are refused.
What a file has for the text encoder besides the token is listed, since a delta here cannot hold it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save as save_tensors

from attrib_core.common.errors import InputError
from attrib_core.diffusion.deltas import lora_factors, lora_layouts, tensor_checks, token_file, token_layouts
from attrib_core.storage import safetensors_files, torch_files

LAYOUTS = ("unet", "custom-diffusion", "diffusers", "lora", "token")
NONE: Mapping[str, torch.Tensor] = MappingProxyType({})
PROCESSOR = ".processor."
SUFFIX = "_custom_diffusion"
CHECKPOINT = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.embedders.")
CUSTOM_DIFFUSION = ("unet", "modifier_token", "modifier_token_2")
"""Entries of a delta.bin that are read."""


@dataclass(frozen=True)
class Contents:
    """The contents of a file: weights by UNet key or as factors, and the embeddings of tokens.

    tokens_2: embeddings of the same tokens in the second text encoder; empty where there is none. text_encoder: keys
    of changed weights of a text encoder, which are not read.
    """

    layout: str
    weights: dict[str, torch.Tensor]
    tokens: dict[str, torch.Tensor]
    tokens_2: dict[str, torch.Tensor] = field(default_factory=dict)
    text_encoder: tuple[str, ...] = ()


def read(path: Path, token_files: Iterable[Path] = (), token: str | None = None) -> Contents:
    """Read a delta's file in any layout, and the files of its tokens; `token` is another name for its one token.

    Raises InputError for a file that is missing, has anything but tensors, or is in no known layout, for numbers
    that are NaN or infinite, and for a token that occurs twice.
    """
    found = _contents(path)
    tokens, second = dict(found.tokens), dict(found.tokens_2)
    for other in token_files:
        inner = _contents(other)
        if inner.layout != "token":
            raise InputError(f"{other}: is of the layout {inner.layout!r}, expected the embedding of a token")
        for name, row in inner.tokens.items():
            if name in tokens:
                raise InputError(f"{other}: token {name!r} occurs twice")
            tokens[name] = row
        second |= inner.tokens_2
    if token is not None:
        tokens, second = token_layouts.renamed(path, tokens, second, token)
    return Contents(found.layout, found.weights, tokens, second, found.text_encoder)


def _load(path: Path) -> tuple[Any, Mapping[str, str]]:
    """Return the content of a file, and its metadata."""
    if path.suffix != ".safetensors":
        return torch_files.read(path), {}
    return safetensors_files.load(path, "the file of a delta")


def _contents(path: Path) -> Contents:
    stored, metadata = _load(path)
    if not isinstance(stored, Mapping) or not stored:
        if isinstance(stored, Mapping) and path.suffix == ".safetensors":
            return Contents("unet", {}, {})  # textual inversion changes no weight
        raise InputError(f"{path}: holds a {type(stored).__name__}, expected a dictionary of tensors")
    for key in stored:
        if not isinstance(key, str):
            raise InputError(
                f"{path}: key {key!r} is a {type(key).__name__}, expected names of weights or tokens"
            )
    if "unet" in stored or "modifier_token" in stored:
        return _custom_diffusion(path, stored)
    if any(SUFFIX in key for key in stored):
        # an attention layer that was not trained is an empty dictionary
        kept = {key: value for key, value in stored.items() if not isinstance(value, Mapping) or value}
        weights = tensor_checks.floats(path, {_from_processor(key): value for key, value in kept.items()})
        return _whole(path, Contents("diffusers", weights, {}))
    if lora_layouts.recognised(stored):
        lora = lora_layouts.read(path, stored, metadata)
        layout = f"lora ({lora.layout})" if lora.layout else "lora"
        return Contents(layout, lora.factors, {}, text_encoder=lora.text_encoder)
    if token_layouts.recognised(stored):
        return Contents("token", {}, *token_layouts.read(path, stored))
    text_encoder = tuple(sorted(key for key in stored if key.startswith(lora_layouts.TEXT_ENCODERS)))
    plain = {key: value for key, value in stored.items() if key not in text_encoder}
    checkpoint = next((key for key in plain if key.startswith(CHECKPOINT)), None)
    if checkpoint is not None:
        raise InputError(
            f"{path}: is a whole model in the keys of Stability's code, by its key {checkpoint!r}; no delta"
        )
    if all(key.endswith((".weight", ".bias")) for key in plain):
        if all(key.startswith(lora_factors.PREFIX) for key in plain):
            plain = {key.removeprefix(lora_factors.PREFIX): value for key, value in plain.items()}
        return _whole(
            path, Contents("unet", tensor_checks.floats(path, plain), {}, text_encoder=text_encoder)
        )
    raise InputError(
        f"{path}: key {next(iter(plain))!r} belongs to no known layout; known: {', '.join(LAYOUTS)}"
    )


def _whole(path: Path, contents: Contents) -> Contents:
    """Return the contents after a check that not all of their weights are zero."""
    tensor_checks.check_not_all_zero(path, "its weights", contents.weights)
    return contents


def _custom_diffusion(path: Path, stored: Mapping[str, Any]) -> Contents:
    """Read a delta.bin of the Custom Diffusion code, which may also have a trained text encoder."""
    weights = _unpacked(path, stored.get("unet", {}))
    tokens, second = (_modifier_tokens(path, stored, end) for end in ("", "_2"))
    if second and set(second) != set(tokens):
        raise InputError(
            f"{path}: modifier_token has {sorted(tokens)}, modifier_token_2 {sorted(second)}; expected the same"
        )
    further = {key: value for key, value in stored.items() if key not in CUSTOM_DIFFUSION}
    text_encoder = [key for key in further if key.startswith("text_encoder")]
    for key, value in further.items():
        if key not in text_encoder and not (isinstance(value, Mapping) and not value):
            raise InputError(
                f"{path}: key {key!r} is {torch_files.describe(value)}; expected only {', '.join(CUSTOM_DIFFUSION)}"
            )
    found: list[str] = []
    for key in text_encoder:
        value = further[key]
        found += [f"{key}.{name}" for name in value] if isinstance(value, Mapping) else [key]
    return _whole(path, Contents("custom-diffusion", weights, tokens, second, tuple(sorted(found))))


def _modifier_tokens(path: Path, stored: Mapping[str, Any], end: str) -> dict[str, torch.Tensor]:
    """Return the embeddings of the entry `modifier_token`, or of that with another end."""
    rows = stored.get(f"modifier_token{end}", {})
    if not isinstance(rows, Mapping) or not all(isinstance(token, str) for token in rows):
        raise InputError(
            f"{path}: key 'modifier_token{end}' is {torch_files.describe(rows)}, expected embeddings by token"
        )
    return token_layouts.tokens(path, rows, zeros=bool(end) or "modifier_token_2" in stored)


def _unpacked(path: Path, stored: Any) -> dict[str, torch.Tensor]:
    """Return the entry `unet` of a delta.bin: full weights, or the factors u and v of a compressed one."""
    if not isinstance(stored, Mapping):
        raise InputError(f"{path}: key 'unet' holds a {type(stored).__name__}, expected a dictionary")
    found: dict[str, Any] = {}
    pairs = []
    for key, value in stored.items():
        if not isinstance(key, str):
            raise InputError(
                f"{path}: key {key!r} in 'unet' is a {type(key).__name__}, expected names of weights"
            )
        if isinstance(value, Mapping) and set(value) == {"u", "v"}:
            down, up = lora_factors.factor_keys(key)
            found |= {down: value["v"], up: value["u"]}
            pairs.append((down, up))
        else:
            found[key] = value
    weights = tensor_checks.floats(path, found)
    for down, up in pairs:
        lora_factors.check_pair(path, down, weights[down], weights[up])
    return weights


def _from_processor(key: str) -> str:
    """Convert `X.attn2.processor.to_k_custom_diffusion.weight` to `X.attn2.to_k.weight`."""
    return key.replace(PROCESSOR, ".").replace(SUFFIX, "")


def _to_processor(key: str) -> str:
    """Convert `X.attn2.to_k.weight` to `X.attn2.processor.to_k_custom_diffusion.weight`."""
    before, mark, after = key.partition(".attn2.")
    layer, _, rest = after.partition(".")
    if not mark or layer not in ("to_q", "to_k", "to_v", "to_out"):
        raise InputError(
            f"delta key {key!r}: the layout 'diffusers' holds only cross-attention (attn2.to_q, to_k, to_v, to_out)"
        )
    return f"{before}{mark}processor.{layer}{SUFFIX}.{rest}"


def to_files(
    layout: str,
    weights: Mapping[str, torch.Tensor],
    tokens: Mapping[str, torch.Tensor],
    layers: Iterable[str],
    tokens_2: Mapping[str, torch.Tensor] = NONE,
) -> dict[str, bytes]:
    """Serialize a delta in a layout, or as `published` deltas are; contents by file name.

    `weights` has UNet keys. `layers` are all keys of the base model's UNet: the layout `diffusers` also names the
    attention layers that were not trained. `svd_compression` makes LoRA files. Raises InputError where there are
    embeddings for a second text encoder (`tokens_2`), and the layout cannot hold them.
    """
    if tokens_2 and layout in ("published", "diffusers"):
        raise InputError(
            f"layout {layout!r} holds one embedding per token, this delta has one for a second text encoder too;"
            " choose 'lora', 'unet' or 'custom-diffusion'"
        )
    pickled_tokens = {f"{token}.bin": _pickled({token: row}) for token, row in tokens.items()}
    if layout == "custom-diffusion":
        further = {"modifier_token_2": dict(tokens_2)} if tokens_2 else {}
        return {"delta.bin": _pickled({"unet": dict(weights), "modifier_token": dict(tokens)} | further)}
    if layout == "published":
        return {"pytorch_custom_diffusion_weights.pt": _pickled(dict(weights))} | pickled_tokens
    if layout == "diffusers":
        trained = {_to_processor(key): value for key, value in weights.items()}
        owners = {key.partition(PROCESSOR)[0] for key in trained}
        suffix = ".to_k.weight"
        everywhere = sorted(key.removesuffix(suffix) for key in layers if key.endswith(suffix))
        idle: dict[str, Any] = {f"{name}.processor": {} for name in everywhere if name not in owners}
        return {"pytorch_custom_diffusion_weights.bin": _pickled(trained | idle)} | pickled_tokens
    if layout == "unet":
        plain = {key: value.contiguous() for key, value in sorted(weights.items())}
        return {"delta.safetensors": save_tensors(plain)} | token_files(tokens, tokens_2)
    raise ValueError(f"no layout {layout!r} to write")


def token_files(
    tokens: Mapping[str, torch.Tensor], tokens_2: Mapping[str, torch.Tensor] = NONE
) -> dict[str, bytes]:
    """Serialize each token to a safetensors file, see `token_file`; contents by file name."""
    return {
        f"{token}.safetensors": token_file.to_bytes(token, row, tokens_2.get(token))
        for token, row in tokens.items()
    }


def _pickled(stored: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    torch.save(stored, stream)
    return stream.getvalue()
