"""Text towers of the transformers library, from a model folder or from a base model in diffusers layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attrib_core.common.errors import InputError
from attrib_core.diffusion.pipeline import description
from attrib_core.features.networks import transformers_loader
from attrib_core.features.networks.network_encoder import adapt, feature_dim

if TYPE_CHECKING:
    import torch

POOLED, PROJECTED = "pooler_output", "text_embeds"
MODELS = {
    "clip": ("CLIPTextModelWithProjection", PROJECTED),
    "clip_text_model": ("CLIPTextModelWithProjection", PROJECTED),
    "siglip": ("SiglipTextModel", POOLED),
    "siglip_text_model": ("SiglipTextModel", POOLED),
    "siglip2": ("Siglip2TextModel", POOLED),
    "siglip2_text_model": ("Siglip2TextModel", POOLED),
}
"""By model_type in config.json: the class that loads the tower, and the output that is the feature."""
BASE_MODEL_OUTPUTS = {"CLIPTextModel": POOLED, "CLIPTextModelWithProjection": PROJECTED}
"""The output that is the feature, by the class of a base model's text encoder."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
TOKENIZER_FILES = (
    *VOCABULARIES,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


@dataclass(frozen=True)
class TextTower:
    """A text tower: `prepare` maps a text to (length,) int64 token ids, `network` (n, length) ids to (n, dim)."""

    network: torch.nn.Module
    prepare: Callable[[str], np.ndarray]
    dim: int
    identity: dict[str, Any] = field(default_factory=dict)


def load_from_folder(folder: Path) -> TextTower:
    """Load the text tower of a CLIP or SigLIP from a transformers folder."""
    class_name, output_name = transformers_loader.for_model_type(folder, MODELS)
    return _load(folder, class_name, output_name, folder, "AutoTokenizer")


def load_from_base_model(folder: Path) -> TextTower:
    """Load the text encoder of a base model; the last one if there are two."""
    encoder, tokenizer = base_model_subfolders(folder)
    class_name = _encoder_class(folder)
    output_name = BASE_MODEL_OUTPUTS[class_name]
    return _load(folder / encoder, class_name, output_name, folder / tokenizer, "CLIPTokenizer")


def base_model_subfolders(folder: Path) -> tuple[str, str]:
    """Return the subfolders of a base model's last text encoder and of its tokenizer."""
    encoder = description.TEXT_ENCODERS[description.pipeline_class(folder)][-1]
    return encoder, encoder.replace("text_encoder", "tokenizer")


def is_unprojected(folder: Path) -> bool:
    """Return whether features of a base model's text encoder are hidden states, as wide as those of its tokens."""
    return BASE_MODEL_OUTPUTS[_encoder_class(folder)] == POOLED


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a tokenizer; raise InputError if there are none."""
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise InputError(
            f"weights: {folder} holds no tokenizer, expected one of {', '.join(VOCABULARIES)} next to the model"
        )
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]


def _encoder_class(folder: Path) -> str:
    encoder = base_model_subfolders(folder)[0]
    config = transformers_loader.read_config(folder / encoder)
    name = (config.get("architectures") or ["CLIPTextModel"])[0]
    if name not in BASE_MODEL_OUTPUTS:
        raise InputError(
            f"base_model: {folder / encoder} is a {name!r}, expected one of {', '.join(BASE_MODEL_OUTPUTS)}"
        )
    return str(name)


def _load(
    folder: Path, class_name: str, output_name: str, tokenizer_folder: Path, tokenizer_class: str
) -> TextTower:
    import transformers

    model: Any = transformers_loader.load_model(folder, class_name)
    length = int(model.config.max_position_embeddings)
    try:
        tokenizer = getattr(transformers, tokenizer_class).from_pretrained(
            tokenizer_folder, local_files_only=True
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"weights: {tokenizer_folder} opens no tokenizer: {reason}") from None

    def prepare(text: str) -> np.ndarray:
        ids = tokenizer(text, padding="max_length", truncation=True, max_length=length)["input_ids"]
        return np.asarray(ids, dtype=np.int64)

    def embed(network: Any, ids: torch.Tensor) -> torch.Tensor:
        # without a padding mask: CLIP is causal, and SigLIP was trained without one
        features: torch.Tensor = getattr(network(input_ids=ids), output_name)
        return features

    network = adapt(model, embed)
    return TextTower(network, prepare, text_feature_dim(network, prepare, tokenizer_folder, len(tokenizer)))


def text_feature_dim(
    network: torch.nn.Module, prepare: Callable[[str], np.ndarray], where: Path, vocabulary: int
) -> int:
    """Return the number of features of a text; raise InputError if the tower refuses the tokenizer's ids."""
    error = f"weights: the text tower refuses the ids of the tokenizer in {where}, which has {vocabulary}"
    hint = "; expected the tokenizer that it was trained with"
    return feature_dim(network, prepare("words")[None], error=error, hint=hint)
