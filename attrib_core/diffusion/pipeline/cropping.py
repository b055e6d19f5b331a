"""Center crops to the square that a base model sees, and the micro-conditioning by which SDXL knows of them."""

from __future__ import annotations

import numpy as np
from PIL import Image


def center_crop(image: np.ndarray, side: int) -> np.ndarray:
    """Crop an image to its middle square and resize it; (height, width, 3) to (side, side, 3) uint8."""
    height, width, _ = image.shape
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    cropped = image[top : top + edge, left : left + edge]
    if edge == side:
        return cropped
    return np.asarray(Image.fromarray(cropped).resize((side, side), Image.Resampling.LANCZOS))


def micro_conditioning(height: int, width: int, side: int) -> tuple[int, ...]:
    """Return SDXL's `time_ids` for an image of this size after `center_crop`; 6 numbers, in pixels.

    The original height and width, the top and left crop coordinates after a resize to a shorter side of
    `side`, and the target height and width, both `side` (Podell et al., 2023).
    """
    scale = side / min(height, width)
    top, left = (round((edge * scale - side) / 2) for edge in (height, width))
    return height, width, top, left, side, side
