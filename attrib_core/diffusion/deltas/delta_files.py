"""Deltas: what customization changed, as files that stock diffusers loads.

Two files a model: safetensors of plain UNet keys, which `unet.load_state_dict(...,
strict=False)` takes, or of LoRA factors, which `load_lora_weights` takes; and
safetensors of one vector or a few under the modifier token's name, which
`load_textual_inversion` takes. (`unet.load_attn_procs` of diffusers' own Custom
Diffusion layout loads nothing and says nothing.) `token_file` has the file for two
text encoders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import is_peft_available
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from attrib_core.common.errors import InputError
from attrib_core.diffusion.customization import stacked_layers
from attrib_core.diffusion.deltas import lora_factors, token_file
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.diffusion.pipeline.prompt_encoding import TextEncoder
from attrib_core.storage import atomic


@dataclass(frozen=True)
class Delta:
    """What one customized model changes.

    weights: of the UNet, by state-dict key, or as factors (see `lowrank`); may be empty. row:
    the token's embedding, (dim,), or (tokens, dim) where the token stands for a few. second: the
    same in the second text encoder, where the base model has one.
    """

    weights: dict[str, torch.Tensor]
    embedding: torch.Tensor
    embedding_2: torch.Tensor | None = None

    @property
    def embeddings(self) -> list[torch.Tensor]:
        """The token's embedding in each text encoder."""
        return [self.embedding] if self.embedding_2 is None else [self.embedding, self.embedding_2]


def paths(folder: Path, model_key: str) -> tuple[Path, Path]:
    """Delta file and token file of a model."""
    return folder / f"{model_key}.safetensors", folder / f"{model_key}.token.safetensors"


def write(folder: Path, model_key: str, delta: Delta, token: str) -> str:
    """Write both files of a model, each whole or not at all; returns their checksum."""
    weights = {key: value.detach().cpu().contiguous() for key, value in sorted(delta.weights.items())}
    parts = save_tensors(weights), token_file.to_bytes(token, delta.embedding, delta.embedding_2)
    for path, content in zip(paths(folder, model_key), parts, strict=True):
        atomic.write_bytes(path, content)
    return hashlib.sha256(b"".join(parts)).hexdigest()


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
            f"{error.filename}: no such delta; give the same command once with --forcerun customize_part, which"
            " trains what is missing"
        ) from None
    if hashlib.sha256(b"".join(parts)).hexdigest() != expected:
        raise InputError(
            f"{delta_path}: its bytes, with those of {token_path.name}, are not those of the table of models;"
            " give the same command once with --forcerun customize_part, which trains what is damaged"
        )
    try:
        weights, rows = (load_tensors(part) for part in parts)
    except SafetensorError as error:
        raise InputError(f"{delta_path}: not readable as safetensors: {error}") from None
    return Delta(weights, *token_file.embeddings_of(rows, token, token_path))


@contextmanager
def apply_deltas(components: Components, models: Sequence[Delta | None]) -> Iterator[None]:
    """Inside, the i-th of every len(models) equal runs of a batch's rows is by the i-th model.

    None stands for the base model: its own weights, and no embedding for the
    token (its row is NaN, so that a prompt with the token cannot pass unseen).
    Raises InputError for a delta whose keys or shapes do not fit the base model.
    """
    keys = sorted(
        {lora_factors.weight_key(key) for model in models if model is not None for key in model.weights}
    )
    owners = {key.rpartition(".")[0]: stacked_layers.linear_layer(components.unet, key) for key in keys}
    layers = {name: _layer(name, own, models) for name, own in owners.items()}
    needed = len(components.encoders)
    for model in models:
        if model is not None and len(model.embeddings) != needed:
            raise InputError(
                f"the token's embedding: there for {len(model.embeddings)} text encoders, the base model has {needed}"
            )
    embeddings = [
        _embedding(encoder, [None if model is None else model.embeddings[place] for model in models], components.tokens)
        for place, encoder in enumerate(components.encoders)
    ]  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(stacked_layers.replace_layers(components.unet, layers))
        for encoder, embedding in zip(components.encoders, embeddings, strict=True):
            stack.enter_context(stacked_layers.replace_token_table(encoder.model, embedding))
        yield


def _embedding(
    encoder: TextEncoder, rows: Sequence[torch.Tensor | None], tokens: int
) -> stacked_layers.StackedEmbedding:
    """A text encoder's table with the rows of each model, NaN where there are none."""
    if encoder.token is None:
        raise ValueError("components without a modifier token; call with_token first")
    table = encoder.table
    nowhere = torch.full((tokens, table.shape[1]), float("nan"))
    chosen = [nowhere if row is None else torch.atleast_2d(row.to(nowhere)) for row in rows]
    for row in chosen:
        if row.shape != nowhere.shape:
            raise InputError(
                f"the token's embedding: {len(row)} of {row.shape[1]} values, expected {len(nowhere)} of"
                f" {nowhere.shape[1]}, as the base model and the other deltas have"
            )
    stack = torch.stack(chosen).to(table.device, table.dtype)
    return stacked_layers.StackedEmbedding(table, encoder.token, stack)


def _layer(name: str, own: torch.nn.Linear, models: Sequence[Delta | None]) -> torch.nn.Module:
    """A linear layer for each model: thin factors where every delta has it so, whole weights else."""
    held = [{} if model is None else model.weights for model in models]
    base = {f"{name}.{part}": value for part, value in own.named_parameters()}
    factors = lora_factors.factor_keys(f"{name}.weight")
    if not any(key in weights for weights in held for key in base):
        return _thin(f"{name}.weight", own, held)
    chosen = []
    for weights in held:
        changed = {key: weights[key] for key in (*base, *factors) if key in weights}
        chosen.append(base | lora_factors.merge(changed, base))
        for key, value in chosen[-1].items():
            if value.shape != base[key].shape:
                raise InputError(
                    f"delta key {key!r}: shape {tuple(value.shape)}, the base model has {tuple(base[key].shape)}"
                )
    stacks = [torch.stack([values[key].to(base[key]) for values in chosen]) for key in base]
    return stacked_layers.StackedLinear(*stacks)


