"""Perceptual hash of an image: near duplicates differ in few bits."""

from __future__ import annotations

import numpy as np
from PIL import Image as PilImage

ROWS, COLUMNS = 8, 9  # of the grid whose neighbours are compared: 8 x 8 comparisons are 64 bits


def difference_hash(image: np.ndarray) -> int:
    """Compute the 64-bit difference hash (dHash) of an image, (height, width, 3) uint8.

    The image is converted to gray (Rec. 601 luma) and reduced to 8 rows of 9 means over equal
    rectangles. Each mean is rounded to a whole gray level, so that noise in uniform areas sets no
    bits. A bit is set where a mean is brighter than its left neighbour; bits run row by row, the
    first is the highest. The result is signed (two's complement), as Parquet's int64 is. Similar
    images differ in few bits, whatever their size or compression.

    Source: Neal Krawetz, "Kind of Like That", 2013.
    """
    gray = np.asarray(PilImage.fromarray(image).convert("L"), dtype=np.float64)
    height, width = gray.shape
    # Weights are integers and all sums are below 2**53, so they are exact in any order.
    sums = _overlap_weights(height, ROWS) @ gray @ _overlap_weights(width, COLUMNS).T
    levels = np.floor((2 * sums + height * width) / (2 * height * width))
    bits = np.packbits(levels[:, 1:] > levels[:, :-1])
    return int.from_bytes(bits.tobytes(), "big", signed=True)


def _overlap_weights(pixels: int, cells: int) -> np.ndarray:
    """Length of each pixel inside each of `cells` equal cells of a line, in units of 1/cells pixel.

    Returns (cells, pixels) float64 whole numbers; each row sums to `pixels`.
    """
    pixel_start = np.arange(pixels) * cells
    cell_start = np.arange(cells)[:, None] * pixels
    overlap = np.minimum(pixel_start + cells, cell_start + pixels) - np.maximum(pixel_start, cell_start)
    return np.maximum(overlap, 0).astype(np.float64)
