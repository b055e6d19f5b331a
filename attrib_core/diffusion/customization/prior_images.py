"""The stage `prior`: images of the classes of exemplar sets, from the family that the config names.

The images of a class are a piece of work in the store, under a key of all that they depend on; a killed
run, one with a class more and another run of the same settings make only what is missing.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from attrib_core.common import families, hashing
from attrib_core.common.errors import InputError
from attrib_core.diffusion.customization.prior_protocol import Material, PriorClass, PriorSet, PriorSource
from attrib_core.storage import tables
from attrib_core.storage.store import claims, layout, pieces

LOGGER = logging.getLogger(__name__)
PRIOR = "prior"


def images(
    classes: Sequence[PriorClass],
    settings: Mapping[str, Any] | None,
    material: Material,
    *,
    run: Path,
    seed: int,
    code: str,
    device: str,
    job: str = "prior",
) -> Iterator[tuple[str, pa.Table]]:
    """Keys and tables of `prior`, one a class, in the order of the classes, once all are made.

    `settings` is the config section `prior`: family and options; None where the customizer takes
    no prior images, and then there are none. `run` is the folder of the run, beside which the store
    keeps finished classes, and `job` under what name it is noted which; `code` is the fingerprint of
    what the family reaches. Raises InputError for what the family finds wrong: too few images, one
    that cannot be read.
    """
    if settings is None:
        return
    family, options = families.split(settings)
    try:
        source: PriorSource = families.load(
            "priors", family, options, where="prior", device=device, seed=seed
        )
        planned = source.planned(classes, material)
        folder = layout.folder(run, PRIOR)
        wanted = [_key(family, one, code) for one in planned]
        layout.refer(run, job, PRIOR, wanted)
        sets = dict(zip(wanted, planned, strict=True))
        missing = [key for key in sets if not pieces.finished(folder, key)]
        if len(missing) < len(planned):
            LOGGER.info(
                "prior images of %d of %d classes are there already",
                len(planned) - len(missing),
                len(planned),
            )
        schema = tables.schema("prior")
        for mine in claims.turns(
            folder,
            [missing],
            lambda key: pieces.finished(folder, key) is not None,
            what="classes of images",
        ):
            made = source.encoded_images([sets[key] for key in mine], material)
            for key in mine:
                rows = sets[key].rows
                pieces.write(folder, key, _filled(rows, list(itertools.islice(made, len(rows)))), schema)
            next(made, None)  # it then says how long all took
        for key in wanted:
            yield key, tables.conform(pieces.read(folder, key), schema, str(folder / key))
    except InputError as error:
        raise error.under("prior") from None


def _key(family: str, one: PriorSet, code: str) -> str:
    return hashing.content_key("prior", family, one.kind, one.category, one.rows, one.content, code)


def _filled(rows: Sequence[Mapping[str, Any]], images: Sequence[bytes]) -> list[dict[str, Any]]:
    return [
        {**row, "image": {"bytes": image, "path": row["image"]["path"]}}
        for row, image in zip(rows, images, strict=True)
    ]
