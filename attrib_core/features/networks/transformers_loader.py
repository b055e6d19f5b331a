"""Models of transformers out of a folder, every tensor from its files. No code of the folder is run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrib_core.common.errors import InputError, close_matches

if TYPE_CHECKING:
    import torch

CONFIG = "config.json"


def weight_files(folder: Path) -> list[Path]:
    """The files of weights in a folder; InputError where there are none."""
    # An index names the pieces of weights that are cut; where there are tables of tensors, pickles are not read.
    found = sorted(folder.glob("model*.safetensors*")) or sorted(folder.glob("pytorch_model*.bin*"))
    if not found:
        raise InputError(f"weights: {folder} lacks model.safetensors; expected the weights beside {CONFIG}")
    return found


def config(folder: Path) -> dict[str, Any]:
    """What `config.json` says; InputError where it names no type of model."""
    try:
        told = json.loads((folder / CONFIG).read_text("utf-8"))
        told["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"weights: {folder / CONFIG} names no model_type ({error})") from None
    found: dict[str, Any] = told
    return found


def choice(folder: Path, models: Mapping[str, Any]) -> Any:
    """What `models` has for the type of a folder's model; InputError for another type."""
    kind = config(folder)["model_type"]
    if kind not in models:
        raise InputError(f"weights: {folder} is a model of type {kind!r}, {close_matches(str(kind), models)}")
    return models[kind]


def network(folder: Path, kind: str, **extra: Any) -> torch.nn.Module:
    """The model that the class `kind` of transformers opens, float32, ready to compute.

    transformers itself fills what is missing with noise; here it is an InputError, as are
    tensors of another shape and damaged files. `extra` goes to the class.
    """
    import torch
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # what is missing is told by the error below
    try:
        loaded, told = getattr(transformers, kind).from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32, **extra
        )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"weights: {folder} cannot be opened by {kind}: {reason}") from None
    except Exception as error:
        if type(error).__module__.split(".")[0].startswith("safetensors"):
            raise InputError(f"weights: {folder} holds damaged weights ({error})") from None
        raise
    finally:
        logging.set_verbosity(before)
    _all_there(folder, kind, told)
    found: torch.nn.Module = loaded.eval()
    return found


def _all_there(folder: Path, kind: str, told: Mapping[str, Sequence[Any]]) -> None:
    odd = [f"{name} missing" for name in sorted(told["missing_keys"])]
    odd += [f"{one} has another shape" for one in sorted(map(str, told["mismatched_keys"]))]
    if odd:
        raise InputError(f"weights: {folder} does not fit {kind} in {len(odd)} tensors, the first: {odd[0]}")
