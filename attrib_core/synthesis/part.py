"""The stage `synthesize`: the pictures of a part's models, in batches that mix models.

Pictures of one set are kept together under a key of all that they depend on, in a
folder that no rule declares; a part makes only those that are missing.
"""

from __future__ import annotations

import io
import itertools
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from attrib_core import keys, tables
from attrib_core.diffusion import components, deltas, sampling
from attrib_core.diffusion.components import Components
from attrib_core.diffusion.deltas import Delta
from attrib_core.diffusion.description import BaseModel
from attrib_core.errors import InputError
from attrib_core.jobs import progress
from attrib_core.pictures import png
from attrib_core.synthesis.requests import Request, of_model

LOGGER = logging.getLogger(__name__)
PIECES = "pieces/synthesized"


def synthesize(
    models: Sequence[Mapping[str, Any]],
    prompts: Iterable[Mapping[str, Any]],
    base: BaseModel,
    *,
    steps: int,
    guidance: float,
    batch: int,
    image_format: str,
    samples_each: int,
    run: Path,
    seed: int,
    code: str,
    device: str,
) -> Iterator[pa.Table]:
    """Tables of `synthesized`, one a model, in the order of the rows of `models`.

    `run` is the folder of the run, where the deltas stand and where finished sets
    are kept. A batch always has `batch` rows, filled with copies where requests
    run out. Raises InputError for a model whose files are not those of its row,
    or that was made of another base model, and for prompts that do not fit.
    """
    by_set: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in prompts:
        by_set[row["exemplar_set"]].append(row)
    wanted = {}
    for model in models:
        _check_base(model, base)
        asked = of_model(model, by_set[model["exemplar_set"]], samples_each=samples_each, seed=seed)
        settings = [steps, guidance, image_format, code]
        key = keys.content_key(
            "synthesized", model["checksum"], base.fingerprint, settings, [asdict(one) for one in asked]
        )
        wanted[model["exemplar_set"]] = (model, asked, run / PIECES / f"{key}.parquet")
    missing = [(model, asked) for model, asked, piece in wanted.values() if not _finished(piece, asked)]
    made = _made(missing, base, run, steps=steps, guidance=guidance, batch=batch, device=device)
    if len(missing) < len(wanted):
        LOGGER.info("pictures of %d of %d models are there already", len(wanted) - len(missing), len(wanted))
    lacking = {model["exemplar_set"] for model, _ in missing}
    for name, (_, asked, piece) in wanted.items():
        if name in lacking:
            rows = [
                asdict(request) | {"image": {"bytes": encoded(picture, image_format), "path": None}}
                for request, picture in zip(asked, itertools.islice(made, len(asked)), strict=True)
            ]
            tables.write(piece, "synthesized", rows)
        yield tables.read(piece, "synthesized")


def encoded(picture: np.ndarray, image_format: str) -> bytes:
    """A picture's file, without loss: png or webp."""
    if image_format == "png":
        return png.encode(picture)
    if image_format != "webp":
        raise InputError(f"synthesis.image_format: {image_format!r}, choose 'png' or 'webp'")
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "WEBP", lossless=True)
    return stream.getvalue()


def _made(
    missing: Sequence[tuple[Mapping[str, Any], Sequence[Request]]],
    base: BaseModel,
    run: Path,
    *,
    steps: int,
    guidance: float,
    batch: int,
    device: str,
) -> Iterator[np.ndarray]:
    """The pictures of all missing requests in order; nothing is loaded before the first is asked for."""
    if not missing:
        return
    token = missing[0][0]["modifier_token"]
    loaded = components.with_token(components.load(base, device), token)
    with torch.no_grad():
        nothing = components.encode_text(loaded, components.tokenize(loaded, [""])).expand(batch, -1, -1)
    owners = {model["model_key"]: model for model, _ in missing}
    held: dict[str, Delta] = {}
    asked = [request for _, requests in missing for request in requests]
    for request in asked:
        owner = owners.get(request.model_key)
        if owner is not None and owner["modifier_token"] != token:
            raise InputError(f"models: modifier tokens {token!r} and {owner['modifier_token']!r} in one part")
    starts = range(0, len(asked), batch)
    for start in progress(starts, total=len(starts), what=f"batches of {batch} pictures"):
        members = asked[start : start + batch]
        filled = [*members, *[members[-1]] * (batch - len(members))]
        needed = {request.model_key for request in filled} & set(owners)
        held = {key: held.get(key) or _delta(owners[key], run) for key in sorted(needed)}
        try:
            pictures = _batch(loaded, filled, held, nothing, steps=steps, guidance=guidance)
        except torch.cuda.OutOfMemoryError:
            raise InputError(
                f"synthesis.batch: {batch} pictures at a time do not fit the memory of {device};"
                " choose a smaller number"
            ) from None
        yield from pictures[: len(members)]


@torch.no_grad()
def _batch(
    loaded: Components,
    filled: Sequence[Request],
    held: Mapping[str, Delta],
    nothing: torch.Tensor,
    *,
    steps: int,
    guidance: float,
) -> np.ndarray:
    """Pictures of a batch of requests, each by its own model."""
    ids = components.tokenize(loaded, [request.prompt for request in filled])
    noise = sampling.initial_noise(loaded, [request.seed for request in filled])
    with deltas.applied(loaded, [held.get(request.model_key) for request in filled]):
        states = components.encode_text(loaded, ids)
        return sampling.sample(loaded, states, nothing, noise, steps=steps, guidance=guidance)


def _delta(model: Mapping[str, Any], run: Path) -> Delta:
    return deltas.read(
        run / model["delta_path"], run / model["token_path"], model["modifier_token"], model["checksum"]
    )


def _check_base(model: Mapping[str, Any], base: BaseModel) -> None:
    if model["base_model"] != base.fingerprint:
        raise InputError(
            f"model of {model['exemplar_set']!r}: made of base model {model['base_model'][:12]}, but base_model.json"
            f" is {base.fingerprint[:12]}; run the rule customize_part again"
        )


def _finished(piece: Path, asked: Sequence[Request]) -> bool:
    """Whether a set's pictures are there, and are those that are asked for."""
    if not piece.exists():
        return False
    try:
        found = tables.read(piece, "synthesized", columns=["query_id", "seed"])
    except InputError:
        return False
    return found.to_pylist() == [{"query_id": one.query_id, "seed": one.seed} for one in asked]
