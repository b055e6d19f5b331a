"""The pixels themselves as features: small, mean-centred or not, no network at all.

A baseline that sees layout and colour contrast; uncentred, the colours themselves. Light: neither this module nor
what it returns imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
from PIL import Image
from pydantic import Field

BLANK = np.float32(1e-3)


class PixelEncoder:
    """Images as `dim` = size * size * 3 pixel values, row by row, channels last."""

    def __init__(self, size: int, centred: bool) -> None:
        self._size, self._centred = size, centred
        self.dim = size * size * 3
        self.identity: dict[str, Any] = {"family": "pixel", "size": size, "dim": self.dim}
        if not centred:
            self.identity["centred"] = False

    def encode(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """(height, width, 3) uint8 images of any sizes to (images, dim) float32.

        An image is averaged over the areas of a size x size grid (its sides need not be equal),
        divided by 255, and, if centred, the mean of each of its own three channels is taken off. So
        the colour of a flat background counts only by its contrast to the rest. An image with no
        structure has no direction after that; it becomes the same small number everywhere, a
        vector at right angles to every image that has structure. So does, uncentred, a black one.
        """
        rows = [self._row(image) for image in images]
        return np.stack(rows) if rows else np.empty((0, self.dim), dtype=np.float32)

    def _row(self, image: np.ndarray) -> np.ndarray:
        small = Image.fromarray(image).resize((self._size, self._size), Image.Resampling.BOX)
        values = np.asarray(small, dtype=np.float32) / np.float32(255)
        structure = np.ptp(values, axis=(0, 1)) if self._centred else values
        if not structure.any():
            return np.full(self.dim, BLANK)
        if not self._centred:
            return values.ravel()
        return (values - values.mean(axis=(0, 1), dtype=np.float64)).astype(np.float32).ravel()


def load(
    *,
    size: Annotated[int, Field(ge=2, le=256, description="side of the grid in cells")] = 16,
    centred: Annotated[
        bool, Field(description="take off the image's mean colour; a colour then counts by contrast only")
    ] = True,
) -> PixelEncoder:
    """Pixels on a size x size grid."""
    return PixelEncoder(size, centred)
