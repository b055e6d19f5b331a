"""The corpus of the bundled base model: images and captions, without the held-out objects.

An image of the corpus is identified by object, treatment, background and a number; its pixels depend only on these
and the seed. Captions are drawn anew at each step: in full, without the background, with the coarse category in place
of the object's name, or with the words "in the style of", so that the model knows every phrase of the demo's prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from attrib_core.data.drawing import backgrounds, render
from attrib_core.data.drawing.held_out import held_out_objects, order
from attrib_core.data.drawing.render import DrawnObject
from attrib_core.data.drawing.treatments import MEDIA


@dataclass(frozen=True)
class Item:
    """An image of the corpus, before it is drawn."""

    drawn: DrawnObject
    treatment: str | None
    background: str
    number: int


def items(seed: int, held_out_fraction: float, plain_each: int, media_each: int) -> Iterator[Item]:
    """Yield every image of the corpus, object by object.

    An object appears `plain_each` times on each background without treatment, and `media_each` times in each medium,
    on random backgrounds.
    """
    held = {drawn.codepoint for drawn in held_out_objects(seed, held_out_fraction)}
    names = list(backgrounds.BACKGROUNDS)
    for drawn in render.objects():
        if drawn.codepoint in held:
            continue
        rng = np.random.default_rng([seed, int(order(seed, drawn)[:12], 16)])
        for number in range(plain_each):
            for background in names:
                yield Item(drawn, None, background, number)
        for treatment in MEDIA:
            for number in range(media_each):
                yield Item(drawn, treatment, names[rng.integers(len(names))], number)


def pixels(item: Item, seed: int, size: int) -> np.ndarray:
    """Draw the image of an item, (size, size, 3) uint8."""
    name = f"{seed}/{item.drawn.codepoint}/{item.treatment}/{item.background}/{item.number}"
    rng = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:16], 16))
    return render.image(item.drawn.codepoint, item.background, size, rng, item.treatment)


def draw_caption(item: Item, rng: np.random.Generator) -> str:
    """Draw one of the captions that are true of an item."""
    noun = item.drawn.category if rng.uniform() < 0.12 else item.drawn.name
    if item.treatment is not None and rng.uniform() < 0.3:
        return f"a picture of {render.with_article(noun)} in the style of {item.treatment} art"
    text = render.caption(noun, item.background, item.treatment)
    variant = rng.uniform()
    if item.treatment is None and variant < 0.15:
        return f"a picture of {text}"
    if variant > 0.9:
        return text.removesuffix(f" {backgrounds.phrase(item.background)}")
    return text
