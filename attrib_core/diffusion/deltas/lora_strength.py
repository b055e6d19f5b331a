"""The strength of a LoRA: by what the product of its factors is multiplied, as stock diffusers does.

It is alpha / rank, or alpha / sqrt(rank) for rank-stabilized LoRA (Kalajdzievski, 2023). alpha is a tensor next to the
factors (kohya), or in the configuration of peft's LoraConfig: diffusers keeps it in the metadata of the file, peft
in `adapter_config.json` next to it. In a file without either, alpha is the rank, so that the strength is 1.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrib_core.common.errors import InputError
from attrib_core.storage import text_files

METADATA = "lora_adapter_metadata"
ADAPTER_CONFIG = "adapter_config.json"
DEFAULT = 8
"""peft's rank and alpha where a configuration omits them."""
PATTERN = re.compile(r"\^?[\w.\\*|-]+\$?")
LARGEST = 1e30
MOST_STARS = 3  # a pattern with more could take very long
REFUSED = (
    "use_dora", "lora_bias", "fan_in_fan_out", "modules_to_save", "layer_replication", "use_qalora",
    "trainable_token_indices", "target_parameters", "alora_invocation_tokens",
)  # fmt: skip
"""Options of LoraConfig with which a change is more than two factors."""
SOUND_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Initializations that leave the base model's own weights as they are."""


def strengths(
    path: Path,
    ranks: Mapping[str, int],
    alphas: Mapping[str, float],
    metadata: Mapping[str, str],
    *,
    prefix: str,
    one_alpha: bool,
    peft: bool,
) -> dict[str, float]:
    """Return the strength of each layer.

    ranks: by layer. alphas: those in tensors, by layer. metadata: of the safetensors file. prefix: that of the keys,
    which the configuration's keys have too. one_alpha: tensors of alpha are of kohya's layout, in which stock
    diffusers gives attention layers the alpha that most layers have. peft: the file is peft's, whose strength is in
    another file. Raises InputError for a configuration that cannot be read, or is for other factors.
    """
    where, config = _configuration(path, metadata, prefix, peft)
    if config is not None and alphas:
        raise InputError(f"{path}: has alpha in tensors and in {where}; expected one of them")
    if config is not None:
        return _from_configuration(f"{path}: {where}", config, ranks)
    if one_alpha:
        _check_alike(path, ranks, alphas)
    return {layer: alphas.get(layer, rank) / rank for layer, rank in ranks.items()}


def _check_alike(path: Path, ranks: Mapping[str, int], alphas: Mapping[str, float]) -> None:
    """Raise InputError where stock diffusers and other tools read different strengths from kohya's layout."""
    if alphas and len(alphas) < len(ranks):
        layer = next(layer for layer in ranks if layer not in alphas)
        raise InputError(
            f"{path}: {layer!r} has no alpha, but other layers have; expected one for each, or none"
        )
    counted = Counter(alphas.values()).most_common()
    if len(counted) < 2:
        return
    (most, count), (_, next_count) = counted[:2]
    for layer, alpha in alphas.items():
        if ".attn" in layer and (alpha != most or count == next_count):
            raise InputError(
                f"{path}: {layer!r} has alpha {alpha:g}, other layers {most:g}: load_lora_weights of diffusers gives"
                " all attention layers the most frequent one, other tools give each its own; save it with one alpha"
            )


def _configuration(
    path: Path, metadata: Mapping[str, str], prefix: str, peft: bool
) -> tuple[str, dict[str, Any] | None]:
    """Return the place and the content of the configuration, None where the file has none."""
    if METADATA in metadata:
        found = _json(f"{path}: metadata {METADATA!r}", metadata[METADATA])
        # kohya's keys are converted to those with this prefix
        start = "unet." if prefix in ("unet.", "lora_unet_") else ""
        own = {key.removeprefix(start): value for key, value in found.items() if key.startswith(start)}
        if not own:
            raise InputError(f"{path}: metadata {METADATA!r} has no key that begins with {start!r}")
        return f"metadata {METADATA!r}", own
    if not peft:
        return "", None
    config_file = path.with_name(ADAPTER_CONFIG)
    if not config_file.is_file():
        raise InputError(
            f"{path}: a LoRA in keys of peft, whose strength (lora_alpha) is in {ADAPTER_CONFIG}, which is not next to"
            " it; copy it there"
        )
    return ADAPTER_CONFIG, _json(str(config_file), text_files.read(config_file))


def _json(where: str, text: str) -> dict[str, Any]:
    try:
        found = text_files.parse_json(text)
    except InputError as error:
        raise InputError(f"{where}: not readable as JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{where}: is a {type(found).__name__}, expected a configuration of LoRA")
    return found


def _from_configuration(where: str, config: Mapping[str, Any], ranks: Mapping[str, int]) -> dict[str, float]:
    """Compute the strengths from a LoraConfig, after a check that it is for these factors."""
    for name in REFUSED:
        if config.get(name):
            raise InputError(
                f"{where}: {name} is {config[name]!r}; only LoRA with two factors and no more is read"
            )
    if config.get("bias", "none") != "none":
        raise InputError(f"{where}: bias is {config['bias']!r}, expected 'none'")
    if str(config.get("peft_type", "LORA")).rpartition(".")[2] != "LORA":
        raise InputError(f"{where}: peft_type is {config['peft_type']!r}, expected 'LORA'")
    start = config.get("init_lora_weights", True)
    if start not in SOUND_STARTS:
        raise InputError(
            f"{where}: init_lora_weights is {start!r}, which changes the base model itself; not read"
        )
    rank, alpha = _number(where, "r", config.get("r", DEFAULT)), config.get("lora_alpha", DEFAULT)
    alpha = _number(where, "lora_alpha", alpha)
    own_ranks, own_alphas = (
        _pattern(where, name, config.get(name)) for name in ("rank_pattern", "alpha_pattern")
    )
    found = {}
    for layer, actual in ranks.items():
        named = own_ranks.get(_first_match(own_ranks, layer), rank)
        if named != actual:
            raise InputError(f"{where}: rank {named:g} for {layer!r}, but its factors have {actual}")
        divisor = math.sqrt(actual) if config.get("use_rslora") else actual
        found[layer] = own_alphas.get(_first_match(own_alphas, layer), alpha) / divisor
    return found


def _pattern(where: str, name: str, given: Any) -> dict[str, float]:
    """Return a dictionary of numbers by names of layers, which may be regular expressions."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InputError(f"{where}: {name} is {given!r}, expected numbers by names of layers")
    for key in given:
        try:
            simple = PATTERN.fullmatch(key) and key.count("*") <= MOST_STARS and re.compile(key)
        except re.error:
            simple = None
        if not simple:
            raise InputError(f"{where}: {name} has {key!r}, expected the name of a layer or of its end")
    return {key: _number(where, f"{name} of {key!r}", value) for key, value in given.items()}


def _first_match(patterns: Mapping[str, float], layer: str) -> str:
    """Return the first pattern that matches the whole name of a layer or its end, as peft does; else ""."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", layer)), "")


def _number(where: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        raise InputError(f"{where}: {name} is {str(value)[:20]!r}, expected a number")
    return float(value)