def _thin(key: str, own: torch.nn.Linear, held: Sequence[dict[str, torch.Tensor]]) -> torch.nn.Module:
    """Factors of each model, filled up with zeros to one rank; zeros alone where a model has none."""
    shape = out, width = own.out_features, own.in_features
    down, up = lora_factors.factor_keys(key)
    pairs = [
        lora_factors.factor_pair(weights, key, shape) if down in weights or up in weights else None
        for weights in held
    ]
    rank = max(len(pair[0]) for pair in pairs if pair is not None)
    first, second = own.weight.new_zeros(len(held), rank, width), own.weight.new_zeros(len(held), out, rank)
    for number, pair in enumerate(pairs):
        if pair is not None:
            first[number, : len(pair[0])], second[number, :, : len(pair[0])] = pair
    return stacked_layers.StackedLowRank(own, first, second)


def load_into(
    pipe: StableDiffusionPipeline | StableDiffusionXLPipeline, delta_path: Path, token_path: Path, token: str
) -> None:
    """Load a delta into a stock pipeline by stock calls, and check that the weights really changed.

    Factors go in by `load_lora_weights`, which needs the package peft; whole weights by
    `load_state_dict`; the token by `load_textual_inversion`, once for each text encoder. Raises
    InputError, before anything is loaded, for keys or shapes that the pipeline has not and for a
    token's file that is not for as many text encoders; and where after loading the weights are
    what they were before, or the token's embedding is not the file's.
    """
    given = load_tensors(token_path.read_bytes())
    rows = [torch.atleast_2d(row) for row in token_file.embeddings_of(given, token, token_path)]
    encoders = [(pipe.tokenizer, pipe.text_encoder)]
    if getattr(pipe, "text_encoder_2", None) is not None:
        encoders.append((pipe.tokenizer_2, pipe.text_encoder_2))
    if len(rows) != len(encoders):
        raise InputError(f"{token_path}: is for {len(rows)} text encoders, the pipeline has {len(encoders)}")
    weights: dict[str, torch.Tensor] = load_tensors(delta_path.read_bytes())
    for own, (_, encoder) in zip(rows, encoders, strict=True):
        table = encoder.get_input_embeddings().weight
        if own.shape[1] != table.shape[1]:
            raise InputError(
                f"{token_path}: token {token!r} has {own.shape[1]} values, the pipeline's text encoder {table.shape[1]}"
            )
    if any(lora_factors.is_factor(key) for key in weights):
        _load_factors(pipe, delta_path, weights)
    elif weights:
        state = pipe.unet.state_dict()
        _check_fit(delta_path, weights, state)
        before = {key: state[key].clone() for key in weights}
        pipe.unet.load_state_dict(weights, strict=False)
        after = pipe.unet.state_dict()
        if all(torch.equal(before[key], after[key]) for key in weights):
            raise InputError(
                f"{delta_path}: after loading, no weight of the UNet has changed; is it loaded already?"
            )
    for own, (tokenizer, encoder) in zip(rows, encoders, strict=True):
        source = str(token_path) if len(encoders) == 1 else own
        pipe.load_textual_inversion(source, token=token, tokenizer=tokenizer, text_encoder=encoder)
        table = encoder.get_input_embeddings().weight
        added = tokenizer.convert_tokens_to_ids([token, *(f"{token}_{n}" for n in range(1, len(own)))])
        if not torch.allclose(table[added].float().cpu(), own.float(), atol=1e-6):
            raise InputError(
                f"{token_path}: after loading, the embedding of {token!r} is not that of the file"
            )


def _check_fit(path: Path, weights: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
    """InputError where a delta has a key or a shape that the UNet of a pipeline has not."""
    for key, value in weights.items():
        if key not in state:
            raise InputError(f"{path}: key {key!r} is none of the pipeline's UNet")
        if value.shape != state[key].shape:
            raise InputError(
                f"{path}: key {key!r} has shape {tuple(value.shape)}, the pipeline's UNet {tuple(state[key].shape)}"
            )


def _load_factors(
    pipe: StableDiffusionPipeline | StableDiffusionXLPipeline, path: Path, weights: dict[str, torch.Tensor]
) -> None:
    """Load a LoRA by the stock call; InputError where it left no trace, or not the file's."""
    if not is_peft_available():
        raise InputError(f"{path}: is a LoRA, and diffusers needs the package 'peft' to load it")
    known = set(pipe.get_active_adapters())
    pipe.load_lora_weights(path)
    (name,) = set(pipe.unet.peft_config) - known
    state = pipe.unet.state_dict()
    for key, value in weights.items():
        layer, part, _ = key.removeprefix(lora_factors.PREFIX).rsplit(".", 2)
        loaded = state.get(f"{layer}.{part}.{name}.weight")
        if loaded is None or not torch.allclose(loaded.float().cpu(), value.float(), atol=1e-6):
            raise InputError(f"{path}: after loading, key {key!r} is not in the pipeline's UNet")
    if not any(value.any() for key, value in weights.items() if key.endswith(lora_factors.UP)):
        raise InputError(f"{path}: all factors B are zero, so that loading it changes nothing")
