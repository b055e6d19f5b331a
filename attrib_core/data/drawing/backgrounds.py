"""Named backgrounds of the drawn images, each with its phrase in a caption.

A background is a function of a size and a random generator. Pixel values are
float32 in [0, 1], shape (size, size, 3).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Image = np.ndarray
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 69, 65),
    "orange": (240, 150, 60),
    "yellow": (248, 220, 96),
    "green": (112, 184, 104),
    "blue": (88, 146, 220),
    "purple": (150, 108, 190),
    "pink": (246, 176, 200),
    "brown": (150, 108, 78),
    "gray": (168, 172, 176),
    "white": (250, 250, 248),
}


def _plain(color: tuple[int, int, int]) -> Callable[[int, np.random.Generator], Image]:
    def draw(size: int, rng: np.random.Generator) -> Image:
        return np.broadcast_to(np.array(color, dtype=np.float32) / 255, (size, size, 3)).astype(np.float32)

    return draw


def _gradient(size: int, stops: list[tuple[float, tuple[int, int, int]]]) -> Image:
    """Draw a vertical colour gradient through (height, colour) stops, heights in [0, 1]."""
    heights = [height for height, _ in stops]
    colors = np.array([color for _, color in stops], dtype=np.float32) / 255
    rows = (np.arange(size) + 0.5) / size
    column = np.stack([np.interp(rows, heights, colors[:, c]) for c in range(3)], axis=1)
    return np.repeat(column[:, None, :], size, axis=1).astype(np.float32)


def _horizon(size: int, rng: np.random.Generator, low: float, high: float, waves: float) -> Image:
    """Return a (size, size) bool mask of the area below a wavy horizon at a height in [low, high]."""
    x = np.linspace(0, 2 * np.pi, size)
    line = rng.uniform(low, high) + waves * np.sin(x * rng.uniform(0.8, 1.6) + rng.uniform(0, 6))
    return (np.arange(size)[:, None] + 0.5) / size > line[None, :]


def _meadow(size: int, rng: np.random.Generator) -> Image:
    sky = _gradient(size, [(0, (120, 190, 240)), (0.7, (205, 232, 250))])
    grass = _gradient(size, [(0.5, (130, 200, 90)), (1, (70, 150, 60))])
    return np.where(_horizon(size, rng, 0.55, 0.65, 0.04)[..., None], grass, sky)


def _beach(size: int, rng: np.random.Generator) -> Image:
    sky = _gradient(size, [(0, (150, 210, 245)), (0.4, (215, 240, 250))])
    sea = _gradient(size, [(0.3, (40, 130, 190)), (0.7, (70, 170, 205))])
    sand = _gradient(size, [(0.6, (240, 220, 160)), (1, (225, 195, 130))])
    image = np.where(_horizon(size, rng, 0.36, 0.42, 0.0)[..., None], sea, sky)
    return np.where(_horizon(size, rng, 0.62, 0.70, 0.02)[..., None], sand, image)


def _night(size: int, rng: np.random.Generator) -> Image:
    sky = _gradient(size, [(0, (20, 24, 66)), (1, (62, 58, 120))])
    count = 26
    y, x = rng.integers(0, size, (2, count))
    sky[y, x] = np.array((1, 1, 0.85), dtype=np.float32)
    sky[y[: count // 3], np.minimum(x[: count // 3] + 1, size - 1)] = np.array((1, 1, 0.85), dtype=np.float32)
    return sky


def _sunset(size: int, rng: np.random.Generator) -> Image:
    return _gradient(
        size, [(0, (90, 60, 130)), (0.35, (230, 100, 100)), (0.7, (250, 180, 90)), (1, (255, 225, 140))]
    )


def _snow(size: int, rng: np.random.Generator) -> Image:
    sky = _gradient(size, [(0, (160, 190, 215)), (0.7, (205, 222, 235))])
    ground = _gradient(size, [(0.6, (250, 252, 255)), (1, (225, 235, 246))])
    image = np.where(_horizon(size, rng, 0.62, 0.72, 0.05)[..., None], ground, sky)
    y, x = rng.integers(0, size, (2, 40))
    image[y, x] = 1
    return image


def _bricks(size: int, rng: np.random.Generator) -> Image:
    height, width = size // 8, size // 4
    y, x = np.mgrid[:size, :size]
    row = y // height
    shifted = x + (row % 2) * (width // 2)
    mortar = (y % height < max(1, size // 64)) | (shifted % width < max(1, size // 64))
    tint = rng.uniform(-0.06, 0.06, (size // height + 2, size // width + 3))
    brick = np.array((0.69, 0.33, 0.25), dtype=np.float32) + tint[row, shifted // width][..., None]
    return np.where(mortar[..., None], np.array((0.83, 0.78, 0.72), dtype=np.float32), brick).astype(
        np.float32
    )


def _cloth(size: int, rng: np.random.Generator) -> Image:
    cell = size // 8
    y, x = np.mgrid[:size, :size] // cell
    tone = (y % 2 + x % 2).astype(np.float32)
    return (1 - tone[..., None] * np.array((0.08, 0.36, 0.36), dtype=np.float32)).astype(np.float32)


def _sea(size: int, rng: np.random.Generator) -> Image:
    water = _gradient(size, [(0, (120, 205, 225)), (1, (16, 70, 140))])
    y, x = np.mgrid[:size, :size] / size
    waves = np.sin(2 * np.pi * (y * 6 + 0.25 * np.sin(2 * np.pi * (x * 2 + rng.uniform()))))
    return np.clip(water + 0.07 * (waves > 0.75)[..., None], 0, 1).astype(np.float32)


# name: (phrase in a caption, function that draws it)
BACKGROUNDS: dict[str, tuple[str, Callable[[int, np.random.Generator], Image]]] = {
    **{name: (f"on a {name} background", _plain(color)) for name, color in COLORS.items()},
    "orange": ("on an orange background", _plain(COLORS["orange"])),
    "meadow": ("in a green meadow", _meadow),
    "beach": ("on a sandy beach", _beach),
    "night": ("under a night sky", _night),
    "sunset": ("in front of a sunset", _sunset),
    "snow": ("in the snow", _snow),
    "bricks": ("in front of a brick wall", _bricks),
    "cloth": ("on a checkered tablecloth", _cloth),
    "sea": ("under the sea", _sea),
}


def phrase(background: str) -> str:
    """Return the phrase for a background in a caption, such as "on a red background"."""
    return BACKGROUNDS[background][0]


def draw(background: str, size: int, rng: np.random.Generator) -> Image:
    """Draw a background, (size, size, 3) float32 in [0, 1]."""
    return BACKGROUNDS[background][1](size, rng).astype(np.float32)
