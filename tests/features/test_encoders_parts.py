"""The encoder family `fusion`: features compared with its parts, bounded memory, and errors of parts."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.config.load import load_config, plain
from attrib_core.features.embedding import encoder_protocol
from tests.features.embedding_fixtures import noise_images
from tests.features.encoders_fixtures import ARCHITECTURE, STAGES, small_options

PIXEL = {"family": "pixel", "size": 3}
PALETTE = {"family": "palette", "bins": 2}


def fusion(batch: int = 32, **parts: Any) -> Any:
    return families.load("encoders", "fusion", {"parts": parts, "batch": batch}, device="cpu")


def test_features_are_the_parts_scaled_to_the_root_of_their_weight(load_encoder):
    images = noise_images(6)
    parts = [
        (load_encoder("palette", bins=2), 1.0),  # "colour" comes before "layout" and "shape"
        (load_encoder("pixel", size=3), 0.5),
        (load_encoder("timm", **STAGES), 2.0),
    ]
    expected = []
    for part, weight in parts:
        vectors = part.encode(images).astype(np.float64)
        expected.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * weight**0.5)
    fused = load_encoder("fusion")
    assert np.allclose(fused.encode(images), np.concatenate(expected, axis=1), rtol=1e-6, atol=1e-7)
    assert fused.dim == sum(part.dim for part, _ in parts)
    assert np.allclose(np.square(fused.encode(images)).sum(axis=1), 3.5, rtol=1e-5)


def test_the_order_of_the_parts_and_the_batch_change_nothing():
    images = noise_images(9)
    one, other = fusion(a=PIXEL, b=PALETTE), fusion(batch=2, b=PALETTE, a=PIXEL)
    assert np.array_equal(one.encode(images), other.encode(images))
    assert one.identity == other.identity


def test_identity_holds_weights_and_identities_of_the_parts():
    one = fusion(a=PIXEL, b=PALETTE)
    assert one.identity["parts"]["b"]["encoder"] == families.load("encoders", "palette", {"bins": 2}).identity
    for other in (fusion(a=PIXEL, b=PALETTE | {"weight": 2}), fusion(a=PIXEL, b=PALETTE | {"bins": 3})):
        assert one.identity != other.identity


def test_a_zero_part_stays_zero():
    encoder = fusion(a=PIXEL, b=PALETTE)
    encoder._parts["a"].encode = lambda images: np.zeros((len(images), 27), np.float32)
    vectors = encoder.encode(noise_images(2))
    assert np.isfinite(vectors).all() and not vectors[:, :27].any() and vectors[:, 27:].any()


def test_memory_does_not_grow_with_the_number_of_images():
    encoder = fusion(batch=4, a=PIXEL, b=PALETTE)
    held: list[int] = []

    def images() -> Iterator[np.ndarray]:
        for _ in range(64):
            held.append(tracemalloc.get_traced_memory()[0])
            yield np.zeros((300, 300, 3), np.uint8)

    tracemalloc.start()
    try:
        encoder.encode(images())
    finally:
        tracemalloc.stop()
    assert max(held) - held[0] < 10 * 300 * 300 * 3


def configured(part: Any) -> dict[str, Any]:
    return {"encoders": {"x": {"family": "fusion", "parts": {"y": part}}}}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"family": "palete"}, r"^encoders.x.parts.y.family: no family 'palete', did you mean 'palette'\?"),
        ({"family": "palette", "bin": 3}, r"^encoders.x.parts.y.bin: .* did you mean 'bins'\?"),
        ({"family": "palette", "bins": 1}, "^encoders.x.parts.y.bins: 1 is wrong"),
        ({"family": "pixel", "weight": 0}, "^encoders.x.parts.y.weight: 0 is wrong"),
        ({"family": "pixel", "weight": float("inf")}, "^encoders.x.parts.y.weight: .* is wrong"),
        ({"family": "timm", "weights": "a.pth"}, "^encoders.x.parts.y.architecture: .* missing"),
        (
            {"family": "timm", "architecture": "a", "weights": "b", "cells": 2},
            "^encoders.x.parts.y.cells: 2, but stages is null",
        ),
        ({"family": "fusion", "parts": {"z": PIXEL}}, "^encoders.x.parts.y.family: a fusion inside a fusion"),
        ({"size": 3}, "^encoders.x.parts.y.family: this key is needed"),
        ("pixel", "^encoders.x.parts.y: 'pixel' is wrong"),
    ],
)
def test_a_mistake_in_a_part_is_an_error_of_the_config(part, message):
    with pytest.raises(InputError, match=message):
        load_config(configured(part))


def test_a_fusion_of_nothing_is_refused():
    with pytest.raises(InputError, match=r"encoders.x.parts: \{\} is wrong.* at least 1"):
        load_config({"encoders": {"x": {"family": "fusion", "parts": {}}}})


def test_the_config_holds_the_defaults_of_the_parts():
    section = plain(load_config(configured({"family": "palette"})))["encoders"]["x"]
    assert section["parts"] == {"y": {"family": "palette", "bins": 6, "moments_weight": 1.0, "weight": 1.0}}


def test_an_error_of_a_part_on_loading_names_its_key(weights):
    part = {"family": "timm", "architecture": ARCHITECTURE, "weights": str(weights), "size": 32}
    for change, message in [
        ({"weights": "none.pth"}, "^encoders.x.parts.y: weights: no file 'none.pth'"),
        ({"stages": [9]}, "^encoders.x.parts.y: stages: .* has no stage 9"),
    ]:
        section = {"family": "fusion", "parts": {"y": part | change}}
        with pytest.raises(InputError, match=message):
            encoder_protocol.load(section, where="encoders.x")


def test_members_and_files_are_those_of_all_parts(weights):
    section = {"family": "fusion"} | small_options("fusion", weights)
    members = families.members("encoders", section)
    assert [name for name, _ in members] == ["fusion", "timm", "palette", "pixel"]
    assert "weight" not in members[1][1] and members[2][1] == {"bins": 2}
    own = families.module("encoders", "fusion").files(**members[0][1])
    assert own == families.module("encoders", "timm").files(**members[1][1]) and weights in own
    assert families.members("encoders", PIXEL) == [("pixel", {"size": 3})]
