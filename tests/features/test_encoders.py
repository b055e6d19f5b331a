"""What every encoder family promises, and the encoders without a network by plain oracles."""

from __future__ import annotations

import functools
import json
import math
import statistics
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from attrib_core.common import families
from tests.features.embedding_fixtures import noise_images
from tests.features.encoders_fixtures import STAGES, given, load_small, tiny_weights


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Loads a family with options that make it small; a family unknown to the fixtures by its defaults."""
    return functools.partial(load_small, tiny_weights(tmp_path_factory.mktemp("weights")))


WITH_WORDS = {
    "look": {"family": "pixel", "size": 3},
    "words": {"family": "text", "base_model": {"family": "bundled"}, "weight": 2},
}
every_family = pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, {}) for family in families.names("encoders")),
        ("timm", STAGES),
        ("pixel", {"centred": False}),
        ("fusion", {"parts": WITH_WORDS}),
    ],
    ids=[*families.names("encoders"), "timm-stages", "pixel-uncentred", "fusion-words"],
)


def test_all_families_are_found():
    known = {
        "diffusion",
        "fusion",
        "open_clip",
        "palette",
        "pixel",
        "text",
        "timm",
        "torchscript",
        "transformers",
    }
    assert known <= set(families.names("encoders"))


@every_family
def test_features_are_finite_float32_of_the_stated_dimension(load, family, options):
    encoder = load(family, **options)
    features = encoder.encode(given(encoder, noise_images(5)))
    assert features.shape == (5, encoder.dim) and features.dtype == np.float32
    assert np.isfinite(features).all()
    assert np.linalg.matrix_rank(features) == 5  # five images, five directions
    assert encoder.encode([]).shape == (0, encoder.dim)


@every_family
def test_features_do_not_depend_on_company_or_order(load, family, options):
    encoder = load(family, **options)
    inputs = given(encoder, noise_images(21))
    together = encoder.encode(inputs)
    order = np.random.default_rng(1).permutation(21)
    assert np.array_equal(encoder.encode([inputs[place] for place in order]), together[order])
    assert np.array_equal(np.concatenate([encoder.encode([one]) for one in inputs]), together)
    assert np.array_equal(encoder.encode(one for one in inputs[:3]), together[:3])


@every_family
def test_loading_again_gives_the_same_bits_and_identity(load, family, options):
    first, second = load(family, **options), load(family, **options)
    inputs = given(first, noise_images(3))
    assert np.array_equal(first.encode(inputs), second.encode(inputs))
    assert first.identity == second.identity == json.loads(json.dumps(first.identity))
    assert first.identity["family"] == family and first.identity["dim"] == first.dim


@every_family
def test_images_of_any_size_are_taken(load, family, options):
    encoder = load(family, **options)
    random = np.random.default_rng(2)
    shapes = [(7, 30), (200, 31), (1, 1), (64, 64)]
    images = [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    features = encoder.encode(given(encoder, images))
    assert features.shape == (4, encoder.dim) and np.isfinite(features).all()


@every_family
def test_a_blank_image_has_a_direction(load, family, options):
    encoder = load(family, **options)
    blank = [np.full((32, 32, 3), 255, np.uint8), np.zeros((32, 32, 3), np.uint8)]
    features = encoder.encode(given(encoder, blank))
    assert (np.linalg.norm(features, axis=1) > 0).all()


def test_identity_changes_with_what_decides_about_the_features(load):
    assert load("pixel").identity != load("pixel", size=5).identity
    assert load("timm").identity != load("timm", size=48).identity
    assert load("timm").identity == load("timm", batch=2).identity
    staged = [STAGES, STAGES | {"stages": [0, 2]}, STAGES | {"cells": 1}, STAGES | {"deviation": False}]
    described = [load("timm", **options).identity for options in [{}, *staged]]
    assert all(one not in described[:place] for place, one in enumerate(described))
    assert load("palette").identity != load("palette", bins=4).identity
    assert load("palette").identity != load("palette", moments_weight=2).identity


def test_pixel_against_plain_sums():
    image = np.random.default_rng(3).integers(0, 256, (12, 8, 3), dtype=np.uint8)
    expected = np.zeros((4, 4, 3))
    for row in range(4):
        for column in range(4):
            for channel in range(3):
                area = [
                    image[y, x, channel]
                    for y in range(3 * row, 3 * row + 3)
                    for x in (2 * column, 2 * column + 1)
                ]
                expected[row, column, channel] = sum(int(value) for value in area) / 6 / 255
    expected -= expected.mean(axis=(0, 1))
    features = families.load("encoders", "pixel", {"size": 4}).encode([image])[0].reshape(4, 4, 3)
    assert np.abs(features - expected).max() < 1.5 / 255  # the resampling rounds to whole levels, twice
    assert np.abs(features.mean(axis=(0, 1))).max() < 1e-7


def test_pixel_takes_only_contrast_to_the_mean_colour():
    encoder = families.load("encoders", "pixel", {})
    image = noise_images(1, size=64)[0] // 2
    brighter = image + np.array([10, 90, 120], dtype=np.uint8)
    assert np.allclose(encoder.encode([image]), encoder.encode([brighter]), atol=1e-6)
    assert encoder.dim == 768


def test_pixel_blank_images_are_at_right_angles_to_all_others():
    blank, structured = families.load("encoders", "pixel", {}).encode(
        [np.full((64, 64, 3), (9, 99, 200), np.uint8), noise_images(1, size=64)[0]]
    )
    cosine = blank @ structured / np.linalg.norm(blank) / np.linalg.norm(structured)
    assert abs(cosine) < 1e-6


def test_pixel_uncentred_is_centred_with_the_mean_colour_left_in():
    images = noise_images(3, size=64)
    centred, whole = (
        families.load("encoders", "pixel", {"centred": choice}).encode(images).reshape(3, 256, 3)
        for choice in (True, False)
    )
    assert np.allclose(whole - whole.mean(axis=1, keepdims=True), centred, atol=1e-6)
    assert np.allclose(whole.mean(axis=1), images.mean(axis=(1, 2)) / 255, atol=1e-3)
    assert load_identity(centred=False) != load_identity(centred=True) == load_identity()


def load_identity(**options: Any) -> dict[str, Any]:
    identity: dict[str, Any] = families.load("encoders", "pixel", options).identity
    return identity


def plain_palette(image: np.ndarray, bins: int, weight: float) -> list[float]:
    """The features of a palette by counting pixel for pixel."""
    shares = [0.0] * bins**3
    values: list[list[float]] = [[], [], []]
    for row in image.tolist():
        for pixel in row:
            place = 0
            for channel, value in enumerate(pixel):
                inside = [number for number in range(bins) if number * 256 / bins <= value]
                place = place * bins + inside[-1]
                values[channel].append(value / 255)
            shares[place] += 1 / (len(image) * len(row))
    means = [statistics.fmean(one) for one in values]
    return [math.sqrt(share) for share in shares] + [
        weight * one for one in means + [statistics.pstdev(one) for one in values]
    ]


@pytest.mark.parametrize(("bins", "weight"), [(2, 1.0), (6, 0.25), (7, 3.0)])
def test_palette_against_counting_pixel_for_pixel(bins, weight):
    image = np.random.default_rng(4).integers(0, 256, (13, 9, 3), dtype=np.uint8)
    image[:5, :5] = (0, 255, 128)
    encoder = families.load("encoders", "palette", {"bins": bins, "moments_weight": weight})
    features = encoder.encode([image])[0]
    assert np.allclose(features, plain_palette(image, bins, weight), rtol=1e-5, atol=1e-6)
    assert abs(np.square(features[: bins**3], dtype=np.float64).sum() - 1) < 1e-6


def test_palette_sees_colours_wherever_they_lie():
    image = noise_images(1)[0]
    shuffled = np.random.default_rng(5).permutation(image.reshape(-1, 3)).reshape(image.shape)
    encoder = families.load("encoders", "palette", {})
    assert encoder.dim == 222
    assert np.allclose(encoder.encode([image]), encoder.encode([shuffled]), atol=1e-6)


@pytest.mark.parametrize("family", ["pixel", "palette"])
def test_no_torch_is_imported(family):
    code = (
        "import sys, numpy; from attrib_core.common import families; from attrib_core.features.embedding import encoder_protocol;"
        f"families.load('encoders', '{family}', {{}}).encode(numpy.zeros((1, 8, 8, 3), 'uint8'));"
        "sys.exit(bool({'torch', 'timm', 'faiss'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
