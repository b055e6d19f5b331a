"""Drawing: every treatment and background keeps the same contract; names and articles."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as PilImage

from attrib_core.data.drawing import backgrounds, layers, render
from attrib_core.data.drawing.layers import Layers
from attrib_core.data.drawing.styles import STYLES
from attrib_core.data.drawing.treatments import MEDIA
from attrib_core.data.images import to_png
from attrib_core.data.naming import article, slug

TREATMENTS = MEDIA | STYLES


def disk(size: int, background: str = "meadow") -> Layers:
    """An orange disk with a dark rim, a little off the middle."""
    y, x = np.mgrid[:size, :size] / size
    radius = np.hypot(y - 0.52, x - 0.47)
    alpha = np.clip((0.36 - radius) * size / 2, 0, 1).astype(np.float32)
    foreground = np.where((radius > 0.3)[..., None], (0.1, 0.05, 0.05), (0.95, 0.6, 0.2)).astype(np.float32)
    return Layers(foreground, alpha, backgrounds.draw(background, size, np.random.default_rng(5)))


@pytest.mark.parametrize("name", TREATMENTS)
@pytest.mark.parametrize("size", [32, 96])
def test_treatment_keeps_the_contract(name: str, size: int) -> None:
    treatment, _ = TREATMENTS[name]
    source = disk(size)
    before = [source.foreground.copy(), source.alpha.copy(), source.background.copy()]
    shown = treatment(source, np.random.default_rng(1))
    assert shown.shape == (size, size, 3) and shown.dtype == np.float32
    assert np.isfinite(shown).all() and shown.min() >= -1e-6 and shown.max() <= 1.1
    assert np.array_equal(shown, treatment(source, np.random.default_rng(1)))
    for kept, now in zip(before, (source.foreground, source.alpha, source.background), strict=True):
        assert np.array_equal(kept, now), "a treatment must not write into its layers"
    assert shown.std() > 0.02, "a uniform image"
    assert treatment.__doc__


def test_treatments_differ_from_each_other_and_from_the_plain_image() -> None:
    source = disk(64)
    shown = {name: treatment(source, np.random.default_rng(1)) for name, (treatment, _) in TREATMENTS.items()}
    shown["plain"] = source.flat
    names = list(shown)
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            assert np.abs(shown[name] - shown[other]).mean() > 0.02, (name, other)


@pytest.mark.parametrize("name", TREATMENTS)
def test_the_object_is_visible_in_every_treatment(name: str) -> None:
    treatment, _ = TREATMENTS[name]
    source = disk(64)
    nothing = Layers(source.foreground, np.zeros_like(source.alpha), source.background)
    with_object = treatment(source, np.random.default_rng(1))
    without = treatment(nothing, np.random.default_rng(1))
    assert np.abs(with_object - without).mean() > 0.03


@pytest.mark.parametrize("name", backgrounds.BACKGROUNDS)
def test_background_keeps_the_contract(name: str) -> None:
    drawn = backgrounds.draw(name, 64, np.random.default_rng(3))
    assert drawn.shape == (64, 64, 3) and drawn.dtype == np.float32
    assert drawn.min() >= 0 and drawn.max() <= 1.001
    assert np.array_equal(drawn, backgrounds.draw(name, 64, np.random.default_rng(3)))


def test_background_phrases_are_different() -> None:
    phrases = [backgrounds.phrase(name) for name in backgrounds.BACKGROUNDS]
    assert len(set(phrases)) == len(phrases)
    assert "on an orange background" in phrases


def test_image_is_seeded_and_moves_with_the_seed() -> None:
    drawn = render.objects()[0]
    first, again, other = (
        render.image(drawn.codepoint, "snow", 32, np.random.default_rng(seed), None) for seed in (1, 1, 2)
    )
    assert first.shape == (32, 32, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_missing_drawing_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="NOPE"):
        render.glyph("NOPE")


def test_objects_are_unique_and_have_slugs_of_their_own() -> None:
    drawn = render.objects()
    for values in ([one.codepoint for one in drawn], [slug(one.name) for one in drawn]):
        assert len(set(values)) == len(values) == 700


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("apple", "an apple"),
        ("pear", "a pear"),
        ("unicorn", "a unicorn"),
        ("ufo", "a ufo"),
        ("umbrella", "an umbrella"),
        ("hourglass", "an hourglass"),
        ("hat", "a hat"),
        ("x-ray", "an x-ray"),
        ("cherries", "cherries"),
        ("toilet paper", "toilet paper"),
        ("pixel art", "pixel art"),
    ],
)
def test_articles(noun: str, expected: str) -> None:
    assert render.with_article(noun) == expected
    if " " in expected and expected != noun:
        assert article(noun) == expected.split()[0]


def test_captions_name_the_background_only_if_it_is_visible() -> None:
    assert render.caption("star", "snow") == "a star in the snow"
    assert render.caption("star", "snow", "mosaic") == "a mosaic of a star in the snow"
    assert render.caption("star", "snow", "blueprint") == "a blueprint of a star"


def test_slug() -> None:
    assert slug("Piñata, blue") == "pinata-blue"
    assert slug("  ") == slug("…") == "unnamed"


def test_png_keeps_pixels_and_is_deterministic() -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    encoded = to_png(array)
    assert encoded == to_png(array.copy())
    with PilImage.open(io.BytesIO(encoded)) as image:
        assert image.format == "PNG" and np.array_equal(np.asarray(image), array)
    with pytest.raises(ValueError, match="float64"):
        to_png(array.astype(np.float64))


def test_blocks_against_loops() -> None:
    array = np.random.default_rng(0).random((6, 6, 3)).astype(np.float32)
    expected = np.empty_like(array)
    for row in range(6):
        for column in range(6):
            top, left = row // 3 * 3, column // 3 * 3
            expected[row, column] = array[top : top + 3, left : left + 3].mean(axis=(0, 1))
    assert np.allclose(layers.blocks(array, 3), expected, atol=1e-6)
    with pytest.raises(ValueError, match="cell 4"):
        layers.blocks(array, 4)


def test_ramp_and_luminance() -> None:
    stops = [(0.0, (0, 0, 0)), (1.0, (255, 0, 51))]
    assert np.allclose(layers.ramp(np.array([0.0, 0.5, 1.0]), stops), [[0, 0, 0], [0.5, 0, 0.1], [1, 0, 0.2]])
    assert np.isclose(layers.luminance(np.array([[[1.0, 0.0, 0.0]]]))[0, 0], 0.299)
