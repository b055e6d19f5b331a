"""Exchange of deltas with other tools: import, export, description, and a check against the base model."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors

from attrib_core.common.errors import InputError
from attrib_core.diffusion.deltas import layouts, lora_factors, svd_compression, token_file, token_layouts
from attrib_core.diffusion.deltas.delta_files import Delta
from attrib_core.diffusion.deltas.layouts import Contents
from attrib_core.diffusion.pipeline import description, networks
from attrib_core.diffusion.pipeline.unet_weights import UNetWeights
from attrib_core.storage import atomic

QUERY_AND_OUT = (".attn2.to_q.weight", ".attn2.to_out.0.weight", ".attn2.to_out.0.bias")
KEY_AND_VALUE = (".attn2.to_k.weight", ".attn2.to_v.weight")


@dataclass(frozen=True)
class Base:
    """The parts of a base model that a delta must fit: the UNet's weights, the widths and words of the text encoders.

    vocabularies: the words of each tokenizer; none for those that the folder lacks.
    """

    weights: UNetWeights
    widths: list[int]
    vocabularies: list[Container[str]] = field(default_factory=list)


def open_base(folder: Path) -> Base:
    """Open a folder in diffusers layout, whose tensors are read on access; InputError where it is none."""
    weights, widths = UNetWeights(folder), description.text_widths(folder)
    tokenizers = [folder / name for name in ("tokenizer", "tokenizer_2")]
    words = [networks.tokenizer(one).get_vocab() for one in tokenizers if one.is_dir()]
    return Base(weights, widths, words)


def check_fit(contents: Contents, base: Base, where: Path) -> None:
    """Raise InputError where a delta does not fit a base model, or does not differ from it.

    Also for a token that no prompt can have, or that the base model's tokenizer knows as a word.
    """
    name = base.weights.folder
    changed = not contents.weights
    for key, value in contents.weights.items():
        target = lora_factors.weight_key(key)
        shape = base.weights.shapes.get(target)
        if shape is None:
            raise InputError(
                f"{where}: key {key!r} names no weight of the UNet of {name}; it is of another base model"
            )
        if lora_factors.is_factor(key):
            down, up = lora_factors.factor_pair(contents.weights, target, shape)
            changed = changed or bool((up @ down).any())
            continue
        if value.shape != shape:
            hint = ""
            if value.shape[0] == shape[0] and value.ndim == 2:
                hint = f": made for a text encoder of width {value.shape[1]}, that of {name} has {shape[1]}"
            raise InputError(
                f"{where}: key {key!r} has shape {tuple(value.shape)}, the base model has {shape}{hint}"
            )
        changed = changed or not torch.equal(value, base.weights[target])
    if not changed:
        raise InputError(f"{where}: every weight equals that of {name}; nothing is customized")
    for token, row in contents.tokens.items():
        _check_name(token, base, where)
        rows = [row] if token not in contents.tokens_2 else [row, contents.tokens_2[token]]
        if len(rows) != len(base.widths):
            raise InputError(
                f"{where}: token {token!r} has embeddings for {len(rows)} text encoders, {name} has {len(base.widths)}"
            )
        for own, width in zip(rows, base.widths, strict=True):
            if own.shape[-1] != width:
                raise InputError(
                    f"{where}: token {token!r} has {own.shape[-1]} values, the token table of {name} has {width}"
                )


def _check_name(token: str, base: Base, where: Path) -> None:
    """Raise InputError for a token that no prompt can have, or that the base model's tokenizers know as a word."""
    problem = token_layouts.name_problem(token)
    if problem:
        raise InputError(f"{where}: token {token!r} {problem}; {token_layouts.RENAME}")
    for words in base.vocabularies:
        if token in words or f"{token}</w>" in words:
            raise InputError(
                f"{where}: token {token!r} is a word that the tokenizer of {base.weights.folder} knows;"
                f" {token_layouts.RENAME}"
            )


def check_whole(contents: Contents, where: Path) -> None:
    """Raise InputError for a delta that also changes a text encoder, since a delta here holds the UNet and tokens."""
    if contents.text_encoder:
        raise InputError(
            f"{where}: also changes a text encoder ({len(contents.text_encoder)} tensors, such as"
            f" {contents.text_encoder[0]!r}), which a delta here cannot hold; without it, it would be another model"
        )


def import_delta(
    path: Path, token_files: Iterable[Path], base: Base, out: Path, name: str, token: str | None = None
) -> tuple[list[Path], Contents]:
    """Convert a delta from any layout to this package's own; returns the files written and their contents.

    The files are `<name>.safetensors` and one for each token, `<name>.token.safetensors` for the first and
    `<name>.token-2.safetensors` and so on for others, each written atomically. Raises InputError as `layouts.read`,
    `check_whole` and `check_fit` do, and for a delta without a token.
    """
    contents = layouts.read(path, token_files, token)
    check_whole(contents, path)
    check_fit(contents, base, path)
    if not contents.tokens:
        raise InputError(f"{path}: holds no token; name its file with --token-file, such as '<new1>.bin'")
    files = {f"{name}.safetensors": save_tensors(_contiguous(contents.weights))}
    for number, (own, row) in enumerate(contents.tokens.items(), start=1):
        suffix = "" if number == 1 else f"-{number}"
        content = token_file.to_bytes(own, row, contents.tokens_2.get(own))
        files[f"{name}.token{suffix}.safetensors"] = content
    return _written(out, files), contents


