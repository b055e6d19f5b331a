"""Foreground, mask and background of an image, and image operations that treatments share.

Arrays are float32 in [0, 1]; an image is (size, size, 3), a mask (size, size).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image as PilImage
from PIL import ImageFilter

LUMA = np.array((0.299, 0.587, 0.114), dtype=np.float32)


@dataclass(frozen=True)
class Layers:
    """An object, its mask and its background."""

    foreground: np.ndarray
    alpha: np.ndarray
    background: np.ndarray

    @property
    def size(self) -> int:
        """Width and height in pixels."""
        return self.alpha.shape[0]

    @property
    def unit(self) -> int:
        """1/64 of the width in pixels, at least 1: lengths in treatments are multiples of it."""
        return max(1, self.size // 64)

    def over(self, background: np.ndarray) -> np.ndarray:
        """Composite the object over another background."""
        alpha = self.alpha[..., None]
        return (self.foreground * alpha + background * (1 - alpha)).astype(np.float32)

    @property
    def flat(self) -> np.ndarray:
        """The object composited over its own background."""
        return self.over(self.background)


def rgb(*color: int) -> np.ndarray:
    """Convert an 8-bit colour to (3,) float32 in [0, 1]."""
    return np.array(color, dtype=np.float32) / 255


def blur(array: np.ndarray, radius: float) -> np.ndarray:
    """Blur an image or a mask with a Gaussian; radius in pixels."""
    image = PilImage.fromarray((np.clip(array, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255


def luminance(image: np.ndarray) -> np.ndarray:
    """Compute the Rec. 601 luma, (size, size)."""
    return image @ LUMA


def edges(layers: Layers, radius: float = 1.0) -> np.ndarray:
    """Compute the contours of the object in [0, 1] from gradients of its luma and its mask."""
    gray = luminance(layers.over(np.ones_like(layers.background)))
    strength = np.zeros_like(gray)
    for channel in (blur(gray, radius), blur(layers.alpha, radius)):
        dy, dx = np.gradient(channel)
        strength = np.maximum(strength, np.hypot(dx, dy))
    return np.clip(strength * 6, 0, 1)


def noise(size: int, rng: np.random.Generator, grain: int = 1) -> np.ndarray:
    """Draw uniform noise in [-1, 1], (size, size), in cells of `grain` pixels."""
    cells = rng.uniform(-1, 1, (-(-size // grain),) * 2).astype(np.float32)
    return np.kron(cells, np.ones((grain, grain), dtype=np.float32))[:size, :size]


def blocks(array: np.ndarray, cell: int) -> np.ndarray:
    """Average over square cells and repeat to full size; `cell` must divide the size."""
    size = array.shape[0]
    if size % cell:
        raise ValueError(f"cell {cell} does not divide the image size {size}")
    shape = (size // cell, cell, size // cell, cell, *array.shape[2:])
    means = array.reshape(shape).mean(axis=(1, 3))
    return means.repeat(cell, axis=0).repeat(cell, axis=1).astype(np.float32)


def ramp(values: np.ndarray, stops: list[tuple[float, tuple[int, int, int]]]) -> np.ndarray:
    """Map values in [0, 1] through a colour ramp of (position, 8-bit colour) stops."""
    positions = [position for position, _ in stops]
    colors = np.array([color for _, color in stops], dtype=np.float32) / 255
    return np.stack([np.interp(values, positions, colors[:, c]) for c in range(3)], axis=-1).astype(
        np.float32
    )


def saturate(image: np.ndarray, amount: float) -> np.ndarray:
    """Scale the distance of each pixel from its own gray by `amount`."""
    gray = luminance(image)[..., None]
    return np.clip(gray + (image - gray) * amount, 0, 1).astype(np.float32)


def waves(size: int, period: float, angle: float, phase: float = 0.0) -> np.ndarray:
    """Draw sine stripes in [-1, 1], (size, size); period in pixels, angle in radians."""
    y, x = np.mgrid[:size, :size]
    return np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + phase).astype(np.float32)
