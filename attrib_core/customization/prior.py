"""Pictures for prior preservation: what the base model itself draws for a class.

The published method took them from a LAION service that is gone. Any other
source of prior pictures is a writer of the same table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from attrib_core import keys
from attrib_core.diffusion import components, sampling
from attrib_core.diffusion.description import BaseModel
from attrib_core.jobs import progress
from attrib_core.pictures import png
from attrib_core.prompts import class_prompts

BATCH = 16


def plan(
    classes: Iterable[tuple[str, str]], lists: Mapping[str, str], count: int, seed: int
) -> list[dict[str, Any]]:
    """Rows of the table `prior` without pictures: `count` for each class (kind, category).

    `lists` names the list of prompts by kind of set. A class takes its prompts in
    an order by key, over and over.
    """
    rows = []
    for kind, category in classes:
        prompts = class_prompts(category, name=lists[kind])
        order = sorted(
            range(len(prompts)), key=lambda index: keys.digest("prior", seed, kind, category, index)
        )
        rows += [
            {
                "kind": kind,
                "category": category,
                "prior_index": number,
                "prompt": prompts[order[number % len(order)]],
                "seed": keys.seed("prior", seed, kind, category, number),
            }
            for number in range(count)
        ]
    return rows


@torch.no_grad()
def images(
    rows: Sequence[dict[str, Any]],
    base: BaseModel,
    *,
    steps: int,
    guidance: float,
    device: str,
    eta: float = 0.0,
    batch: int = BATCH,
) -> Iterator[list[dict[str, Any]]]:
    """The rows of `plan` with their pictures, batch by batch; a picture does not depend on its batch.

    A last batch that is not full is filled with copies of its last row.
    """
    if not rows:
        return
    loaded = components.load(base, device)
    nothing = components.without_prompt(loaded, batch)
    starts = range(0, len(rows), batch)
    for start in progress(starts, total=len(starts), what=f"batches of {batch} prior pictures"):
        members = rows[start : start + batch]
        filled = [*members, *[members[-1]] * (batch - len(members))]
        ids = components.tokenize(loaded, [row["prompt"] for row in filled])
        pictures = sampling.sample(
            loaded,
            components.encode_text(loaded, ids),
            nothing,
            sampling.initial_noise(loaded, [row["seed"] for row in filled]),
            steps=steps,
            guidance=guidance,
            eta=eta,
            seeds=[row["seed"] for row in filled],
        )
        yield [
            row | {"image": {"bytes": png.encode(picture), "path": None}}
            for row, picture in zip(members, pictures[: len(members)], strict=True)
        ]
