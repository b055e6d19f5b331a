"""What encoders with a network share: preprocessing equal to torchvision's, weights, batches, precision."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.features.networks import state_dicts, weight_paths
from attrib_core.features.networks.network_encoder import NetworkEncoder
from attrib_core.features.networks.preprocessing import Preprocessing
from tests.features.embedding_fixtures import noise_images
from tests.features.encoders_fixtures import tiny_weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPES = [(64, 64), (33, 64), (65, 41), (300, 47), (31, 32), (97, 203), (1, 1), (5, 90), (40, 41)]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize", [None, 37, 41])
def test_preprocessing_has_the_bits_of_torchvision(interpolation, resize):
    from torchvision import transforms

    mode = transforms.InterpolationMode(interpolation)
    reference = transforms.Compose(
        [
            transforms.Resize(resize or 32, interpolation=mode),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    random = np.random.default_rng(0)
    prepare = Preprocessing(32, MEAN, STD, resize, interpolation)
    for shape in SHAPES:
        image = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
        expected = reference(Image.fromarray(image)).numpy().transpose(1, 2, 0)
        assert np.array_equal(prepare(image), expected), shape


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_squashing_has_the_bits_of_open_clip(interpolation):
    import open_clip

    reference = open_clip.image_transform(
        32, is_train=False, mean=MEAN, std=STD, resize_mode="squash", interpolation=interpolation
    )
    prepare = Preprocessing(32, MEAN, STD, interpolation=interpolation, fit="squash")
    for shape in SHAPES:
        image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
        expected = reference(Image.fromarray(image)).numpy().transpose(1, 2, 0)
        assert np.array_equal(prepare(image), expected), shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": 24}, "resize: 24 is less than size, 32"),
        ({"fit": "squash", "resize": 40}, "resize: only with fit: crop"),
        ({"std": (1.0, 0.0, 1.0)}, r"std: \[1.0, 0.0, 1.0\]; expected numbers above 0"),
    ],
)
def test_contradictory_preprocessing_options_are_refused(load_encoder, options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        load_encoder("timm", **options)


def test_identity_contains_preprocessing_that_is_not_the_default(load_encoder):
    plain = load_encoder("timm").identity
    for options in (
        {"resize": 40},
        {"interpolation": "bilinear"},
        {"fit": "squash"},
        {"precision": "bfloat16"},
    ):
        assert load_encoder("timm", **options).identity == plain | options
    assert load_encoder("timm", resize=32).identity == plain


def test_a_prefix_selects_the_tensors_below_it(load_encoder, tmp_path):
    import torch

    own = state_dicts.read(Path(tiny_weights(tmp_path)))
    wrapped = {f"module.base.{name}": value for name, value in own.items()} | {
        "module.momentum": torch.ones(1)
    }
    torch.save({"state_dict": wrapped, "epoch": 9}, tmp_path / "wrapped.pth.tar")
    encoder = load_encoder("timm", weights=str(tmp_path / "wrapped.pth.tar"), prefix="module.base.")
    images = noise_images(2)
    assert np.array_equal(encoder.encode(images), load_encoder("timm").encode(images))
    with pytest.raises(InputError, match="^prefix: no tensor of .* begins with 'module.bass.'; the first is"):
        load_encoder("timm", weights=str(tmp_path / "wrapped.pth.tar"), prefix="module.bass.")


@pytest.mark.parametrize("family", ["timm", "open_clip", "transformers"])
def test_bfloat16_features_are_close_to_float32(load_encoder, family):
    images = noise_images(4)
    exact, approximate = (
        load_encoder(family, precision=choice).encode(images) for choice in ("float32", "bfloat16")
    )
    assert approximate.dtype == np.float32 and not np.array_equal(approximate, exact)
    length = np.linalg.norm(exact, axis=1)
    assert (np.linalg.norm(approximate - exact, axis=1) / length).max() < 0.05
    assert np.array_equal(load_encoder(family, precision="bfloat16").encode(images[2:3]), approximate[2:3])


@pytest.mark.parametrize("family", ["timm", "open_clip", "transformers", "diffusion", "torchscript"])
def test_batches_as_on_a_gpu_differ_in_last_bits_only(load_encoder, family):
    """Batches of one size, the last one padded: forced on the CPU."""
    images, encoder = noise_images(11), load_encoder(family)
    single = encoder.encode(images)
    encoder._batch_size = 4
    batched = encoder.encode(images)
    assert batched.shape == single.shape
    assert (np.linalg.norm(single - batched, axis=1) / np.linalg.norm(single, axis=1)).max() < 5e-6


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["timm", "open_clip", "transformers", "diffusion", "torchscript"])
def test_a_gpu_gives_the_features_of_the_cpu_in_any_batch(load_encoder, family):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images, expected = noise_images(11), load_encoder(family).encode(noise_images(11))
    length = np.linalg.norm(expected, axis=1)
    for batch in (1, 4, 32):
        found = load_encoder(family, device="cuda", batch=batch).encode(images)
        assert (np.linalg.norm(found - expected, axis=1) / length).max() < 1e-4


def fill_cache(
    cache: Path, name: str, commit: str, files: dict[str, bytes], branch: str | None = "main"
) -> Path:
    """Write a model into a cache of huggingface_hub, in that library's own layout."""
    folder = cache / ("models--" + name.replace("/", "--"))
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file, content in files.items():
        (snapshot / file).write_bytes(content)
    if branch:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / branch).write_text(commit)
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, used for the time of a test."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


