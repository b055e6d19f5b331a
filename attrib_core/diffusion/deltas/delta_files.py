"""Files of deltas, which stock diffusers loads; deltas applied to a network, or loaded into a stock pipeline.

A model has two files: safetensors of UNet keys, for `unet.load_state_dict(..., strict=False)`, or of LoRA factors,
for `load_lora_weights`; and safetensors of the modifier token's embedding, for `load_textual_inversion` (`token_file`
describes it). `unet.load_attn_procs`, which is for diffusers' own Custom Diffusion layout, silently loads nothing.
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
from attrib_core.diffusion.deltas import lora_factors, tensor_checks, token_file
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.diffusion.pipeline.prompt_encoding import TextEncoder
from attrib_core.storage import atomic, safetensors_files


@dataclass(frozen=True)
class Delta:
    """The changes of one customized model.

    weights: of the UNet, by state-dict key, or LoRA factors (see `lora_factors`); may be empty. embedding: of the
    modifier token, (dim,), or (tokens, dim) where it has several vectors. embedding_2: the same in the second text
    encoder, where the base model has one.
    """

    weights: dict[str, torch.Tensor]
    embedding: torch.Tensor
    embedding_2: torch.Tensor | None = None

    @property
    def embeddings(self) -> list[torch.Tensor]:
        """The embedding in each text encoder."""
        return [self.embedding] if self.embedding_2 is None else [self.embedding, self.embedding_2]


def paths(folder: Path, model_key: str) -> tuple[Path, Path]:
    """Return the paths of a model's delta file and token file."""
    return folder / f"{model_key}.safetensors", folder / f"{model_key}.token.safetensors"


def write(folder: Path, model_key: str, delta: Delta, token: str) -> str:
    """Write both files of a model, each atomically; returns their checksum."""
    weights = {key: value.detach().cpu().contiguous() for key, value in sorted(delta.weights.items())}
    parts = save_tensors(weights), token_file.to_bytes(token, delta.embedding, delta.embedding_2)
    for path, content in zip(paths(folder, model_key), parts, strict=True):
        atomic.write_bytes(path, content)
    return hashlib.sha256(b"".join(parts)).hexdigest()


def checksum(delta_path: Path, token_path: Path) -> str:
    """Compute the SHA-256 of the delta's bytes followed by the token file's; FileNotFoundError where one is missing."""
    return hashlib.sha256(delta_path.read_bytes() + token_path.read_bytes()).hexdigest()


