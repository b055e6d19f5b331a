"""Estimate the bytes that a run will write, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrib_core.common import families
from attrib_core.common.constants import UNTUNED
from attrib_core.common.errors import InputError
from attrib_core.config.planning import rates as rates_of
from attrib_core.config.planning import safetensors_headers
from attrib_core.config.planning.base_model_facts import Base
from attrib_core.config.planning.counts import Counts, Range
from attrib_core.config.planning.rates import Rates
from attrib_core.data.prompts import MODIFIER_TOKEN
from attrib_core.diffusion.customization.method import Customizer
from attrib_core.features.index import factory_string
from attrib_core.storage import run_layout, vector_columns

FLOAT32, FLOAT64 = 4, 8
TOKEN_KEYS = ("clip_l", "clip_g")  # of two text encoders, as in `diffusion.deltas.token_file`
RANK_NUMBERS = 36  # bytes of the numeric columns in a row of `ranks`: three int64, a float32, two int32


@dataclass(frozen=True)
class Size:
    """Least and most bytes of a stage's files. upper_bound: compression makes them smaller."""

    bytes: Range
    upper_bound: bool = False


def delta_bytes(config: Mapping[str, Any], base: Base) -> int | None:
    """Return the bytes of a model's two files; None if the method does not know the shapes of its delta."""
    family, options = families.split(config["customizer"])
    method: Customizer = families.load("customizers", family, options, where="customizer")
    held = method.delta_shapes(base.unet)
    if held is None:
        return None
    return safetensors_headers.file_bytes(held) + token_bytes(base.widths, method.tokens)


def token_bytes(widths: Sequence[int], tokens: int) -> int:
    """Return the bytes of a token file with `tokens` vectors for each text encoder, of these widths."""
    if len(widths) == 1:
        return safetensors_headers.file_bytes(
            {MODIFIER_TOKEN: (*widths,) if tokens == 1 else (tokens, *widths)}
        )
    held = {name: (tokens, width) for name, width in zip(TOKEN_KEYS, widths, strict=True)}
    return safetensors_headers.file_bytes(held, {"modifier_token": MODIFIER_TOKEN})


def image_bytes(config: Mapping[str, Any]) -> float | None:
    """Return the mean bytes of a pool image, if its source knows them; InputError if it cannot be opened."""
    family, options = families.split(config["pool"]["source"])
    source = families.load("sources", family, options, where="pool.source", seed=config["seed"])
    mean = getattr(source, "mean_bytes", None)
    found: float | None = mean(config["pool"]["images"]) if mean else None
    return found


def dimensions(config: Mapping[str, Any], run: Path | None) -> dict[str, int | None]:
    """Return the embedding dimension of each encoder, from its options or else from a run's embeddings."""
    found = {}
    for name, section in config["encoders"].items():
        width = families.dim(section, f"encoders.{name}")
        path = run_layout.path(run, run_layout.EXEMPLAR_EMBEDDINGS, encoder=name) if run else None
        if width is None and path and path.is_file():
            width = vector_columns.dimension(path)
        found[name] = width
    return found


