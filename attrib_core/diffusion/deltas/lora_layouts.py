"""The layouts of LoRA files that other tools write, told apart by the names of their keys.

All have two factors for each changed layer of the UNet, `down` or A and `up` or B:

- `unet.<layer>.lora_A.weight` and `lora_B`: diffusers now; without `unet.`, its `save_lora_adapter`;
- `unet.<layer>.lora.down.weight` and `up`, `unet.<block>.processor.to_k_lora.down.weight`: diffusers before;
- `base_model.model.<layer>.lora_A.weight`: peft;
- `lora_unet_<layer with _ for .>.lora_down.weight`, `lora_up` and `alpha`: kohya's trainer and most web sites, with
  the UNet's blocks numbered as diffusers or, for SDXL, as Stability's code does.

`lora_strength` reads by how much each scales the product. What is no product of two factors (DoRA, LoHa, LoKr and so
on) is refused by its name; the keys of text encoders are listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attrib_core.common.errors import InputError
from attrib_core.diffusion.deltas import lora_factors, lora_strength, tensor_checks

MARKS = (
    ".lora_", "_lora.", ".lora.", ".dora_scale", ".hada_", ".lokr_", ".oft_", ".boft_", ".vera_", ".on_input",
)  # fmt: skip
"""Parts of keys that only LoRA files and their kin have."""
OTHER_KINDS = {
    ".dora_scale": "DoRA (it also scales each row of the weights)",
    "lora_magnitude_vector": "DoRA (it also scales each row of the weights)",
    ".hada_": "LoHa (Hadamard products)",
    ".lokr_": "LoKr (Kronecker products)",
    ".oft_": "OFT (rotations)",
    ".boft_": "BOFT (rotations)",
    ".vera_": "VeRA",
    ".lora_mid.": "LoCon with a third factor (lora_mid)",
    ".on_input": "IA3",
    ".bias": "LoRA with biases",
}
TEXT_ENCODERS = (
    "lora_te_", "lora_te1_", "lora_te2_", "lora_te3_", "text_encoder.", "text_encoder_2.", "text_encoder_3.",
    "base_model.model.text_model.", "text_model.",
)  # fmt: skip
DIFFERENCES = (".diff", ".diff_b")
OTHER_MODELS = {
    "transformer.": "a transformer, such as Flux or Stable Diffusion 3",
    "lora_transformer_": "a transformer, such as Flux or Stable Diffusion 3",
    "diffusion_model.": "a model in ComfyUI's keys",
    "model.diffusion_model.": "a model in the keys of Stability's code",
    "lora_prior_": "a prior network",
}
KOHYA, PEFT, PLAIN = "lora_unet_", "base_model.model.", lora_factors.PREFIX
LAYOUTS = {
    (KOHYA, "kohya"): "kohya's keys",
    (PEFT, "peft"): "keys of peft",
    (PLAIN, "peft"): "",
    ("", "peft"): "keys of diffusers' save_lora_adapter",
    (PLAIN, "older"): "keys of older diffusers",
    ("", "older"): "keys of older diffusers' save_attn_procs",
}
"""Names of the layouts, by the prefix of their keys and the kind of their ends."""
ENDS = re.compile(
    r"(?P<peft>\.lora_(?P<peft_part>[AB])(\.default)?\.weight)"
    r"|(?P<older>[._]lora\.(?P<older_part>down|up)\.weight)"
    r"|(?P<kohya>\.lora_(?P<kohya_part>down|up)\.weight)"
    r"|(?P<alpha>\.alpha)"
)
PARTS = {"A": "A", "down": "A", "B": "B", "up": "B"}
WORDS = (
    "down_blocks", "up_blocks", "mid_block", "transformer_blocks", "to_q", "to_k", "to_v", "to_out", "proj_in",
    "proj_out", "time_emb_proj", "time_embedding", "add_embedding", "linear_1", "linear_2", "conv_in", "conv_out",
    "conv_shortcut", "conv_norm_out",
)  # fmt: skip
"""Names of layers that contain _, which kohya's keys also have in place of each dot."""
STABILITY = re.compile(
    r"(?P<block>input_blocks|middle_block|output_blocks)[._](?P<number>\d+)([._](?P<inner>\d+))?[._](?P<rest>.+)"
)
STABILITY_LAYERS = 2
"""Layers in a block of SDXL's UNet, by which Stability's code numbers them in one row."""
RESNET = {
    "in.layers.2": "conv1", "out.layers.3": "conv2", "emb.layers.1": "time_emb_proj",
    "skip.connection": "conv_shortcut",
}  # fmt: skip


