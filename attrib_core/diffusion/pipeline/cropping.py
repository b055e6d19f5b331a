"""How an image of any shape becomes the square that a base model sees, and what SDXL is told of that."""

from __future__ import annotations

import numpy as np
from PIL import Image


def center_crop(image: np.ndarray, side: int) -> np.ndarray:
    """The middle square of an image, resized; (height, width, 3) to (side, side, 3) uint8."""
    height, width, _ = image.shape
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    cut = image[top : top + edge, left : left + edge]
    if edge == side:
        return cut
    return np.asarray(Image.fromarray(cut).resize((side, side), Image.Resampling.LANCZOS))


def micro_conditioning(height: int, width: int, side: int) -> tuple[int, ...]:
    """What SDXL is told of the origin of an image that `square` made.

    Its height and width before, the rows and columns cut off above and to the left after it was
    resized to a shorter side of `side`, and the side twice; all in pixels (Podell et al., 2023).
    """
    scale = side / min(height, width)
    top, left = (round((edge * scale - side) / 2) for edge in (height, width))
    return height, width, top, left, side, side
