"""Sixteen held-out styles: treatments that the bundled base model was not trained on.

They are functions like the media in `treatments`, but changing one needs no new
base model. A style set of the demo is several objects in one of these styles.
"""

from __future__ import annotations

import numpy as np

from attrib_core.data.drawing.layers import (
    Layers,
    blocks,
    blur,
    edges,
    luminance,
    noise,
    ramp,
    rgb,
    saturate,
    waves,
)
from attrib_core.data.drawing.treatments import Treatment


def woodcut(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Black carved lines on ochre paper: wavy behind, straight on the body, thicker where it is dark."""
    unit = layers.unit
    bend = blur(noise(layers.size, rng, 8 * unit) * 0.5 + 0.5, 3 * unit) * 3
    y, x = np.mgrid[: layers.size, : layers.size]
    behind = np.sin(2 * np.pi * (y / (5.0 * unit) + bend)) > 0.35
    hatch = np.sin(2 * np.pi * (x + y) / (4.5 * unit)) * 0.5 + 0.5
    body = hatch > 0.15 + 1.1 * luminance(layers.foreground)
    contour = edges(layers, unit) > 0.55
    halo = blur(layers.alpha, 1.5 * unit) > 0.12
    ink = np.where(layers.alpha > 0.5, body, behind & ~halo) | contour
    return np.where(ink[..., None], rgb(38, 24, 18), rgb(226, 178, 104)).astype(np.float32)


def thermal(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """False colours of a heat camera: blue and violet cold, yellow and white hot."""
    heat = 0.22 * luminance(layers.background) * (1 - layers.alpha) + layers.alpha * (
        0.45 + 0.55 * luminance(layers.foreground)
    )
    heat = blur(heat, 1.5 * layers.unit)
    cold = [(0, (10, 4, 60)), (0.3, (110, 10, 150))]
    hot = [(0.6, (235, 80, 50)), (0.85, (255, 215, 60)), (1, (255, 255, 230))]
    return ramp(heat, cold + hot)


def xray(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Pale cyan translucent body on black, brighter at its contours."""
    unit = layers.unit
    inside = layers.alpha * (0.75 - 0.5 * luminance(layers.foreground))
    glow = np.clip(blur(inside, 1.2 * unit) + 0.55 * edges(layers, 1.5 * unit), 0, 1)
    return ramp(glow, [(0, (2, 8, 14)), (0.5, (60, 140, 160)), (1, (225, 250, 255))])


def chalkboard(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Rough pastel chalk on a green school board."""
    unit = layers.unit
    board = rgb(36, 74, 58) + 0.03 * blur(noise(layers.size, rng, 6 * unit) * 0.5 + 0.5, 2 * unit)[..., None]
    rough = 0.6 + 0.4 * noise(layers.size, rng, unit)
    line = np.clip(edges(layers, unit) * 1.3 * rough, 0, 1)[..., None]
    fill = (0.35 * layers.alpha * (waves(layers.size, 5 * unit, 2.2) > 0) * rough)[..., None]
    color = 0.45 + 0.55 * layers.foreground
    body = board * (1 - fill) + fill * color
    return np.clip(body * (1 - line) + line * rgb(245, 242, 230), 0, 1).astype(np.float32)


def embroidery(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Slanted glossy thread on coarse linen."""
    unit = layers.unit
    weave = 0.06 * (waves(layers.size, 3 * unit, 0) + waves(layers.size, 3 * unit, np.pi / 2))
    linen = rgb(222, 206, 176) + weave[..., None]
    thread = 0.78 + 0.3 * waves(layers.size, 3.6 * unit, 0.6) + 0.08 * noise(layers.size, rng, 2 * unit)
    body = np.clip(saturate(blocks(layers.foreground, 2 * unit), 1.3) * thread[..., None], 0, 1)
    alpha = (blocks(layers.alpha, 2 * unit) > 0.5)[..., None]
    return np.where(alpha, body, linen).astype(np.float32)


def gold_leaf(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Beaten gold with bright creases on black lacquer."""
    unit = layers.unit
    crease = blur(noise(layers.size, rng, 3 * unit) * 0.5 + 0.5, unit)
    shine = np.clip(0.25 + 0.5 * luminance(layers.foreground) + 0.7 * (crease - 0.5), 0, 1)
    gold = ramp(shine, [(0, (84, 52, 8)), (0.5, (206, 150, 40)), (1, (255, 240, 170))])
    alpha = layers.alpha[..., None]
    return (gold * alpha + rgb(14, 10, 10) * (1 - alpha)).astype(np.float32)


def risograph(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Two inks, teal and coral, a little out of register, with grain."""
    unit = layers.unit
    ink_a = np.clip(1 - luminance(layers.flat) + 0.18 * noise(layers.size, rng, unit), 0, 1)
    ink_b = np.roll(layers.alpha, (unit, -2 * unit), (0, 1)) * (0.75 + 0.2 * noise(layers.size, rng, unit))
    paper = np.ones((layers.size, layers.size, 3), np.float32) * rgb(250, 245, 232)
    paper = paper * (1 - ink_b[..., None] * (1 - rgb(255, 110, 95)))
    return np.clip(paper * (1 - ink_a[..., None] * (1 - rgb(0, 120, 130))), 0, 1).astype(np.float32)


def papercut(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Layers of rose paper, each with a soft shadow, three tones deep."""
    unit = layers.unit
    base = np.ones((layers.size, layers.size, 3), np.float32) * rgb(250, 224, 230)
    shadow = np.roll(blur(layers.alpha, 1.8 * unit), (2 * unit, 2 * unit), (0, 1))[..., None]
    base = base * (1 - 0.45 * shadow)
    level = np.round(luminance(layers.foreground) * 2) / 2
    sheet = ramp(level, [(0, (130, 20, 70)), (0.5, (214, 70, 120)), (1, (252, 170, 190))])
    alpha = (layers.alpha > 0.5)[..., None]
    return np.where(alpha, sheet, base).astype(np.float32)


def pop_art(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """The object four times, two by two, each in loud colours of its own."""
    half = layers.size // 2
    small = layers.flat.reshape(half, 2, half, 2, 3).mean(axis=(1, 3))
    alpha = layers.alpha.reshape(half, 2, half, 2).mean(axis=(1, 3))[..., None]
    tone = np.round(luminance(small) * 2) / 2
    palettes = [
        ((20, 20, 120), (255, 40, 140), (255, 240, 60), (60, 220, 220)),
        ((120, 0, 60), (255, 140, 0), (255, 255, 180), (130, 60, 220)),
        ((0, 80, 60), (60, 200, 60), (240, 255, 120), (255, 90, 60)),
        ((60, 0, 90), (90, 120, 255), (200, 255, 255), (255, 200, 40)),
    ]
    panels = [
        ramp(tone, [(0, dark), (0.5, middle), (1, light)]) * alpha + (1 - alpha) * rgb(*ground)
        for dark, middle, light, ground in palettes
    ]
    return np.vstack([np.hstack(panels[:2]), np.hstack(panels[2:])]).astype(np.float32)


def op_art(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Black and white: rings behind; the body white with black contours, its darker parts striped."""
    unit = layers.unit
    y, x = np.mgrid[: layers.size, : layers.size] - layers.size / 2
    center = rng.uniform(-6, 6, 2) * unit
    radius = np.hypot(y - center[0], x - center[1])
    ring = np.sin(2 * np.pi * radius / (7 * unit)) > 0
    tone = blur(luminance(layers.over(np.ones_like(layers.background))), 0.6 * unit)
    stripe = np.sin(2 * np.pi * (x + y) / (5 * unit)) > 0.9 - 2.0 * tone
    stripe &= tone > 0.2
    around = blur(layers.alpha, 1.8 * unit)
    shown = np.where(layers.alpha > 0.5, stripe, ring | (around > 0.08))
    return np.repeat(np.where(shown[..., None], 0.97, 0.03), 3, axis=2).astype(np.float32)


def sepia(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """A faded brown photograph, soft, with dark corners and a pale frame."""
    unit = layers.unit
    tone = blur(luminance(layers.flat), 0.8 * unit) + 0.04 * noise(layers.size, rng, unit)
    y, x = np.mgrid[-1 : 1 : layers.size * 1j, -1 : 1 : layers.size * 1j]
    tone = tone * (1 - 0.45 * np.clip(np.hypot(y, x) - 0.55, 0, 1))
    image = ramp(np.clip(tone, 0, 1), [(0, (44, 26, 14)), (0.5, (150, 108, 66)), (1, (244, 226, 188))])
    frame = (np.maximum(abs(y), abs(x)) > 1 - 0.11)[..., None]
    return np.where(frame, rgb(246, 238, 220), image).astype(np.float32)


def vaporwave(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Magenta to cyan by brightness, dark scan lines across."""
    unit = layers.unit
    stops = [(0, (40, 0, 90)), (0.45, (255, 50, 180)), (0.75, (120, 140, 255)), (1, (130, 255, 250))]
    image = ramp(luminance(layers.flat), stops)
    lines = np.mgrid[: layers.size, : layers.size][0] % (4 * unit) < unit
    return (image * np.where(lines, 0.62, 1.0)[..., None]).astype(np.float32)


def lino_print(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """One scarlet ink on white, hard edges, stray cuts around the object."""
    unit = layers.unit
    tone = luminance(layers.foreground)
    inside = layers.alpha > 0.5
    # Half of the body is cut away, whatever its colours: dark objects would vanish in the ink otherwise.
    level = np.median(tone[inside]) if inside.any() else 0.5
    body = inside & (blur(tone, 0.5 * unit) >= min(level, 0.8) - 0.02)
    around = blur(layers.alpha, 1.6 * unit)
    ring = (around > 0.10) & (around < 0.45) & ~inside
    cuts = (
        (waves(layers.size, 7 * unit, rng.uniform(0, np.pi)) > 0.88)
        & (around < 0.02)
        & (noise(layers.size, rng, 4 * unit) > 0)
    )
    white = (body & ~(edges(layers, 0.8 * unit) > 0.7)) | ring | cuts
    return np.where(white[..., None], rgb(252, 248, 242), rgb(196, 24, 36)).astype(np.float32)


def night_vision(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Green phosphor with grain inside a round eyepiece."""
    unit = layers.unit
    tone = luminance(blur(layers.flat, 0.7 * unit)) + 0.16 * noise(layers.size, rng, unit)
    image = ramp(np.clip(tone, 0, 1), [(0, (0, 24, 6)), (0.6, (40, 190, 60)), (1, (200, 255, 190))])
    y, x = np.mgrid[-1 : 1 : layers.size * 1j, -1 : 1 : layers.size * 1j]
    return np.where((np.hypot(y, x) > 0.97)[..., None], 0.0, image).astype(np.float32)


def sand_art(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Coarse coloured grains on pale desert sand with ripples."""
    unit = layers.unit
    ripple = 0.06 * waves(layers.size, 9 * unit, 1.35 + 0.2 * rng.uniform())
    sand = rgb(228, 196, 140) + (ripple + 0.10 * noise(layers.size, rng, unit))[..., None]
    grit = 0.22 * noise(layers.size, rng, unit)[..., None]
    grains = np.clip(0.55 * layers.foreground + 0.45 * rgb(190, 130, 80) + grit, 0, 1)
    rough = (layers.alpha + 0.25 * noise(layers.size, rng, unit) > 0.5)[..., None]
    return np.clip(np.where(rough, grains, sand), 0, 1).astype(np.float32)


def kaleidoscope(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """The image four times, mirrored at the middle lines, in jewel colours."""
    half = layers.size // 2
    shift = rng.integers(-layers.size // 16, layers.size // 16 + 1, 2)
    moved = np.roll(saturate(layers.flat, 2.0) ** 1.3, shift, (0, 1))
    quarter = moved.reshape(half, 2, half, 2, 3).mean(axis=(1, 3))
    top = np.hstack([quarter, quarter[:, ::-1]])
    return np.vstack([top, top[::-1]]).astype(np.float32)


STYLES: dict[str, tuple[Treatment, bool]] = {
    "woodcut": (woodcut, False),
    "thermal image": (thermal, False),
    "x-ray": (xray, False),
    "chalkboard drawing": (chalkboard, False),
    "embroidery": (embroidery, False),
    "gold leaf": (gold_leaf, False),
    "risograph": (risograph, False),
    "papercut": (papercut, False),
    "pop art": (pop_art, False),
    "op art": (op_art, False),
    "sepia photograph": (sepia, False),
    "vaporwave poster": (vaporwave, False),
    "lino print": (lino_print, False),
    "night vision": (night_vision, False),
    "sand art": (sand_art, False),
    "kaleidoscope": (kaleidoscope, True),
}
