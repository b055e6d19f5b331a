"""The stage `prior`: images of the classes of exemplar sets, from the family that the config names.

The images of a class are a piece in the store, under a key of everything they depend on. A killed run, one with an
additional class and another run with the same settings make only what is missing (see `make_missing`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from attrib_core.common import families, hashing
from attrib_core.common.errors import InputError
from attrib_core.diffusion.customization.prior_protocol import PriorClass, PriorInputs, PriorSet, PriorSource
from attrib_core.storage.store import layout, make_missing
from attrib_core.storage.store.make_missing import StoredResults


def images(
    classes: Sequence[PriorClass],
    settings: Mapping[str, Any] | None,
    inputs: PriorInputs,
    *,
    run: Path,
    seed: int,
    code: str,
    device: str,
    job: str = "prior",
) -> Iterator[tuple[str, pa.Table]]:
    """Yield key and rows of the table `prior` of each class, in the order of `classes`, once all images are made.

    `settings` is the config section `prior`: family and options; None where the customizer uses no prior images, and
    then nothing is yielded. `run` is the folder of the run, next to which the store holds finished classes; `job` is
    the name under which their keys are noted. `code` is the fingerprint of what the family reaches. Raises InputError
    for what the family cannot use: too few images, one that cannot be read.
    """
    if settings is None:
        return
    family, options = families.split(settings)
    try:
        source: PriorSource = families.load(
            "priors", family, options, where="prior", device=device, seed=seed
        )
        planned = {_key(family, one, code): one for one in source.plan(classes, inputs)}

        def make_rows(keys: list[str]) -> Iterator[list[dict[str, Any]]]:
            images = source.encoded_images([planned[key] for key in keys], inputs)
            for key in keys:
                rows = planned[key].rows
                yield _with_bytes(rows, list(itertools.islice(images, len(rows))))
            next(images, None)  # logs how long all of them took

        yield from make_missing.make_pieces(
            StoredResults(list(planned), run, job, layout.PRIOR),
            make_rows,
            "prior",
            counted="prior images of %d of %d classes",
            noun="classes of images",
        )
    except InputError as error:
        raise error.under("prior") from None


def _key(family: str, one: PriorSet, code: str) -> str:
    return hashing.content_key("prior", family, one.kind, one.category, one.rows, one.content, code)


def _with_bytes(rows: Sequence[Mapping[str, Any]], images: Sequence[bytes]) -> list[dict[str, Any]]:
    return [
        {**row, "image": {"bytes": image, "path": row["image"]["path"]}}
        for row, image in zip(rows, images, strict=True)
    ]