def export_delta(
    contents: Contents,
    base: Base,
    layout: str,
    out: Path,
    *,
    rank: int | None = None,
    share: float = 1.0,
    biases: bool = True,
) -> list[Path]:
    """Write a delta in another layout into a folder; returns the files written.

    `rank` and `share` are for the layout `lora`, see `svd_compression.compress`. Without `biases` these, which a
    LoRA cannot hold, are left out. Raises InputError for what the layout cannot hold.
    """
    weights = {key: value for key, value in contents.weights.items() if biases or not key.endswith(".bias")}
    if layout == "lora":
        factors = svd_compression.compress(Delta(weights, torch.zeros(0)), base.weights, rank, share)
        files = {"pytorch_lora_weights.safetensors": save_tensors(factors)} if factors else {}
        return _written(out, files | layouts.token_files(contents.tokens, contents.tokens_2))
    plain = lora_factors.merge(weights, base.weights)
    files = layouts.to_files(layout, plain, contents.tokens, base.weights, contents.tokens_2)
    return _written(out, files)


def describe(contents: Contents, size: int, base: Base | None) -> list[str]:
    """Describe a delta in lines of text: method, sizes, norms by kind of layer, tokens. `size` is in bytes."""
    weights = contents.weights
    numbers = sum(value.numel() for value in weights.values())
    lines = [
        f"layout: {contents.layout}",
        f"method: {method(contents)}",
        f"size: {len(weights)} tensors, {numbers:,} numbers, {size / 1e6:.1f} MB",
    ]
    if any(lora_factors.is_factor(key) for key in weights):
        ranks = sorted({len(value) for key, value in weights.items() if key.endswith(lora_factors.DOWN)})
        lines.append(f"rank: {ranks[0]}" if len(ranks) == 1 else f"rank: {ranks[0]} to {ranks[-1]}")
    kinds: dict[str, list[str]] = {}
    for key in sorted({lora_factors.weight_key(key) for key in weights}):
        kinds.setdefault(_kind(key), []).append(key)
    for kind, keys in kinds.items():
        lines.append(f"{kind}: {len(keys)} layers, {_norms(keys, weights, base)}")
    pairs = [key for key in weights if key.endswith(lora_factors.DOWN)]
    if pairs and not any(lora_factors.product(weights, lora_factors.weight_key(key)).any() for key in pairs):
        lines.append("warning: all of its products of factors are zero, so it changes nothing")
    if contents.text_encoder:
        lines.append(
            f"warning: also changes a text encoder ({len(contents.text_encoder)} tensors, such as"
            f" {contents.text_encoder[0]}), which is not read; import and export refuse it"
        )
    for rows, place in ((contents.tokens, ""), (contents.tokens_2, " in the second text encoder")):
        for token, row in rows.items():
            vectors = torch.atleast_2d(row)
            each = ", ".join(f"{float(norm):.4g}" for norm in vectors.norm(dim=1))
            lines.append(f"token {token}{place}: {len(vectors)} of {vectors.shape[1]} values, norm {each}")
            if problem := token_layouts.name_problem(token):
                lines.append(f"warning: the name of token {token!r} {problem}; {token_layouts.RENAME}")
    return lines


def method(contents: Contents) -> str:
    """Infer the customization method from the keys of a delta."""
    keys = list(contents.weights)
    if not keys and contents.text_encoder:
        return "changes of a text encoder alone"
    if not keys:
        return "textual inversion (only a token)"
    if all(lora_factors.is_factor(key) for key in keys):
        return "LoRA, or a compressed delta (factors of low rank)"
    if all(key.endswith(KEY_AND_VALUE) for key in keys):
        return "Custom Diffusion (keys and values of the cross-attention)"
    if all(key.endswith(KEY_AND_VALUE + QUERY_AND_OUT) for key in keys):
        return "Custom Diffusion, crossattn (all of the cross-attention)"
    return "unknown from its keys"


def _kind(key: str) -> str:
    """Shorten `down_blocks.0....attn2.to_k.weight` to `attn2.to_k.weight`."""
    parts = key.split(".")
    start = next((place for place, part in enumerate(parts) if part.startswith("attn")), 0)
    return ".".join(parts[start:])


def _norms(keys: Iterable[str], weights: Mapping[str, torch.Tensor], base: Base | None) -> str:
    """Compute the Frobenius norm of weights, and with a base that of their change, and its share."""
    changes: list[torch.Tensor] = []
    norms: list[torch.Tensor] = []
    for key in keys:
        if key in weights:
            norms.append(weights[key].norm())
            changes += [(weights[key] - base.weights[key]).norm()] if base else []
        else:
            change = lora_factors.product(weights, key)
            changes.append(change.norm())
            norms += [(base.weights[key].flatten(1) + change).norm()] if base else []
    parts = []
    if norms:
        parts.append(f"norm {float(torch.stack(norms).norm()):.4g}")
    if changes:
        parts.append(f"change {float(torch.stack(changes).norm()):.4g}")
    if norms and changes:
        own = torch.stack(changes).norm() / torch.stack(norms).norm()
        parts.append(f"that is {100 * float(own):.3g} %")
    return ", ".join(parts)


def _contiguous(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.contiguous() for key, value in sorted(weights.items())}


def _written(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files into a folder. Names, as of tokens in other people's files, must not lead out of it."""
    for name in files:
        if name != Path(name).name or "\0" in name:
            raise InputError(f"{folder}: {name!r} is not a name of a file in it")
    try:
        for name, content in files.items():
            atomic.write_bytes(folder / name, content)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; expected a folder to write into") from None
    return [folder / name for name in files]
