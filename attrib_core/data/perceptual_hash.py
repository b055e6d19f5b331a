"""Hash an image so that near duplicates have nearly equal hashes."""

from __future__ import annotations

import numpy as np
from PIL import Image as PilImage

HASH_WIDTH, HASH_HEIGHT = 9, 8


def difference_hash(image: np.ndarray) -> int:
    """64-bit difference hash of an image, (height, width, 3) uint8, as a signed integer.

    The image is made gray (Rec. 601 luma) and reduced to 9 x 8 means over equal rectangles,
    each rounded to a whole gray level, so that noise in even areas does not count. A bit is set
    where a mean is brighter than its left neighbour; bits run row by row, the first is the
    highest. The 64 bits are read as two's complement, since Parquet's int64 is signed. Images
    that look alike differ in few bits, whatever their size or compression. (Neal Krawetz,
    "Kind of Like That", 2013.)
    """
    gray = np.asarray(PilImage.fromarray(image).convert("L"), dtype=np.float64)
    height, width = gray.shape
    # All sums are whole numbers below 2**53, so they are exact in any order.
    sums = _overlaps(height, HASH_HEIGHT) @ gray @ _overlaps(width, HASH_WIDTH).T
    levels = np.floor((2 * sums + height * width) / (2 * height * width))
    bits = np.packbits(levels[:, 1:] > levels[:, :-1])
    return int.from_bytes(bits.tobytes(), "big", signed=True)


def _overlaps(pixels: int, cells: int) -> np.ndarray:
    """How much of each pixel lies in each of `cells` equal cells, in 1/cells pixel; (cells, pixels)."""
    pixel = np.arange(pixels) * cells
    cell = np.arange(cells)[:, None] * pixels
    inside = np.minimum(pixel + cells, cell + pixels) - np.maximum(pixel, cell)
    return np.maximum(inside, 0).astype(np.float64)
