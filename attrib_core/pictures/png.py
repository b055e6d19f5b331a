"""Pictures as PNG bytes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as PilImage


def encode(picture: np.ndarray) -> bytes:
    """A picture, (height, width, 3) uint8, as PNG: the same bytes for the same pixels and library."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"expected (height, width, 3) uint8, got {picture.shape} {picture.dtype}")
    stream = io.BytesIO()
    PilImage.fromarray(picture).save(stream, "PNG", compress_level=6)
    return stream.getvalue()
