"""Load models of the transformers library from a folder; no code in the folder is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrib_core.common.errors import InputError, close_matches

if TYPE_CHECKING:
    import torch

CONFIG = "config.json"


def weight_files(folder: Path) -> list[Path]:
    """Return the weights files of a folder with the index of sharded ones; raise InputError if there are none."""
    # Where there are safetensors, pickles are not read.
    found = sorted(folder.glob("model*.safetensors*")) or sorted(folder.glob("pytorch_model*.bin*"))
    if not found:
        raise InputError(f"weights: {folder} lacks model.safetensors; expected the weights next to {CONFIG}")
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json`; raise InputError if it names no model_type."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text("utf-8"))
        config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"weights: {folder / CONFIG} names no model_type ({error})") from None
    return config


def for_model_type(folder: Path, entries: Mapping[str, Any]) -> Any:
    """Return the entry for the model type of a folder; raise InputError for a type without one."""
    model_type = read_config(folder)["model_type"]
    if model_type not in entries:
        near = close_matches(str(model_type), entries)
        raise InputError(f"weights: {folder} is a model of type {model_type!r}, {near}")
    return entries[model_type]


def load_model(folder: Path, class_name: str, **extra: Any) -> torch.nn.Module:
    """Load a folder with a model class of transformers, in float32 and evaluation mode.

    Raises InputError for damaged files and for tensors that are missing or of another shape, which transformers
    itself would initialize at random. `extra` goes to `from_pretrained`.
    """
    import torch
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # missing tensors are reported by the error below
    try:
        loaded, info = getattr(transformers, class_name).from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32, **extra
        )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"weights: {folder} cannot be opened by {class_name}: {reason}") from None
    except Exception as error:
        if type(error).__module__.split(".")[0].startswith("safetensors"):
            raise InputError(f"weights: {folder} holds damaged weights ({error})") from None
        raise
    finally:
        logging.set_verbosity(verbosity)
    problems = [f"{name} missing" for name in sorted(info["missing_keys"])]
    problems += [f"{key} has another shape" for key in sorted(map(str, info["mismatched_keys"]))]
    if problems:
        raise InputError(
            f"weights: {folder} does not fit {class_name} in {len(problems)} tensors, the first: {problems[0]}"
        )
    network: torch.nn.Module = loaded.eval()
    return network
