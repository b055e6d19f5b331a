"""The augmentation of the published Custom Diffusion code: exemplars resized, with prompts that mention the size.

Two of three views are smaller: resized to between a third and all of the side, and pasted at a random position of a
gray canvas. The others are 1.2 to 1.4 times as large, and cropped. The prompt of a view below 0.6 of the side begins
with "a far away" or "very small", that of a larger one with "zoomed in" or "close up". The loss mask excludes the
canvas, and the outermost latent cells of the view, into which the canvas reaches.

Exemplars are cropped to a square first, so that no view is distorted. The canvas is the gray 128; the published one
is 127.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

SMALLER_SHARE = 2 / 3
SMALLEST = 1 / 3
LARGER = (1.2, 1.4)
SMALL_BELOW = 0.6
SMALL_PREFIXES = ("a far away ", "very small ")
LARGE_PREFIXES = ("zoomed in ", "close up ")
FLIP_SHARE = 0.5
CANVAS = 128


@dataclass(frozen=True)
class View:
    """A view: image (side, side, 3) uint8, loss mask (cells, cells) bool, and what its prompt begins with."""

    image: np.ndarray
    mask: np.ndarray
    prompt_prefix: str


def resized(image: np.ndarray, rng: np.random.Generator, cells: int) -> View:
    """Make a view of random size. `cells` is the side of a latent, a divisor of the image's side."""
    side = len(image)
    if rng.uniform() < SMALLER_SHARE:
        size = int(rng.integers(int(side * SMALLEST), side + 1))
    else:
        size = int(rng.integers(int(side * LARGER[0]), int(side * LARGER[1]) + 1))
    top, left = rng.integers(0, abs(side - size) + 1, 2)
    prefix = str(rng.choice(SMALL_PREFIXES if size < SMALL_BELOW * side else LARGE_PREFIXES))
    scaled = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
    if size > side:
        cropped = scaled[top : top + side, left : left + side]
        return View(cropped, np.ones((cells, cells), dtype=bool), prefix)
    canvas = np.full_like(image, CANVAS)
    canvas[top : top + size, left : left + size] = scaled
    mask = inner_cells(int(top), size, side // cells, cells)[:, None] & inner_cells(
        int(left), size, side // cells, cells
    )
    return View(canvas, mask, prefix if size < SMALL_BELOW * side else "")


def inner_cells(start: int, size: int, factor: int, cells: int) -> np.ndarray:
    """Mark the latent cells inside a view along one side, without the outermost ones, (cells,) bool.

    Where none is left, the middle cell of the view is marked: a loss over no cells has no value.
    """
    first, last = start // factor + 1, (start + size) // factor - 1
    if last <= first:
        first = min((start + size // 2) // factor, cells - 1)
        last = first + 1
    positions = np.arange(cells)
    return (positions >= first) & (positions < last)


def flipped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror an image with probability one half."""
    return np.ascontiguousarray(image[:, ::-1]) if rng.uniform() < FLIP_SHARE else image
