"""Text towers of open_clip."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from attrib_core.common.errors import InputError, close_matches
from attrib_core.features.encoders.text.folders import Tower, dimension
from attrib_core.features.networks import state_dicts

OF_OTHERS = ("visual.", "text_decoder.", "logit_scale", "logit_bias", "input_resolution", "context_length",
             "vocab_size")  # fmt: skip
"""What the names of tensors begin with that `encode_text` does not use."""


def opened(architecture: str, path: Path, prefix: str) -> Tower:
    """The text tower of an open_clip model with the tensors of a file whose names begin with `prefix`.

    Raises InputError for an unknown architecture, tensors that do not fit the tower, and towers
    and tokenizers that open_clip would download.
    """
    import open_clip
    import torch

    known = open_clip.list_models()
    if architecture not in known:
        raise InputError(
            f"architecture: {architecture!r} is not in open_clip, {close_matches(architecture, known)}"
        )
    told: dict[str, Any] = (open_clip.get_model_config(architecture) or {}).get("text_cfg", {})
    if told.get("hf_model_name"):
        raise InputError(
            f"architecture: the text tower of {architecture!r} is {told['hf_model_name']!r} of transformers, which"
            " open_clip downloads; expected one with a tower of open_clip's own"
        )
    cut = _tokenizer(architecture, told)
    model = open_clip.create_model(architecture, load_weights=False)
    for name in ("logit_scale", "logit_bias"):
        if hasattr(model, name):
            delattr(model, name)
    for name in ("visual", "text_decoder"):
        if hasattr(model, name):
            setattr(model, name, torch.nn.Identity())
    state = state_dicts.read(path, prefix)
    own = {name: value for name, value in state.items() if not name.startswith(OF_OTHERS)}
    state_dicts.fill(model, own, path)

    class Features(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.model.encode_text(ids, normalize=False)
            return features

    def prepare(words: str) -> np.ndarray:
        found: np.ndarray = cut([words])[0].numpy().astype(np.int64)
        return found

    features = Features().eval()
    vocabulary = getattr(getattr(cut, "tokenizer", None), "backend_tokenizer", None)
    noted = {} if vocabulary is None else {"tokenizer_sha256": _sha256(vocabulary.to_str())}
    dim = dimension(features, prepare, path, int(told.get("vocab_size", 0)))
    return Tower(features, prepare, dim, noted)


def _tokenizer(architecture: str, told: dict[str, Any]) -> Any:
    """The tokenizer that open_clip has for an architecture; those of the hub come from its cache alone."""
    import open_clip

    named = told.get("hf_tokenizer_name")
    if not named:
        if "siglip" in architecture.lower():
            raise InputError(
                f"architecture: open_clip downloads the tokenizer of {architecture!r}; expected one whose tokenizer"
                " the package or the hub's cache has"
            )
        return open_clip.get_tokenizer(architecture)
    try:
        return open_clip.get_tokenizer(architecture, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"architecture: the tokenizer of {architecture!r} is not in the hub's cache ({reason});"
            f" fetch it on a machine with a network by `hf download {named}` and copy that cache here"
        ) from None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
