"""Text towers of open_clip."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from attrib_core.common.errors import InputError, close_matches
from attrib_core.features.encoders.text.transformers_towers import TextTower, text_feature_dim
from attrib_core.features.networks import state_dicts
from attrib_core.features.networks.network_encoder import adapt

UNUSED = ("visual.", "text_decoder.", "logit_scale", "logit_bias", "input_resolution", "context_length",
             "vocab_size")  # fmt: skip
"""Name prefixes of the tensors that `encode_text` does not use."""


def load(architecture: str, path: Path, prefix: str) -> TextTower:
    """Load the text tower of an open_clip model from the tensors of a file whose names begin with `prefix`.

    Raises InputError for an unknown architecture, tensors that do not fit the tower, and towers and tokenizers that
    open_clip would download.
    """
    import open_clip
    import torch

    known = open_clip.list_models()
    if architecture not in known:
        raise InputError(
            f"architecture: {architecture!r} is not in open_clip, {close_matches(architecture, known)}"
        )
    text_config: dict[str, Any] = (open_clip.get_model_config(architecture) or {}).get("text_cfg", {})
    if text_config.get("hf_model_name"):
        raise InputError(
            f"architecture: the text tower of {architecture!r} is {text_config['hf_model_name']!r} of transformers,"
            " which open_clip downloads; expected one with a tower of open_clip's own"
        )
    tokenizer = _tokenizer(architecture, text_config)
    model = open_clip.create_model(architecture, load_weights=False)
    for name in ("logit_scale", "logit_bias"):
        if hasattr(model, name):
            delattr(model, name)
    for name in ("visual", "text_decoder"):
        if hasattr(model, name):
            setattr(model, name, torch.nn.Identity())
    state = state_dicts.read(path, prefix)
    used = {name: value for name, value in state.items() if not name.startswith(UNUSED)}
    state_dicts.load(model, used, path)

    def prepare(text: str) -> np.ndarray:
        ids: np.ndarray = tokenizer([text])[0].numpy().astype(np.int64)
        return ids

    network = adapt(model, lambda model, ids: model.encode_text(ids, normalize=False))
    vocabulary = getattr(getattr(tokenizer, "tokenizer", None), "backend_tokenizer", None)
    identity = {}
    if vocabulary is not None:
        identity["tokenizer_sha256"] = hashlib.sha256(vocabulary.to_str().encode("utf-8")).hexdigest()
    dim = text_feature_dim(network, prepare, path, int(text_config.get("vocab_size", 0)))
    return TextTower(network, prepare, dim, identity)


def _tokenizer(architecture: str, text_config: dict[str, Any]) -> Any:
    """Load open_clip's tokenizer for an architecture; one of the hub only from the local cache."""
    import open_clip

    hub_name = text_config.get("hf_tokenizer_name")
    if not hub_name:
        if "siglip" in architecture.lower():
            raise InputError(
                f"architecture: open_clip downloads the tokenizer of {architecture!r}; expected one whose tokenizer"
                " is in the package or in the hub's cache"
            )
        return open_clip.get_tokenizer(architecture)
    try:
        return open_clip.get_tokenizer(architecture, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"architecture: the tokenizer of {architecture!r} is not in the hub's cache ({reason});"
            f" fetch it on a machine with a network by `hf download {hub_name}` and copy that cache here"
        ) from None
