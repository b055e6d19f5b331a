"""Generation of requested images, in batches that mix models.

The fingerprint of the code that this module reaches is part of the key of a set's images. Code that does not affect
an image is therefore kept out of it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from attrib_core.common.errors import InputError
from attrib_core.data.images import to_png
from attrib_core.diffusion.deltas import delta_files
from attrib_core.diffusion.deltas.delta_files import Delta
from attrib_core.diffusion.pipeline import components, sampling
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.diffusion.pipeline.description import BaseModel
from attrib_core.diffusion.pipeline.prompt_encoding import PromptEmbeds
from attrib_core.diffusion.synthesis.requests import Request
from attrib_core.runtime.progress import progress


def encode_image(image: np.ndarray, image_format: str, quality: int) -> bytes:
    """Encode an image. `quality`, 1 to 100, is for the lossy formats; JPEG subsamples colours (4:2:0)."""
    if image_format == "png":
        return to_png(image)
    stream = io.BytesIO()
    if image_format == "jpeg":
        Image.fromarray(image).save(stream, "JPEG", quality=quality, subsampling="4:2:0")
    else:
        # for a lossless file, `quality` would be the effort
        options = {"lossless": True} if image_format == "webp" else {"quality": quality}
        Image.fromarray(image).save(stream, "WEBP", **options)
    return stream.getvalue()


def generate_images(
    missing: Sequence[tuple[Mapping[str, Any], Sequence[Request]]],
    base: BaseModel,
    run: Path,
    *,
    steps: int,
    guidance: float,
    batch: int,
    device: str,
    eta: float = 0.0,
    solver: str = "ddim",
) -> Iterator[np.ndarray]:
    """Yield the images of all missing requests in order; nothing is loaded before the first is needed.

    `missing` has rows of the table `models`, each with its requests. Raises InputError for unlike modifier tokens.
    """
    if not missing:
        return
    token = missing[0][0]["modifier_token"]
    tokens = len(torch.atleast_2d(_delta(missing[0][0], run).embedding))
    loaded = components.with_token(components.load(base, device), token, tokens)
    unconditional = components.empty_prompt_embeds(loaded, batch)
    owners = {model["model_key"]: model for model, _ in missing}
    deltas: dict[str, Delta] = {}
    requested = [request for _, requests in missing for request in requests]
    for request in requested:
        owner = owners.get(request.model_key)
        if owner is not None and owner["modifier_token"] != token:
            raise InputError(f"models: modifier tokens {token!r} and {owner['modifier_token']!r} in one part")
    starts = range(0, len(requested), batch)
    for start in progress(starts, total=len(starts), what=f"batches of {batch} images"):
        members = requested[start : start + batch]
        padded = [*members, *[members[-1]] * (batch - len(members))]
        needed = {request.model_key for request in padded} & set(owners)
        deltas = {key: deltas.get(key) or _delta(owners[key], run) for key in sorted(needed)}
        try:
            images = _batch(
                loaded, padded, deltas, unconditional, steps=steps, guidance=guidance, eta=eta, solver=solver
            )
        except torch.cuda.OutOfMemoryError:
            raise InputError(
                f"synthesis.batch: {batch} images at a time do not fit into the memory of {device};"
                " choose a smaller number"
            ) from None
        yield from images[: len(members)]


@torch.no_grad()
def _batch(
    loaded: Components,
    requests: Sequence[Request],
    deltas: Mapping[str, Delta],
    unconditional: PromptEmbeds,
    *,
    steps: int,
    guidance: float,
    eta: float,
    solver: str,
) -> np.ndarray:
    """Generate the images of a batch of requests, each with its own model."""
    ids = components.tokenize(loaded, [request.prompt for request in requests])
    seeds = [request.seed for request in requests]
    noise = sampling.initial_noise(loaded, seeds)
    with delta_files.apply_deltas(loaded, [deltas.get(request.model_key) for request in requests]):
        return sampling.sample(
            loaded,
            components.encode_text(loaded, ids),
            unconditional,
            noise,
            steps=steps,
            guidance=guidance,
            eta=eta,
            seeds=seeds,
            solver=solver,
        )


def _delta(model: Mapping[str, Any], run: Path) -> Delta:
    return delta_files.read(
        run / model["delta_path"], run / model["token_path"], model["modifier_token"], model["checksum"]
    )
