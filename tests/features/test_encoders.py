"""The contract of every encoder family, and the encoders without a network compared with plain computations."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from attrib_core.common import families
from tests.features.embedding_fixtures import noise_images
from tests.features.encoders_fixtures import STAGES, inputs_for

WITH_TEXT = {
    "look": {"family": "pixel", "size": 3},
    "caption": {"family": "text", "base_model": {"family": "bundled"}, "weight": 2},
}
every_family = pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, {}) for family in families.names("encoders")),
        ("timm", STAGES),
        ("pixel", {"centred": False}),
        ("fusion", {"parts": WITH_TEXT}),
    ],
    ids=[*families.names("encoders"), "timm-stages", "pixel-uncentred", "fusion-text"],
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


@pytest.fixture(scope="module")
def loaded_encoder(load_encoder: Callable[..., Any]) -> Callable[[str, dict[str, Any]], Any]:
    """Loads an encoder once for all tests that leave it unchanged."""
    encoders: dict[str, Any] = {}

    def load(family: str, options: dict[str, Any]) -> Any:
        key = f"{family} {options}"
        if key not in encoders:
            encoders[key] = load_encoder(family, **options)
        return encoders[key]

    return load


@every_family
def test_features_are_finite_float32_of_the_stated_dimension(loaded_encoder, family, options):
    encoder = loaded_encoder(family, options)
    features = encoder.encode(inputs_for(encoder, noise_images(5)))
    assert features.shape == (5, encoder.dim) and features.dtype == np.float32
    assert np.isfinite(features).all()
    assert np.linalg.matrix_rank(features) == 5  # five images, five linearly independent vectors
    assert encoder.encode([]).shape == (0, encoder.dim)


@every_family
def test_features_do_not_depend_on_the_other_images_or_their_order(loaded_encoder, family, options):
    encoder = loaded_encoder(family, options)
    inputs = inputs_for(encoder, noise_images(21))
    together = encoder.encode(inputs)
    order = np.random.default_rng(1).permutation(21)
    assert np.array_equal(encoder.encode([inputs[place] for place in order]), together[order])
    assert np.array_equal(np.concatenate([encoder.encode([one]) for one in inputs]), together)
    assert np.array_equal(encoder.encode(one for one in inputs[:3]), together[:3])


@every_family
def test_loading_again_gives_the_same_bits_and_identity(load_encoder, loaded_encoder, family, options):
    first, second = loaded_encoder(family, options), load_encoder(family, **options)
    inputs = inputs_for(first, noise_images(3))
    assert np.array_equal(first.encode(inputs), second.encode(inputs))
    assert first.identity == second.identity == json.loads(json.dumps(first.identity))
    assert first.identity["family"] == family and first.identity["dim"] == first.dim


@every_family
def test_images_of_any_size_are_accepted(loaded_encoder, family, options):
    encoder = loaded_encoder(family, options)
    random = np.random.default_rng(2)
    shapes = [(7, 30), (200, 31), (1, 1), (64, 64)]
    images = [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    features = encoder.encode(inputs_for(encoder, images))
    assert features.shape == (4, encoder.dim) and np.isfinite(features).all()


@every_family
def test_features_of_a_blank_image_are_not_zero(loaded_encoder, family, options):
    encoder = loaded_encoder(family, options)
    blank = [np.full((32, 32, 3), 255, np.uint8), np.zeros((32, 32, 3), np.uint8)]
    features = encoder.encode(inputs_for(encoder, blank))
    assert (np.linalg.norm(features, axis=1) > 0).all()


def test_identity_contains_what_determines_the_features(load_encoder):
    assert load_encoder("pixel").identity != load_encoder("pixel", size=5).identity
    assert load_encoder("timm").identity != load_encoder("timm", size=48).identity
    assert load_encoder("timm").identity == load_encoder("timm", batch=2).identity
    staged = [STAGES, STAGES | {"stages": [0, 2]}, STAGES | {"cells": 1}, STAGES | {"deviation": False}]
    identities = [load_encoder("timm", **options).identity for options in [{}, *staged]]
    assert all(one not in identities[:index] for index, one in enumerate(identities))
    assert load_encoder("palette").identity != load_encoder("palette", bins=4).identity
    assert load_encoder("palette").identity != load_encoder("palette", moments_weight=2).identity


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


def test_pixel_depends_only_on_contrast_to_the_mean_colour():
    encoder = families.load("encoders", "pixel", {})
    image = noise_images(1, size=64)[0] // 2
    brighter = image + np.array([10, 90, 120], dtype=np.uint8)
    assert np.allclose(encoder.encode([image]), encoder.encode([brighter]), atol=1e-6)
    assert encoder.dim == 768


def test_pixel_blank_images_are_orthogonal_to_all_others():
    blank, structured = families.load("encoders", "pixel", {}).encode(
        [np.full((64, 64, 3), (9, 99, 200), np.uint8), noise_images(1, size=64)[0]]
    )
    cosine = blank @ structured / np.linalg.norm(blank) / np.linalg.norm(structured)
    assert abs(cosine) < 1e-6


def test_pixel_uncentred_is_centred_plus_the_mean_colour():
    images = noise_images(3, size=64)
    centred, uncentred = (
        families.load("encoders", "pixel", {"centred": choice}).encode(images).reshape(3, 256, 3)
        for choice in (True, False)
    )
    assert np.allclose(uncentred - uncentred.mean(axis=1, keepdims=True), centred, atol=1e-6)
    assert np.allclose(uncentred.mean(axis=1), images.mean(axis=(1, 2)) / 255, atol=1e-3)
    assert load_identity(centred=False) != load_identity(centred=True) == load_identity()


def load_identity(**options: Any) -> dict[str, Any]:
    identity: dict[str, Any] = families.load("encoders", "pixel", options).identity
    return identity


def plain_palette(image: np.ndarray, bins: int, weight: float) -> list[float]:
    """Features of the palette encoder, counted pixel by pixel."""
    shares = [0.0] * bins**3
    values: list[list[float]] = [[], [], []]
    for row in image.tolist():
        for pixel in row:
            cell = 0
            for channel, value in enumerate(pixel):
                lower_bins = [number for number in range(bins) if number * 256 / bins <= value]
                cell = cell * bins + lower_bins[-1]
                values[channel].append(value / 255)
            shares[cell] += 1 / (len(image) * len(row))
    means = [statistics.fmean(one) for one in values]
    return [math.sqrt(share) for share in shares] + [
        weight * one for one in means + [statistics.pstdev(one) for one in values]
    ]


@pytest.mark.parametrize(("bins", "weight"), [(2, 1.0), (6, 0.25), (7, 3.0)])
def test_palette_against_counting_pixel_by_pixel(bins, weight):
    image = np.random.default_rng(4).integers(0, 256, (13, 9, 3), dtype=np.uint8)
    image[:5, :5] = (0, 255, 128)
    encoder = families.load("encoders", "palette", {"bins": bins, "moments_weight": weight})
    features = encoder.encode([image])[0]
    assert np.allclose(features, plain_palette(image, bins, weight), rtol=1e-5, atol=1e-6)
    assert abs(np.square(features[: bins**3], dtype=np.float64).sum() - 1) < 1e-6


def test_palette_does_not_depend_on_positions():
    image = noise_images(1)[0]
    shuffled = np.random.default_rng(5).permutation(image.reshape(-1, 3)).reshape(image.shape)
    encoder = families.load("encoders", "palette", {})
    assert encoder.dim == 222
    assert np.allclose(encoder.encode([image]), encoder.encode([shuffled]), atol=1e-6)


@pytest.mark.parametrize("family", ["pixel", "palette"])
def test_no_torch_is_imported(family):
    code = (
        "import sys, numpy; from attrib_core.common import families;"
        "from attrib_core.features.embedding import encoder_protocol;"
        f"families.load('encoders', '{family}', {{}}).encode(numpy.zeros((1, 8, 8, 3), 'uint8'));"
        "sys.exit(bool({'torch', 'timm', 'faiss'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