def read(delta_path: Path, token_path: Path, token: str, expected: str) -> Delta:
    """Read both files of a model after a check of their checksum.

    Raises InputError for a missing, changed or unreadable file, and for one with NaN or infinite numbers, or with
    zeros alone.
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
    delta = Delta(weights, *token_file.embeddings_of(rows, token, token_path))
    for path, tensors in ((delta_path, weights), (token_path, rows)):
        tensor_checks.check_finite(path, tensors)
        tensor_checks.check_not_all_zero(path, "its tensors", tensors)
    return delta


@contextmanager
def apply_deltas(components: Components, deltas: Sequence[Delta | None]) -> Iterator[None]:
    """Apply several deltas at once: in this context, the rows of a batch are split evenly among the deltas, in order.

    None is the base model: its own weights, and NaN as the token's embedding, so that a prompt with the token cannot
    pass unnoticed. Raises InputError for a delta whose keys or shapes do not fit the base model.
    """
    given = [delta for delta in deltas if delta is not None]
    keys = sorted({lora_factors.weight_key(key) for delta in given for key in delta.weights})
    owners = {key.rpartition(".")[0]: stacked_layers.linear_layer(components.unet, key) for key in keys}
    layers = {name: _stacked_layer(name, own, deltas) for name, own in owners.items()}
    needed = len(components.encoders)
    for delta in given:
        if len(delta.embeddings) != needed:
            raise InputError(
                f"the token's embedding: is for {len(delta.embeddings)} text encoders, the base model has {needed}"
            )
    with ExitStack() as stack:
        stack.enter_context(stacked_layers.replace_layers(components.unet, layers))
        for number, encoder in enumerate(components.encoders):
            own = [None if delta is None else delta.embeddings[number] for delta in deltas]
            embedding = _stacked_embedding(encoder, own, components.tokens)
            stack.enter_context(stacked_layers.replace_token_table(encoder.model, embedding))
        yield


def _stacked_embedding(
    encoder: TextEncoder, embeddings: Sequence[torch.Tensor | None], tokens: int
) -> stacked_layers.StackedEmbedding:
    """Stack the token's embeddings of all models, NaN where there is none, on a text encoder's table."""
    if encoder.token is None:
        raise ValueError("components without a modifier token; call with_token first")
    table = encoder.table
    missing = torch.full((tokens, table.shape[1]), float("nan"))
    chosen = [missing if row is None else torch.atleast_2d(row.to(missing)) for row in embeddings]
    for row in chosen:
        if row.shape != missing.shape:
            raise InputError(
                f"the token's embedding: {len(row)} of {row.shape[1]} values, expected {len(missing)} of"
                f" {missing.shape[1]}, as the base model and the other deltas have"
            )
    stack = torch.stack(chosen).to(table.device, table.dtype)
    return stacked_layers.StackedEmbedding(table, encoder.token, stack)


def _stacked_layer(name: str, own: torch.nn.Linear, deltas: Sequence[Delta | None]) -> torch.nn.Module:
    """Stack a linear layer of all models: as LoRA factors if every delta has factors, else as full weights."""
    weights_of = [{} if delta is None else delta.weights for delta in deltas]
    base = {f"{name}.{part}": value for part, value in own.named_parameters()}
    factors = lora_factors.factor_keys(f"{name}.weight")
    if not any(key in weights for weights in weights_of for key in base):
        return _stacked_factors(f"{name}.weight", own, weights_of)
    chosen = []
    for weights in weights_of:
        changed = {key: weights[key] for key in (*base, *factors) if key in weights}
        chosen.append(base | lora_factors.merge(changed, base))
        for key, value in chosen[-1].items():
            if value.shape != base[key].shape:
                raise InputError(
                    f"delta key {key!r}: shape {tuple(value.shape)}, the base model has {tuple(base[key].shape)}"
                )
    stacks = [torch.stack([values[key].to(base[key]) for values in chosen]) for key in base]
    return stacked_layers.StackedLinear(*stacks)


def _stacked_factors(
    key: str, own: torch.nn.Linear, weights_of: Sequence[dict[str, torch.Tensor]]
) -> torch.nn.Module:
    """Stack the factors of all models, padded with zeros to one rank; all zeros where a model has none."""
    shape = out, width = own.out_features, own.in_features
    down, up = lora_factors.factor_keys(key)
    pairs = [
        lora_factors.factor_pair(weights, key, shape) if down in weights or up in weights else None
        for weights in weights_of
    ]
    rank = max(len(pair[0]) for pair in pairs if pair is not None)
    first, second = own.weight.new_zeros(len(pairs), rank, width), own.weight.new_zeros(len(pairs), out, rank)
    for number, pair in enumerate(pairs):
        if pair is not None:
            first[number, : len(pair[0])], second[number, :, : len(pair[0])] = pair
    return stacked_layers.StackedLowRank(own, first, second)


def load_into(
    pipe: StableDiffusionPipeline | StableDiffusionXLPipeline, delta_path: Path, token_path: Path, token: str
) -> None:
    """Load a delta into a stock pipeline by stock calls, and check that the weights have changed.

    Factors are loaded by `load_lora_weights`, which needs the package peft; full weights by `load_state_dict`; the
    token by `load_textual_inversion`, once for each text encoder. Raises InputError, before anything is loaded, for
    keys or shapes that do not fit the pipeline and for a token file that is for another number of text encoders; and
    after loading, where no weight has changed or the token's embedding is not that of the file.
    """
    stored, _ = safetensors_files.load(token_path, "the file of a token")
    rows = [torch.atleast_2d(row) for row in token_file.embeddings_of(stored, token, token_path)]
    encoders = [(pipe.tokenizer, pipe.text_encoder)]
    if getattr(pipe, "text_encoder_2", None) is not None:
        encoders.append((pipe.tokenizer_2, pipe.text_encoder_2))
    if len(rows) != len(encoders):
        raise InputError(f"{token_path}: is for {len(rows)} text encoders, the pipeline has {len(encoders)}")
    weights, _ = safetensors_files.load(delta_path, "the file of a delta")
    for path, tensors in ((delta_path, weights), (token_path, stored)):
        tensor_checks.check_finite(path, tensors)
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
    """Raise InputError where a delta has a key or a shape that does not fit the UNet of a pipeline."""
    for key, value in weights.items():
        if key not in state:
            raise InputError(f"{path}: key {key!r} is not in the pipeline's UNet")
        if value.shape != state[key].shape:
            raise InputError(
                f"{path}: key {key!r} has shape {tuple(value.shape)}, the pipeline's UNet {tuple(state[key].shape)}"
            )


def _load_factors(
    pipe: StableDiffusionPipeline | StableDiffusionXLPipeline, path: Path, weights: dict[str, torch.Tensor]
) -> None:
    """Load a LoRA by the stock call; InputError where other factors are loaded than the file has, or no change."""
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
        raise InputError(f"{path}: all factors B are zero, so loading it changes nothing")
