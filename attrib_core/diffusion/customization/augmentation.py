"""The views of the published Custom Diffusion code: an exemplar smaller or larger than it is, and said so.

Two of three views are smaller: resized to between a third and the whole of the side and
pasted at a random place of an empty canvas. The others are 1.2 to 1.4 times as large, and
cut. The prompt of a view below 0.6 of the side begins with "a far away" or "very small",
that of a larger one with "zoomed in" or "close up". The loss leaves out the canvas, and the
outermost latent cells of the view, into which the canvas reaches.

Exemplars are cut to a square first, so that no view is distorted. The canvas is the gray
128, where the published one is 127.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

SMALLER_SHARE = 2 / 3
SMALLEST = 1 / 3
LARGER = (1.2, 1.4)
SMALL_BELOW = 0.6
SMALL_WORDS = ("a far away ", "very small ")
LARGE_WORDS = ("zoomed in ", "close up ")
FLIP_SHARE = 0.5
CANVAS = 128


@dataclass(frozen=True)
class Augmentation:
    """Which parts of it are on; the second and third mean something with the first alone."""

    random_resize: bool = False
    size_prompts: bool = False
    loss_mask: bool = False
    horizontal_flip: bool = False


@dataclass(frozen=True)
class View:
    """An image (side, side, 3) uint8, where the loss counts (cells, cells) bool, and how its prompt begins."""

    image: np.ndarray
    mask: np.ndarray
    words: str


def resized(image: np.ndarray, rng: np.random.Generator, cells: int) -> View:
    """A view of another size. `cells` is the side of a latent, by which the image's side is divided."""
    side = len(image)
    if rng.uniform() < SMALLER_SHARE:
        size = int(rng.integers(int(side * SMALLEST), side + 1))
    else:
        size = int(rng.integers(int(side * LARGER[0]), int(side * LARGER[1]) + 1))
    top, left = rng.integers(0, abs(side - size) + 1, 2)
    words = str(rng.choice(SMALL_WORDS if size < SMALL_BELOW * side else LARGE_WORDS))
    shown = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
    if size > side:
        cut = shown[top : top + side, left : left + side]
        return View(cut, np.ones((cells, cells), dtype=bool), words)
    canvas = np.full_like(image, CANVAS)
    canvas[top : top + size, left : left + size] = shown
    mask = inner_cells(int(top), size, side // cells, cells)[:, None] & inner_cells(
        int(left), size, side // cells, cells
    )
    return View(canvas, mask, words if size < SMALL_BELOW * side else "")


def inner_cells(start: int, size: int, factor: int, cells: int) -> np.ndarray:
    """Along one side, the latent cells within a view, the outermost left out, (cells,) bool.

    Where none is left, the cell in the middle of the view counts: a loss over nothing has no value.
    """
    first, last = start // factor + 1, (start + size) // factor - 1
    if last <= first:
        first = min((start + size // 2) // factor, cells - 1)
        last = first + 1
    places = np.arange(cells)
    return (places >= first) & (places < last)


def flipped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image, mirrored by a chance of one half."""
    return np.ascontiguousarray(image[:, ::-1]) if rng.uniform() < FLIP_SHARE else image