@dataclass(frozen=True)
class LoRA:
    """The contents of a LoRA file: factors under the keys of `lora_factors`, and the keys of text encoders.

    layout: its name for a message, "" for diffusers' own.
    """

    layout: str
    factors: dict[str, torch.Tensor]
    text_encoder: tuple[str, ...]


def recognised(keys: Iterable[str]) -> bool:
    """Tell whether keys are those of a LoRA, or of its kin."""
    return any(
        any(mark in key for mark in MARKS)
        or key.endswith(DIFFERENCES)
        or ("." in key and key.startswith((KOHYA, "lora_te")))
        for key in keys
    )


def read(path: Path, stored: Mapping[str, Any], metadata: Mapping[str, str]) -> LoRA:
    """Read the factors of a LoRA file with its strength multiplied into B.

    `metadata` is that of the safetensors file. Raises InputError for what is no product of two factors, for a
    mixture of layouts, a factor without the other, factors that do not fit each other, and an unknown strength.
    """
    text_encoder = tuple(sorted(key for key in stored if key.startswith(TEXT_ENCODERS)))
    parts: dict[str, dict[str, str]] = {}
    found: set[tuple[str, str]] = set()
    for key in sorted(set(stored) - set(text_encoder)):
        _check_kind(path, key)
        prefix = next((one for one in (KOHYA, PEFT, PLAIN) if key.startswith(one)), "")
        ends = next((match for match in ENDS.finditer(key) if match.end() == len(key)), None)
        if ends is None:
            raise InputError(f"{path}: key {key!r} is of no known layout of a LoRA; known: {known_layouts()}")
        kind = str(ends.lastgroup).removesuffix("_part")
        part = "alpha" if kind == "alpha" else PARTS[ends[f"{kind}_part"]]
        if kind != "alpha":
            found.add((prefix, kind))
        layer = _layer(path, key[len(prefix) : ends.start()], key, prefix)
        if part in parts.setdefault(layer, {}):
            raise InputError(
                f"{path}: keys {parts[layer][part]!r} and {key!r} are of the same layer; expected one"
            )
        parts[layer][part] = key
    if not found:
        if text_encoder:
            return LoRA("", {}, text_encoder)
        raise InputError(
            f"{path}: key {next(iter(sorted(stored)))!r} has no factors; expected those of a LoRA"
        )
    if len(found) > 1 or not found <= set(LAYOUTS):
        raise InputError(
            f"{path}: a LoRA in a mixture of layouts, such as {sorted(stored)[0]!r} and {sorted(stored)[-1]!r};"
            f" expected one of {known_layouts()}"
        )
    ((prefix, kind),) = found
    return LoRA(LAYOUTS[prefix, kind], _factors(path, stored, metadata, parts, prefix), text_encoder)


def known_layouts() -> str:
    """Return the names of the layouts for a message."""
    return ", ".join(name or "keys of diffusers" for name in LAYOUTS.values())


def _check_kind(path: Path, key: str) -> None:
    """Raise InputError for a key of another kind of change, or of another kind of model."""
    for prefix, model in OTHER_MODELS.items():
        if key.startswith(prefix):
            raise InputError(
                f"{path}: key {key!r} is of a LoRA for {model}; expected one for a UNet of diffusers"
            )
    kinds = OTHER_KINDS | {
        end: "LyCORIS with whole differences of weights" for end in DIFFERENCES if key.endswith(end)
    }
    for mark, name in kinds.items():
        if mark in key:
            raise InputError(f"{path}: is {name}, by its key {key!r}; only LoRA with two factors is read")


