"""Which objects the bundled base model never sees, in no medium.

A seeded share of each category: the recipe leaves them out, the demo draws its
exemplars from them, and the source `openmoji` keeps its styles to the others.
"""

from __future__ import annotations

import hashlib

from attrib_core.data.drawing import render
from attrib_core.data.drawing.render import DrawnObject

HELD_OUT_SEED, HELD_OUT_FRACTION = 2306, 0.1
"""What the bundled base model was made with: `seed` and `held_out_fraction` of config/base.yaml."""


def order(seed: int, drawn: DrawnObject) -> str:
    """A key by which objects are put in a seeded order that no other object changes."""
    return hashlib.sha256(f"{seed}/{drawn.codepoint}".encode()).hexdigest()


def held_out_objects(
    seed: int = HELD_OUT_SEED, fraction: float = HELD_OUT_FRACTION
) -> tuple[DrawnObject, ...]:
    """The objects held out: the share `fraction` of each category, two at least."""
    held: list[DrawnObject] = []
    for category in sorted({drawn.category for drawn in render.objects()}):
        members = sorted(
            (drawn for drawn in render.objects() if drawn.category == category),
            key=lambda drawn: order(seed, drawn),
        )
        held += members[: max(2, round(fraction * len(members)))]
    return tuple(held)
