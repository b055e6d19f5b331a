"""The stage `synthesize`: the images of a part's models, in batches that mix models.

The images of one exemplar set are a piece in the store, under a key of everything they depend on. A part generates
only the pieces that are missing (see `make_missing`).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.diffusion.pipeline.description import BaseModel
from attrib_core.diffusion.synthesis import generate, image_formats
from attrib_core.diffusion.synthesis.requests import Request, model_requests
from attrib_core.storage.store import layout, make_missing
from attrib_core.storage.store.make_missing import StoredResults


def synthesize(
    models: Sequence[Mapping[str, Any]],
    prompts: Iterable[Mapping[str, Any]],
    base: BaseModel,
    *,
    steps: int,
    guidance: float,
    batch: int,
    image_format: str,
    quality: int,
    samples_each: int,
    control_samples_each: int,
    run: Path,
    seed: int,
    code: str,
    device: str,
    eta: float = 0.0,
    solver: str = "ddim",
    job: str = "synthesize_part/whole",
) -> Iterator[tuple[str, pa.Table]]:
    """Yield key and rows of the table `synthesized` of each model, in the order of `models`, once all are generated.

    `models` are rows of the table of that name, `prompts` of theirs. `run` is the folder of the run, next to which the
    store holds the deltas and finished images; `job` is the name under which their keys are noted. `code` is the
    fingerprint of what `generate` reaches. A batch always has `batch` rows, filled with copies where requests run out.
    Raises InputError for a model whose files do not match its row or that was trained on another base model, and for
    prompts that do not fit.
    """
    by_set: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in prompts:
        by_set[row["exemplar_set"]].append(row)
    encoding = image_formats.encoding(image_format, quality)
    requests_by_key: dict[str, tuple[Mapping[str, Any], list[Request]]] = {}
    for model in models:
        _check_base(model, base)
        requests = model_requests(
            model,
            by_set[model["exemplar_set"]],
            samples_each=samples_each,
            control_samples_each=control_samples_each,
            seed=seed,
        )
        settings = [steps, guidance, eta, solver, encoding, code]
        key = hashing.content_key(
            "synthesized", model["checksum"], base.fingerprint, settings, [asdict(one) for one in requests]
        )
        requests_by_key[key] = (model, requests)

    def generate_rows(keys: list[str]) -> Iterator[list[dict[str, Any]]]:
        images = generate.generate_images(
            [requests_by_key[key] for key in keys],
            base,
            run,
            steps=steps,
            guidance=guidance,
            batch=batch,
            device=device,
            eta=eta,
            solver=solver,
        )
        for key in keys:
            _, requests = requests_by_key[key]
            yield [
                asdict(request)
                | {"image": {"bytes": generate.encode_image(image, image_format, quality), "path": None}}
                | {"image_format": encoding}
                for request, image in zip(requests, itertools.islice(images, len(requests)), strict=True)
            ]
        next(images, None)  # logs how long all of them took

    yield from make_missing.make_pieces(
        StoredResults(list(requests_by_key), run, job, layout.SYNTHESIZED),
        generate_rows,
        "synthesized",
        counted="images of %d of %d models",
        noun="sets of images",
    )


def _check_base(model: Mapping[str, Any], base: BaseModel) -> None:
    if model["base_model"] != base.fingerprint:
        raise InputError(
            f"model of {model['exemplar_set']!r}: trained on base model {model['base_model'][:12]}, but base_model.json"
            f" is {base.fingerprint[:12]}; run the rule customize_part again"
        )
