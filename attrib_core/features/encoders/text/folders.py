"""Text towers of transformers: in a folder of their own library, and in a base model in diffusers layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attrib_core.common.errors import InputError
from attrib_core.diffusion.pipeline import description
from attrib_core.features.networks import transformers_loader

if TYPE_CHECKING:
    import torch

INDEX = "model_index.json"
POOLED, PROJECTED = "pooler_output", "text_embeds"
MODELS = {
    "clip": ("CLIPTextModelWithProjection", PROJECTED),
    "clip_text_model": ("CLIPTextModelWithProjection", PROJECTED),
    "siglip": ("SiglipTextModel", POOLED),
    "siglip_text_model": ("SiglipTextModel", POOLED),
    "siglip2": ("Siglip2TextModel", POOLED),
    "siglip2_text_model": ("Siglip2TextModel", POOLED),
}
"""Type of a model in config.json to the class that opens it and what of its output is taken."""
OF_BASES = {"CLIPTextModel": POOLED, "CLIPTextModelWithProjection": PROJECTED}
"""The same by the class that a base model's text encoder names."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
TOKENIZER_FILES = (
    *VOCABULARIES,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


@dataclass(frozen=True)
class Tower:
    """A text tower: `prepare` takes a text to (length,) int64 ids, `network` (n, length) of them to (n, dim)."""

    network: torch.nn.Module
    prepare: Callable[[str], np.ndarray]
    dim: int
    identity: dict[str, Any] = field(default_factory=dict)


def of_model(folder: Path) -> Tower:
    """The text tower of a CLIP or SigLIP in a folder of transformers."""
    kind, taken = transformers_loader.choice(folder, MODELS)
    return _tower(folder, kind, taken, folder, "AutoTokenizer")


def of_base_model(folder: Path) -> Tower:
    """The text encoder of a base model; the last one where it has two."""
    encoder, tokenizer = read_of(folder)
    kind = _class(folder)
    return _tower(folder / encoder, kind, OF_BASES[kind], folder / tokenizer, "CLIPTokenizer")


def read_of(folder: Path) -> tuple[str, str]:
    """The subfolders of a base model's last text encoder and of its tokenizer."""
    encoder = description.TEXT_ENCODERS[description.pipeline_class(folder)][-1]
    return encoder, encoder.replace("text_encoder", "tokenizer")


def pools_states(folder: Path) -> bool:
    """Whether features of a base model's text encoder are states, as wide as its tokens."""
    return OF_BASES[_class(folder)] == POOLED


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a tokenizer; InputError where there is none."""
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise InputError(
            f"weights: {folder} holds no tokenizer, expected one of {', '.join(VOCABULARIES)} beside the model"
        )
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]


def _class(folder: Path) -> str:
    """The class of a base model's text encoder."""
    encoder = read_of(folder)[0]
    told = transformers_loader.config(folder / encoder).get("architectures") or ["CLIPTextModel"]
    if told[0] not in OF_BASES:
        raise InputError(
            f"base_model: {folder / encoder} is a {told[0]!r}, expected one of {', '.join(OF_BASES)}"
        )
    return str(told[0])


def _tower(folder: Path, kind: str, taken: str, tokenizer: Path, tokens: str) -> Tower:
    import torch
    import transformers

    network: Any = transformers_loader.network(folder, kind)
    length = int(network.config.max_position_embeddings)
    try:
        cut = getattr(transformers, tokens).from_pretrained(tokenizer, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"weights: {tokenizer} opens no tokenizer: {reason}") from None

    def prepare(words: str) -> np.ndarray:
        found = cut(words, padding="max_length", truncation=True, max_length=length)["input_ids"]
        return np.asarray(found, dtype=np.int64)

    class Features(torch.nn.Module):
        """The part of the output that is the feature. Padding is seen: behind the end, or as in training."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = getattr(self.network(input_ids=ids), taken)
            return features

    features = Features()
    return Tower(features, prepare, dimension(features, prepare, tokenizer, len(cut)))


def dimension(
    features: torch.nn.Module, prepare: Callable[[str], np.ndarray], where: Path, vocabulary: int
) -> int:
    """Features a text; InputError where the tower refuses the tokenizer's ids."""
    import torch

    with torch.inference_mode():
        try:
            found = features(torch.from_numpy(prepare("words"))[None])
        except (IndexError, ValueError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"weights: the text tower refuses the ids of the tokenizer in {where}, which has {vocabulary}"
                f" ({reason}); expected the tokenizer that it was trained with"
            ) from None
    return int(found.shape[1])