def test_hub_weights_are_found_in_the_cache(cache, tmp_path):
    first, second = "a" * 40, "b" * 40
    fill_cache(cache, "me/net", first, {"model.safetensors": b"1"}, branch=None)
    fill_cache(cache, "me/net", second, {"model.safetensors": b"2", "other.bin": b"3"})
    found = weight_paths.file("hub:me/net", ["none.bin", "other.bin"])
    assert found.read_bytes() == b"3" and found.parent.name == second
    assert weight_paths.file(f"hub:me/net@{first}", ["model.safetensors"]).read_bytes() == b"1"
    assert weight_paths.folder("hub:me/net", "model.safetensors").name == second


def test_for_weights_not_in_the_cache_the_error_says_how_to_download_them(cache):
    fill_cache(cache, "me/net", "a" * 40, {"x": b""})
    for weights, message in [
        ("hub:me/other", "weights: 'me/other' is not in .*hub, or lacks w.bin; .*`hf download me/other`"),
        ("hub:me/net", "weights: 'me/net' is not in .*, or lacks w.bin; .*FOLDER` and name"),
        (
            "hub:me/net@v1",
            "weights: revision 'v1' of 'me/net' is not in .*`hf download me/net --revision v1`",
        ),
        ("hub:", "weights: 'hub:' names no model of the hub; expected hub:owner/model@revision"),
        ("hub:a/b/c", "weights: 'a/b/c' is no name of the hub"),
    ]:
        with pytest.raises(InputError, match=message):
            weight_paths.file(weights, ["w.bin"])


def test_hub_weights_give_the_features_of_the_same_file(load_encoder, cache, tmp_path):
    file = tiny_weights(tmp_path)
    fill_cache(cache, "me/net", "c" * 40, {"model.safetensors": file.read_bytes()})
    encoder, plain = load_encoder("timm", weights="hub:me/net"), load_encoder("timm")
    assert encoder.identity == plain.identity
    assert np.array_equal(encoder.encode(noise_images(2)), plain.encode(noise_images(2)))


def test_weights_of_another_architecture_are_refused_by_every_family(load_encoder, tmp_path):
    """An intact file, but of another network."""
    other = str(tiny_weights(tmp_path))
    with pytest.raises(InputError, match="prefix: no tensor of .* begins with 'visual.'"):
        load_encoder("open_clip", weights=other)
    with pytest.raises(InputError, match="does not fit the network in .* tensors"):
        load_encoder("timm", architecture="test_vit", weights=other)
    with pytest.raises(InputError, match="weights: no folder"):
        load_encoder("transformers", weights=other)
    digest = families.load(
        "encoders", "timm", {"architecture": "test_efficientnet", "weights": other, "size": 32}
    )
    with pytest.raises(InputError, match="is no TorchScript file that torch opens"):
        load_encoder("torchscript", weights=other, sha256=digest.identity["weights_sha256"])


def position_dependent(first_wrong: int) -> Any:
    """A network that changes the last bit of inputs at position `first_wrong` of the batch and after."""
    import torch

    class PositionDependent(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            means = images.mean(dim=(2, 3))
            off = torch.arange(len(means)) >= first_wrong
            return torch.where(off[:, None], torch.nextafter(means, means + 1), means)

    return PositionDependent()


@pytest.mark.parametrize(("first_wrong", "batch"), [(99, 16), (8, 8), (3, 2), (1, 1)])
def test_the_cpu_batch_size_is_one_at_which_the_position_changes_no_bit(first_wrong, batch):
    encoder = NetworkEncoder(
        position_dependent(first_wrong), small, dim=3, batch_size=5, device="cpu", identity={}
    )
    assert encoder.batch_size == batch
    images = noise_images(21)
    together = encoder.encode(images)
    assert np.array_equal(encoder.encode(images[::-1])[::-1], together)
    assert np.array_equal(np.concatenate([encoder.encode([one]) for one in images]), together)


def test_a_network_that_takes_one_image_at_a_time_gets_batches_of_one():
    import torch

    class Traced(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=(2, 3)).view(1, 3)

    encoder = NetworkEncoder(Traced(), small, dim=3, batch_size=5, device="cpu", identity={})
    assert encoder.batch_size == 1
    images = noise_images(3)
    means = np.stack([small(one).mean(axis=(0, 1)) for one in images])
    assert np.allclose(encoder.encode(images), means, rtol=1e-5)


def test_a_network_whose_output_dimension_changes_is_an_input_error():
    import torch

    class Changing(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            width = 4 if images.mean() > 200 else 3
            return images.flatten(1)[:, :width]

    encoder = NetworkEncoder(
        Changing(), small, dim=3, batch_size=5, device="cpu", identity={"family": "torchscript"}
    )
    encoder.encode([np.zeros((8, 8, 3), np.uint8)])
    white = np.full((8, 8, 3), 255, np.uint8)
    message = r"encoder 'torchscript': the network gave features of shape \(16, 4\) for 16 images, expected \(16, 3\)"
    with pytest.raises(InputError, match=message):
        encoder.encode([white] * 16)


@pytest.mark.parametrize(("side", "batch"), [(64, 16), (128, 8), (224, 2), (363, 1), (2000, 1)])
def test_the_cpu_batch_size_depends_on_the_image_size(side, batch):
    prepare = functools.partial(np.resize, new_shape=(side, side, 3))
    encoder = NetworkEncoder(
        position_dependent(99),
        lambda one: prepare(one).astype(np.float32),
        dim=3,
        batch_size=5,
        device="cpu",
        identity={},
    )
    assert encoder.batch_size == batch


def small(image: np.ndarray) -> np.ndarray:
    return image[:8, :8].astype(np.float32)
