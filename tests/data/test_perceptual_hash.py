"""The difference hash against a slow exact one, on known images, and its robustness."""

from __future__ import annotations

import io
import math
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image as PilImage

from attrib_core.data.perceptual_hash import difference_hash
from tests.data.image_fixtures import encoded, image


def bits_of(number: int) -> list[bool]:
    return [bool((number & 0xFFFFFFFFFFFFFFFF) >> (63 - index) & 1) for index in range(64)]


def slow_levels(gray: np.ndarray) -> list[list[int]]:
    """Mean gray of 8 x 9 equal rectangles in exact fractions, border pixels by their share, rounded half up."""
    height, width = gray.shape
    levels = []
    for line in range(8):
        rounded = []
        for column in range(9):
            total = Fraction(0)
            for y in range(height):
                high = min(Fraction(y + 1), Fraction((line + 1) * height, 8)) - max(
                    y, Fraction(line * height, 8)
                )
                if high <= 0:
                    continue
                for x in range(width):
                    wide = min(Fraction(x + 1), Fraction((column + 1) * width, 9))
                    wide -= max(Fraction(x), Fraction(column * width, 9))
                    if wide > 0:
                        total += high * wide * int(gray[y, x])
            rounded.append(math.floor(total / Fraction(height * width, 72) + Fraction(1, 2)))
        levels.append(rounded)
    return levels


@pytest.mark.parametrize("shape", [(8, 9), (5, 4), (24, 32), (33, 40)])
def test_difference_hash_against_loops(shape: tuple[int, int]) -> None:
    for seed in range(2):
        shown = image(*shape, seed=seed)
        levels = slow_levels(np.asarray(PilImage.fromarray(shown).convert("L")))
        expected = [line[column + 1] > line[column] for line in levels for column in range(8)]
        assert bits_of(difference_hash(shown)) == expected


def test_difference_hash_of_known_images() -> None:
    rising = np.repeat(np.repeat(np.arange(9, dtype=np.uint8)[None, :, None] * 20, 8, axis=0), 3, axis=2)
    assert difference_hash(rising) == -1  # all 64 bits, as a signed number
    assert difference_hash(rising[:, ::-1].copy()) == 0
    assert difference_hash(np.full((50, 50, 3), 77, dtype=np.uint8)) == 0
    step = np.zeros((8, 9, 3), dtype=np.uint8)
    step[7, 8] = 255
    assert difference_hash(step) == 1  # the last bit
    step = np.zeros((8, 9, 3), dtype=np.uint8)
    step[0, 1] = 255
    assert difference_hash(step) == -(2**63)  # the first


def test_difference_hash_is_robust_to_size_and_compression() -> None:
    shown = image(96, 96)
    first = difference_hash(shown)
    smaller = np.asarray(PilImage.fromarray(shown).resize((64, 64), PilImage.Resampling.LANCZOS))
    lossy = np.asarray(PilImage.open(io.BytesIO(encoded(PilImage.fromarray(shown), "JPEG", quality=70))))
    for other in (smaller, lossy):
        assert bin((first ^ difference_hash(other)) & 0xFFFFFFFFFFFFFFFF).count("1") <= 4
    far = difference_hash(image(96, 96, seed=9))
    assert bin((first ^ far) & 0xFFFFFFFFFFFFFFFF).count("1") > 12
