"""The file layouts of deltas that other tools write, read into one representation and written from it.

- `unet`: safetensors (or a pickled dictionary) of UNet keys, with a file for each token: this package's own layout,
  and with `.pt` and `<new1>.bin` that of the published deltas;
- `custom-diffusion`: `delta.bin` of the Custom Diffusion code, {unet: ..., modifier_token: ...}, and for SDXL
  modifier_token_2; compressed, it has two factors u, v for each weight;
- `diffusers`: `pytorch_custom_diffusion_weights.bin` or `.safetensors`, with keys of attention processors. Stock
  diffusers writes it, and reads it without effect;
- `lora`: two factors for each weight under peft's keys, which `load_lora_weights` reads;
- `token`: only a token's embedding, for one or two text encoders (see `token_file`).

Pickled files are read as tensors only: anything else in them is refused and not executed.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from attrib_core.common.errors import InputError
from attrib_core.diffusion.deltas import lora_factors, token_file
from attrib_core.storage import torch_files

LAYOUTS = ("unet", "custom-diffusion", "diffusers", "lora", "token")
NONE: Mapping[str, torch.Tensor] = MappingProxyType({})
PROCESSOR = ".processor."
SUFFIX = "_custom_diffusion"


@dataclass(frozen=True)
class Contents:
    """The contents of a file: weights by UNet key or as factors, and the embeddings of tokens.

    tokens_2: embeddings of the same tokens in the second text encoder; empty where there is none.
    """

    layout: str
    weights: dict[str, torch.Tensor]
    tokens: dict[str, torch.Tensor]
    tokens_2: dict[str, torch.Tensor] = field(default_factory=dict)


def read(path: Path, token_files: Iterable[Path] = ()) -> Contents:
    """Read a delta's file in any layout, and the files of its tokens.

    Raises InputError for a file that is missing, has anything but tensors, or is in no known layout, and for a
    token that occurs twice.
    """
    found = _contents(path, _load(path))
    tokens, second = dict(found.tokens), dict(found.tokens_2)
    for other in token_files:
        inner = _contents(other, _load(other))
        if inner.layout != "token":
            raise InputError(f"{other}: is of the layout {inner.layout!r}, expected the embedding of a token")
        for token, row in inner.tokens.items():
            if token in tokens:
                raise InputError(f"{other}: token {token!r} occurs twice")
            tokens[token] = row
        second |= inner.tokens_2
    return Contents(found.layout, found.weights, tokens, second)


def _load(path: Path) -> Any:
    if path.suffix != ".safetensors":
        return torch_files.read(path)
    try:
        return load_tensors(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected the file of a delta") from None
    except SafetensorError as error:
        raise InputError(f"{path}: not readable as safetensors: {error}") from None


def _contents(path: Path, stored: Any) -> Contents:
    if not isinstance(stored, Mapping) or not stored:
        if isinstance(stored, Mapping) and path.suffix == ".safetensors":
            return Contents("unet", {}, {})  # textual inversion changes no weight
        raise InputError(f"{path}: holds a {type(stored).__name__}, expected a dictionary of tensors")
    if "unet" in stored or "modifier_token" in stored:
        weights = _unpacked(path, stored.get("unet", {}))
        tokens, second = (_tokens(path, stored.get(f"modifier_token{end}", {})) for end in ("", "_2"))
        if second and set(second) != set(tokens):
            raise InputError(
                f"{path}: modifier_token has {sorted(tokens)}, modifier_token_2 {sorted(second)}; expected the same"
            )
        return Contents("custom-diffusion", weights, tokens, second)
    if token_file.is_for_two_encoders(stored):
        first, other = token_file.embedding_pair(_tokens(path, stored), path)
        token = token_file.token_name(path)
        return Contents("token", {}, {token: first}, {token: other})
    if any(SUFFIX in key for key in stored):
        # an attention layer that was not trained is an empty dictionary
        kept = {key: value for key, value in stored.items() if not isinstance(value, Mapping) or value}
        return Contents("diffusers", _tensors(path, {_from_processor(k): v for k, v in kept.items()}), {})
    if any(lora_factors.is_factor(key) for key in stored):
        return Contents("lora", _tensors(path, _scaled(path, stored)), {})
    if all(isinstance(value, torch.Tensor) and "." not in key for key, value in stored.items()):
        return Contents("token", {}, _tokens(path, stored))
    if all(key.endswith((".weight", ".bias")) for key in stored):
        return Contents("unet", _tensors(path, stored), {})
    raise InputError(
        f"{path}: key {next(iter(stored))!r} belongs to no known layout; known: {', '.join(LAYOUTS)}"
    )


def _unpacked(path: Path, stored: Any) -> dict[str, torch.Tensor]:
    """Return the entry `unet` of a delta.bin: full weights, or the factors u and v of a compressed one."""
    if not isinstance(stored, Mapping):
        raise InputError(f"{path}: key 'unet' holds a {type(stored).__name__}, expected a dictionary")
    found: dict[str, Any] = {}
    for key, value in stored.items():
        if isinstance(value, Mapping) and set(value) == {"u", "v"}:
            down, up = lora_factors.factor_keys(key)
            found |= {down: value["v"], up: value["u"]}
        else:
            found[key] = value
    return _tensors(path, found)


def _scaled(path: Path, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Multiply the scale alpha / rank into the factors B, where a file has `.alpha` keys."""
    found = {key: value for key, value in stored.items() if not key.endswith(".alpha")}
    for key, alpha in stored.items():
        if key.endswith(".alpha"):
            layer = key.removesuffix(".alpha")
            try:
                down, up = found[layer + lora_factors.DOWN], found[layer + lora_factors.UP]
            except KeyError:
                raise InputError(f"{path}: key {key!r} has no factors") from None
            found[layer + lora_factors.UP] = up * (float(alpha) / len(down))
    return found


def _tensors(path: Path, stored: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    for key, value in stored.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise InputError(f"{path}: key {key!r} is not a tensor of floating-point numbers")
    return {key: value.float() for key, value in sorted(stored.items())}


def _tokens(path: Path, stored: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    found = _tensors(path, stored)
    for token, row in found.items():
        if row.ndim not in (1, 2):
            raise InputError(
                f"{path}: {token!r} has shape {tuple(row.shape)}, expected a vector, or a few of them"
            )
    return found


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
