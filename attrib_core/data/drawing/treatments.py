"""Media in which an object can be drawn, as functions of layers and a random generator.

Each function returns (size, size, 3) float32 in [0, 1]; its docstring says what
the image looks like. The base model is trained on images in these media, while
the styles (`styles`) are held out from it, so that a style set teaches it
something new.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from attrib_core.data.drawing.layers import (
    Layers,
    blocks,
    blur,
    edges,
    luminance,
    noise,
    rgb,
    saturate,
    waves,
)

Treatment = Callable[[Layers, np.random.Generator], np.ndarray]


def mosaic(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Square tiles of one colour each with pale grout between them."""
    cell = 4 * layers.unit
    tiles = np.clip(blocks(layers.flat, cell) + 0.07 * noise(layers.size, rng, cell)[..., None], 0, 1)
    y, x = np.mgrid[: layers.size, : layers.size] % cell
    grout = (np.minimum(y, x) < layers.unit)[..., None]
    return np.where(grout, rgb(225, 220, 210) * 0.9, saturate(tiles, 1.15)).astype(np.float32)


def blueprint(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """White contours on blue paper with a fine square grid."""
    unit = layers.unit
    y, x = np.mgrid[: layers.size, : layers.size]
    shift_y, shift_x = rng.integers(0, 8, 2) * unit
    grid = ((y + shift_y) % (8 * unit) < unit) | ((x + shift_x) % (8 * unit) < unit)
    paper = np.where(grid[..., None], rgb(70, 110, 190), rgb(28, 66, 150))
    line = np.clip(edges(layers, 0.6 * unit) * 1.6, 0, 1)[..., None]
    body = paper + 0.10 * layers.alpha[..., None]
    return (body * (1 - line) + line * rgb(235, 242, 255)).astype(np.float32)


def charcoal(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Black and gray strokes, smeared along one diagonal, on cream paper."""
    unit = layers.unit
    tone = 1 - luminance(layers.over(np.ones_like(layers.background)))
    stroke = 0.5 + 0.5 * waves(layers.size, 4.0 * unit, 0.9) * (0.7 + 0.3 * noise(layers.size, rng, unit))
    dark = np.clip(0.75 * tone * stroke + 0.35 * layers.alpha * stroke, 0, 1)
    dark = np.clip(dark + 0.9 * edges(layers, 0.8 * unit), 0, 0.95)
    paper = rgb(242, 236, 222) + 0.03 * noise(layers.size, rng, unit)[..., None]
    return np.clip(paper * (1 - dark[..., None]) + dark[..., None] * 0.08, 0, 1).astype(np.float32)


def watercolor(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Pale washes that run over their contours and leave white paper at the rim."""
    unit = layers.unit
    wet = blur(layers.flat, 1.1 * unit)
    wet = saturate(0.25 + 0.75 * wet, 1.5)
    pigment = blur(noise(layers.size, rng, 5 * unit) * 0.5 + 0.5, 2.0 * unit)[..., None]
    wash = wet + (1 - wet) * (0.5 * pigment - 0.12)
    y, x = np.mgrid[-1 : 1 : layers.size * 1j, -1 : 1 : layers.size * 1j]
    ragged = 0.12 * blur(noise(layers.size, rng, 4 * unit) * 0.5 + 0.5, unit)
    rim = np.clip((np.maximum(abs(y), abs(x)) + ragged - 0.86) * 9, 0, 1)[..., None]
    return np.clip(wash * (1 - rim) + rim * 0.99, 0, 1).astype(np.float32)


def stained_glass(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Cells of saturated colour, irregular like glass, with black lead between."""
    size, unit = layers.size, layers.unit
    step = 9 * unit
    grid = np.mgrid[step // 2 : size : step, step // 2 : size : step].reshape(2, -1).T
    points = grid + rng.uniform(-0.4, 0.4, grid.shape) * step
    pixels = np.mgrid[:size, :size].reshape(2, -1).T[:, None, :]
    distance = np.linalg.norm(pixels - points[None], axis=2)
    order = np.argpartition(distance, 1, axis=1)[:, :2]
    near = np.take_along_axis(distance, order, axis=1)
    cell = order[np.arange(len(order)), near.argmin(axis=1)].reshape(size, size)
    lead = (abs(near[:, 0] - near[:, 1]) < 1.1 * unit).reshape(size, size)
    lead |= edges(layers, 0.8 * unit) > 0.75
    flat = saturate(layers.flat, 1.7)
    count = np.maximum(np.bincount(cell.ravel(), minlength=len(points)), 1)
    mean = np.stack(
        [np.bincount(cell.ravel(), flat[..., c].ravel(), len(points)) / count for c in range(3)], axis=1
    )
    glass = np.clip(0.5 * mean[cell] + 0.5 * flat + rng.uniform(-0.08, 0.08, (len(points), 1))[cell], 0, 1)
    return np.where(lead[..., None], 0.06, glass).astype(np.float32)


def neon(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Glowing coloured tubes along the contours, on a dark wall."""
    unit = layers.unit
    line = np.clip(edges(layers, 0.7 * unit) * 1.5, 0, 1)
    color = saturate(blur(layers.over(np.ones_like(layers.background) * rgb(255, 80, 200)), 2.5 * unit), 3.0)
    color = np.clip(color / (color.max(axis=2, keepdims=True) + 1e-3), 0, 1)
    glow = np.clip(blur(line, 2.5 * unit) * 1.2, 0, 1)[..., None]
    wall = rgb(18, 12, 34) + 0.02 * noise(layers.size, rng, 4 * unit)[..., None]
    lit = wall + glow * color * 0.9
    tube = 0.45 * color + 0.55
    return np.clip(lit * (1 - line[..., None]) + line[..., None] * tube, 0, 1).astype(np.float32)


def pixel_art(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Sixteen big pixels across, four levels a channel."""
    coarse = blocks(layers.flat, layers.size // 16)
    return (np.round(saturate(coarse, 1.25) * 4) / 4).astype(np.float32)


def comic(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Bright print with thick black contours and a screen of dots behind."""
    unit = layers.unit
    period = 6 * unit
    y, x = np.mgrid[: layers.size, : layers.size]
    offset = rng.integers(0, period, 2)
    away_y, away_x = (
        (line + shift) % period - period / 2 for line, shift in zip((y, x), offset, strict=True)
    )
    dot = np.hypot(away_y, away_x) < 0.30 * period
    tone = saturate(layers.background, 1.5)
    screen = np.where(dot[..., None], tone * 0.62, 0.35 + 0.65 * tone)
    body = np.round(saturate(layers.foreground, 1.6) * 3) / 3
    alpha = layers.alpha[..., None]
    rim = np.clip(edges(layers, 1.3 * unit) * 2.2 - 0.2, 0, 1)[..., None]
    return ((body * alpha + screen * (1 - alpha)) * (1 - rim)).astype(np.float32)


# name in a caption: (treatment, whether the background remains visible)
MEDIA: dict[str, tuple[Treatment, bool]] = {
    "mosaic": (mosaic, True),
    "blueprint": (blueprint, False),
    "charcoal drawing": (charcoal, False),
    "watercolor painting": (watercolor, True),
    "stained glass": (stained_glass, True),
    "neon sign": (neon, False),
    "pixel art": (pixel_art, True),
    "comic print": (comic, True),
}
