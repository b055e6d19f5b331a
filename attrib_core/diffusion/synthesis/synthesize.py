"""The stage `synthesize`: the images of a part's models, in batches that mix models.

Images of one set are a piece of work in the store, under a key of all that they depend on;
a part makes only those that are missing, and none that a job of another run makes meanwhile.
"""

from __future__ import annotations

import itertools
import logging
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
from attrib_core.diffusion.synthesis.requests import of_model
from attrib_core.storage import tables
from attrib_core.storage.store import claims, layout, pieces

LOGGER = logging.getLogger(__name__)
SYNTHESIZED = "synthesized"


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
    """Keys and tables of `synthesized`, one a model, in the order of the rows of `models`, once all are made.

    `run` is the folder of the run, beside which the store has the deltas and keeps
    finished sets, and `job` is under what name it is noted which; `code` is the
    fingerprint of what `drawing` reaches. A batch always
    has `batch` rows, filled with copies where requests run out. Raises InputError
    for a model whose files are not those of its row, or that was made of another
    base model, and for prompts that do not fit.
    """
    by_set: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in prompts:
        by_set[row["exemplar_set"]].append(row)
    wanted = {}
    encoding = image_formats.encoding(image_format, quality)
    for model in models:
        _check_base(model, base)
        asked = of_model(
            model,
            by_set[model["exemplar_set"]],
            samples_each=samples_each,
            control_samples_each=control_samples_each,
            seed=seed,
        )
        settings = [steps, guidance, eta, solver, encoding, code]
        key = hashing.content_key(
            "synthesized", model["checksum"], base.fingerprint, settings, [asdict(one) for one in asked]
        )
        wanted[key] = (model, asked)
    folder = layout.folder(run, SYNTHESIZED)
    layout.refer(run, job, SYNTHESIZED, wanted)
    lacking = [key for key in wanted if not pieces.finished(folder, key)]
    if len(lacking) < len(wanted):
        LOGGER.info("images of %d of %d models are there already", len(wanted) - len(lacking), len(wanted))
    schema = tables.schema("synthesized")
    for mine in claims.turns(
        folder, [lacking], lambda key: pieces.finished(folder, key) is not None, what="sets of images"
    ):
        made = generate.drawn(
            [wanted[key] for key in mine],
            base,
            run,
            steps=steps,
            guidance=guidance,
            batch=batch,
            device=device,
            eta=eta,
            solver=solver,
        )
        for key in mine:
            asked = wanted[key][1]
            rows = [
                asdict(request)
                | {"image": {"bytes": generate.encoded(image, image_format, quality), "path": None}}
                | {"image_format": encoding}
                for request, image in zip(asked, itertools.islice(made, len(asked)), strict=True)
            ]
            pieces.write(folder, key, rows, schema)
        next(made, None)  # it then says how long all took
    for key in wanted:
        yield key, tables.conform(pieces.read(folder, key), schema, str(folder / key))


def _check_base(model: Mapping[str, Any], base: BaseModel) -> None:
    if model["base_model"] != base.fingerprint:
        raise InputError(
            f"model of {model['exemplar_set']!r}: made of base model {model['base_model'][:12]}, but base_model.json"
            f" is {base.fingerprint[:12]}; run the rule customize_part again"
        )
