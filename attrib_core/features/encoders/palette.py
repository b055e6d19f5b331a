"""A colour histogram with two moments of each channel, regardless of position: a classical baseline for style.

Neither this module nor the encoder imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
from pydantic import Field

LEVELS = 256
CHANNELS = 3


class PaletteEncoder:
    """An encoder with `dim` = bins ** 3 square roots of histogram shares and 6 weighted moments."""

    def __init__(self, bins: int, moments_weight: float) -> None:
        self._bins, self._moments_weight = bins, moments_weight
        self.dim = bins**CHANNELS + 2 * CHANNELS
        self.identity: dict[str, Any] = {
            "family": "palette",
            "bins": bins,
            "moments_weight": moments_weight,
            "dim": self.dim,
        }

    def encode(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Encode (height, width, 3) uint8 images of any sizes as (images, dim) float32.

        First the square root of the share of pixels in each cell of the RGB cube, red slowest; the inner product of
        two such vectors is the Bhattacharyya coefficient, so rare colours count. Then mean and standard deviation of
        red, green and blue in [0, 1], times `moments_weight`.
        """
        features = [self._encode_one(image) for image in images]
        return np.stack(features) if features else np.empty((0, self.dim), dtype=np.float32)

    def _encode_one(self, image: np.ndarray) -> np.ndarray:
        pixels = image.reshape(-1, CHANNELS)
        bins = pixels.astype(np.int64) * self._bins // LEVELS
        cells = (bins[:, 0] * self._bins + bins[:, 1]) * self._bins + bins[:, 2]
        shares = np.bincount(cells, minlength=self._bins**CHANNELS) / len(pixels)
        values = pixels / (LEVELS - 1)
        moments = np.concatenate([values.mean(axis=0), values.std(axis=0)]) * self._moments_weight
        return np.concatenate([np.sqrt(shares), moments]).astype(np.float32)


def load(
    *,
    bins: Annotated[int, Field(ge=2, le=32, description="bins a channel; the histogram has bins^3")] = 6,
    moments_weight: Annotated[
        float, Field(ge=0, description="factor of the channels' means and standard deviations")
    ] = 1.0,
) -> PaletteEncoder:
    """Return an encoder of colour histograms, with mean and standard deviation of each channel."""
    return PaletteEncoder(bins, moments_weight)
