"""Choose the objects that are held out from the training of the bundled base model.

They are a seeded share of each category. The base model's recipe leaves them out in
all media, the demo draws its exemplars from them, and the source `openmoji` draws
its styles with the other objects.
"""

from __future__ import annotations

import hashlib

from attrib_core.data.drawing import render
from attrib_core.data.drawing.render import DrawnObject

HELD_OUT_SEED, HELD_OUT_FRACTION = 2306, 0.1
"""`seed` and `held_out_fraction` of config/base.yaml, with which the bundled base model was trained."""


def order(seed: int, drawn: DrawnObject) -> str:
    """Return a sort key of a seeded order that does not depend on other objects."""
    return hashlib.sha256(f"{seed}/{drawn.codepoint}".encode()).hexdigest()


def held_out_objects(
    seed: int = HELD_OUT_SEED, fraction: float = HELD_OUT_FRACTION
) -> tuple[DrawnObject, ...]:
    """Return the held-out objects: the share `fraction` of each category, at least two."""
    held: list[DrawnObject] = []
    for category in sorted({drawn.category for drawn in render.objects()}):
        members = sorted(
            (drawn for drawn in render.objects() if drawn.category == category),
            key=lambda drawn: order(seed, drawn),
        )
        held += members[: max(2, round(fraction * len(members)))]
    return tuple(held)
