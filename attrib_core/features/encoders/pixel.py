"""The pixels of a downsampled image as features, with or without the mean colour subtracted.

A baseline that captures layout and colour contrast; uncentred, the colours themselves. Neither this module nor the
encoder imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
from PIL import Image
from pydantic import Field

BLANK = np.float32(1e-3)
"""All features of an image that would otherwise be a zero vector."""


class PixelEncoder:
    """An encoder with `dim` = size * size * 3 pixel values, row by row, channels last."""

    def __init__(self, size: int, centred: bool) -> None:
        self._size, self._centred = size, centred
        self.dim = size * size * 3
        self.identity: dict[str, Any] = {"family": "pixel", "size": size, "dim": self.dim}
        if not centred:
            self.identity["centred"] = False

    def encode(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Encode (height, width, 3) uint8 images of any sizes as (images, dim) float32.

        An image is averaged over the cells of a size x size grid (its sides need not be equal) and divided by 255; if
        centred, the mean of each channel is subtracted, so that the colour of a flat background counts only by its
        contrast to the rest. An image that is zero after that (one colour throughout, or uncentred a black one)
        becomes a constant vector, orthogonal to every centred image with structure.
        """
        features = [self._encode_one(image) for image in images]
        return np.stack(features) if features else np.empty((0, self.dim), dtype=np.float32)

    def _encode_one(self, image: np.ndarray) -> np.ndarray:
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
        bool, Field(description="subtract the image's mean colour; a colour then counts by contrast only")
    ] = True,
) -> PixelEncoder:
    """Return an encoder of pixels on a size x size grid."""
    return PixelEncoder(size, centred)