def _factors(
    path: Path,
    stored: Mapping[str, Any],
    metadata: Mapping[str, str],
    parts: Mapping[str, Mapping[str, str]],
    prefix: str,
) -> dict[str, torch.Tensor]:
    """Return the factors of all layers under our keys, with the strength multiplied into B."""
    alphas = {}
    for layer, keys in parts.items():
        if "alpha" in keys:
            alphas[layer] = tensor_checks.single_number(path, keys["alpha"], stored[keys["alpha"]])
        if not {"A", "B"} <= set(keys):
            only = next(iter(keys.values()))
            missing = "has no factors" if set(keys) == {"alpha"} else "has no other factor"
            raise InputError(f"{path}: key {only!r} {missing}; expected two for each layer")
    names = [keys[part] for keys in parts.values() for part in ("A", "B")]
    tensors = tensor_checks.floats(path, {name: stored[name] for name in names})
    ranks = {}
    for layer, keys in parts.items():
        first, second = tensors[keys["A"]], tensors[keys["B"]]
        lora_factors.check_pair(path, keys["A"], first, second)
        ranks[layer] = len(first)
    strengths = lora_strength.strengths(
        path, ranks, alphas, metadata, prefix=prefix, one_alpha=prefix == KOHYA, peft=prefix == PEFT
    )
    factors: dict[str, torch.Tensor] = {}
    for layer, keys in sorted(parts.items()):
        down, up = lora_factors.factor_keys(f"{layer}.weight")
        factors[down] = tensors[keys["A"]]
        factors[up] = tensors[keys["B"]] if strengths[layer] == 1 else tensors[keys["B"]] * strengths[layer]
    tensor_checks.check_finite(path, factors)
    return factors


def _layer(path: Path, name: str, key: str, prefix: str) -> str:
    """Return the UNet's own name of a layer."""
    if prefix == KOHYA:
        if STABILITY.match(name) or name.startswith(("time_embed_", "label_emb_", "out_2")):
            name = _from_stability(path, name, key)
        name = name.replace("_", ".")
        for word in WORDS:
            name = re.sub(rf"(^|\.){re.escape(word.replace('_', '.'))}(?=\.|$)", rf"\g<1>{word}", name)
        return name
    name = name.replace(".processor.", ".")
    return f"{name}.0" if name.endswith(".to_out") else name


def _from_stability(path: Path, name: str, key: str) -> str:
    """Convert a name in Stability's numbering to diffusers', with _ for each dot.

    Input block 0 is the first convolution; then each block has its layers and a downsampling in one row. A
    downsampling or upsampling is the last part of its block.
    """
    fixed = {
        "input_blocks_0_0": "conv_in", "out_2": "conv_out", "time_embed_0": "time_embedding_linear_1",
        "time_embed_2": "time_embedding_linear_2", "label_emb_0_0": "add_embedding_linear_1",
        "label_emb_0_2": "add_embedding_linear_2",
    }  # fmt: skip
    if name in fixed:
        return fixed[name]
    found = STABILITY.match(name)
    if found is None:
        raise InputError(f"{path}: key {key!r} names no layer of a UNet that is known")
    number, rest = int(found["number"]), found["rest"].replace("_", ".")
    for theirs, ours in RESNET.items():
        rest = rest.replace(theirs, ours)
    rest = rest.replace(".", "_")
    if found["block"] == "middle_block":
        place = {0: "resnets_0", 1: "attentions_0", 2: "resnets_1"}.get(number)
        if place is None or (number == 1) != rest.startswith(("transformer", "proj", "norm")):
            raise InputError(f"{path}: key {key!r} names no layer of a UNet that is known")
        return f"mid_block_{place}_{rest}"
    entry = "down" if found["block"] == "input_blocks" else "up"
    block, layer = divmod(number - (entry == "down"), STABILITY_LAYERS + 1)
    if rest in ("op", "conv"):
        return f"{entry}_blocks_{block}_{entry}samplers_0_conv"
    kind = {"0": "resnets", "1": "attentions"}.get(found["inner"] or "")
    if kind is None:
        raise InputError(f"{path}: key {key!r} names no layer of a UNet that is known")
    return f"{entry}_blocks_{block}_{kind}_{layer}_{rest}"
