"""A smooth random image, and files of images."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image as PilImage


def image(height: int = 40, width: int = 48, seed: int = 0) -> np.ndarray:
    """Smooth colours, (height, width, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return np.asarray(PilImage.fromarray(coarse).resize((width, height), PilImage.Resampling.BICUBIC))


def encoded(image: PilImage.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The file of an image."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