def estimate(
    config: Mapping[str, Any], counts: Counts, base: Base | None, rates: Rates, dims: Mapping[str, int | None]
) -> tuple[dict[str, Size], list[str]]:
    """Estimate bytes by stage, "embed <name>" for encoders, with a line for each figure that is not known."""
    found: dict[str, Size] = {}
    missing = []
    try:
        each = image_bytes(config)
        each = rates.bytes["pool"].amount if each is None and "pool" in rates.bytes else each
        if each is None:
            missing.append("bytes of the pool: image size not measured for this source")
        else:
            found["pool"] = _flat(counts.pool * each)
    except InputError as error:
        missing.append(f"bytes of the pool: {error}")
    if "image" in rates.bytes:
        each = rates.bytes["image"].amount
        # if only a sample is kept, the images of at least one part exist until they are embedded
        shares = (counts.images, counts.images)
        if config["synthesis"]["keep"] == "sample":
            shares = (math.ceil(counts.images / counts.set_parts), counts.images)
        found["synthesize"] = _range(shares, each)
        found["sample"] = _flat(counts.sampled * each)
    else:
        missing.append("bytes of synthesized images: not measured for this base model and format")
    if counts.prior[1]:
        generated = (
            "steps" in config["prior"] and config["synthesis"]["image_format"] == rates_of.PRIOR_FORMAT
        )
        prior = rates.bytes.get("prior") or (rates.bytes.get("image") if generated else None)
        if prior is not None:
            found["prior"] = _range(counts.prior, prior.amount)
        else:
            missing.append(
                f"bytes of prior images: image size not measured for family {config['prior']['family']!r}"
            )
    if base is None:
        missing.append("bytes of deltas: they depend on the shapes of the base model")
    elif (delta := delta_bytes(config, base)) is None:
        missing.append("bytes of deltas: the customizer does not know their shapes")
    else:
        found["customize"] = _flat(counts.models * delta)
    unknown = [name for name, dim in dims.items() if dim is None]
    if unknown:
        missing.append(
            f"bytes of embeddings, mappers and indices of {', '.join(unknown)}: the number of features of such a"
            " network is known only when it is opened, or from a run with this encoder (--rates RUN)"
        )
    for name, dim in dims.items():
        if dim is not None:
            measured = rates.bytes.get(f"embed {name}")
            each = measured.amount if measured else FLOAT32 * dim
            found[f"embed {name}"] = _range(counts.embedded, each, upper_bound=measured is None)
    if not unknown:
        known = [dim for dim in dims.values() if dim is not None]
        heads = len(counts.mappers) - (UNTUNED in counts.mappers)
        least, most = (
            sum(_head_parameters(config["mapper"], dim, whitened=whitened) for dim in known)
            for whitened in (False, True)
        )
        found["tune"] = Size((2 * FLOAT32 * heads * least, 2 * FLOAT32 * heads * most))
        factory = factory_string.resolve(config["index"]["factory"], None, counts.pool).factory
        if factory == "Flat":
            stored = counts.pool * FLOAT32 * sum(known) * len(counts.mappers)
            found["index"] = Size((stored, stored), upper_bound=True)
        else:
            missing.append(f"bytes of indices: only FAISS knows the size of {factory!r}")
    found["rank"] = _ranks(config, counts)
    return found, missing


def _ranks(config: Mapping[str, Any], counts: Counts) -> Size:
    """Estimate the uncompressed bytes of numeric columns in ranks and candidates; names compress well."""
    ranking, prompts = config["ranking"], config["prompts"]
    histogram = 2 * FLOAT64 * ranking["bins"]
    kept = counts.images * (FLOAT32 * ranking["top_k"] + histogram)
    prompts_of = {kind: prompts["prompts_each"] * len(prompts[kind]) for kind in counts.sets}
    samples = prompts["samples_each"] + prompts["control_samples_each"]
    largest = config["exemplars"]["style_set_size"][1]
    rows = samples * (
        counts.sets["object"] * prompts_of["object"] + counts.sets["style"] * prompts_of["style"] * largest
    )
    most = (kept + rows * RANK_NUMBERS) * len(counts.encoders) * len(counts.mappers)
    return Size((most, most), upper_bound=True)


def _head_parameters(mapper: Mapping[str, Any], dim: int, *, whitened: bool) -> int:
    """Return the parameters of one head; an mlp that starts from whitened features has more."""
    hidden = mapper["hidden"]
    mlp = 2 * dim * hidden + hidden + dim
    if whitened and set(mapper["starts"]) != {"identity"}:
        mlp += dim * dim
    return {"linear": dim * dim + dim, "channel": dim, "mlp": mlp}[mapper["head"]]


def _flat(amount: float) -> Size:
    return Size((round(amount), round(amount)))


def _range(items: Range, each: float, *, upper_bound: bool = False) -> Size:
    return Size((round(items[0] * each), round(items[1] * each)), upper_bound)
