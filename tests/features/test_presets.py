"""Presets of encoders: what they stand for, what is told of them, and the published benchmark's at full size."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attrib_core.common import families, hashing
from attrib_core.common.errors import InputError
from attrib_core.config.load import load_config, plain

PRESETS = families.presets("encoders")
PUBLISHED = ["abc-clip", "abc-dino", "abc-moco", "abc-vit", "abc-sscd"]
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def configured(section: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = plain(load_config({"encoders": {"x": section}}))["encoders"]["x"]
    return found


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_says_all_that_is_asked_of_it_and_its_options_are_those_of_its_family(name):
    preset = PRESETS[name]
    assert set(preset) == {"family", "about", "dim", "licence", "source", "revision", "options"}
    assert all(
        preset[key] for key in ("about", "licence", "source", "revision")
    )  # "not known" is said, not left out
    given = {"weights": "w.pt"} | ({"sha256": "0" * 64} if preset["family"] == "torchscript" else {})
    section = configured({"preset": name} | given)
    assert section["family"] == preset["family"] and section["weights"] == "w.pt"
    assert all(section[key] == value for key, value in (preset["options"] | given).items())


def test_the_published_five_are_prepared_as_their_code_does_it():
    """Sizes, resampling and normalisation as the fact sheet of the benchmark's code has them."""
    expected = {  # size, resize, interpolation, (mean, std), features
        "abc-clip": (224, None, "bicubic", None, 512),
        "abc-dino": (224, 256, "bicubic", IMAGENET, 768),
        "abc-moco": (224, 256, "bilinear", IMAGENET, 768),
        "abc-vit": (384, None, "bilinear", ([0.5] * 3, [0.5] * 3), 768),
        "abc-sscd": (288, None, "bilinear", IMAGENET, 512),
    }
    assert list(expected) == PUBLISHED
    for name, (size, resize, interpolation, normalised, dim) in expected.items():
        options = PRESETS[name]["options"]
        assert (options["size"], options.get("resize"), options["interpolation"]) == (
            size,
            resize,
            interpolation,
        )
        assert PRESETS[name]["dim"] == dim and options.get("fit", "crop") == "crop"
        if normalised:
            assert (options["mean"], options["std"]) == normalised
    clip = PRESETS["abc-clip"]["options"]
    assert clip["architecture"].endswith("-quickgelu")


@pytest.mark.parametrize("name", [name for name, one in PRESETS.items() if one["family"] == "open_clip"])
def test_presets_of_open_clip_agree_with_the_library(name):
    import open_clip

    options, dim = PRESETS[name]["options"], PRESETS[name]["dim"]
    told = open_clip.get_model_config(options["architecture"])
    assert told["embed_dim"] == dim and told["vision_cfg"]["image_size"] == options["size"]
    repository = options["weights"].removeprefix("hub:")
    stated = [
        open_clip.get_pretrained_cfg(options["architecture"].removesuffix("-quickgelu"), tag)
        for tag in open_clip.list_pretrained_tags_by_model(options["architecture"].removesuffix("-quickgelu"))
    ]
    own = next(one for one in stated if one.get("hf_hub", "").rstrip("/") == repository)
    assert (list(own["mean"]), list(own["std"])) == (options["mean"], options["std"])
    assert own["interpolation"] == options["interpolation"]
    assert own["resize_mode"] == {"crop": "shortest", "squash": "squash"}[options["fit"]]
    assert options["architecture"].endswith("-quickgelu") == bool(own.get("quick_gelu"))


@pytest.mark.parametrize("name", [name for name, one in PRESETS.items() if one["family"] == "timm"])
def test_presets_of_timm_agree_with_the_library(name):
    import timm
    import torch

    options, dim = PRESETS[name]["options"], PRESETS[name]["dim"]
    with torch.device("meta"):
        network = timm.create_model(options["architecture"], pretrained=False)
    assert network.num_features == dim
    if name in ("abc-dino", "abc-vit", "dinov3-small"):
        cfg = network.pretrained_cfg
        assert options["weights"] == f"hub:{cfg['hf_hub_id']}"
        assert (list(cfg["mean"]), list(cfg["std"])) == (options["mean"], options["std"])
        assert cfg["input_size"][-1] == options["size"]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"preset": "abc-clipp"}, r"^encoders.x.preset: no preset 'abc-clipp', did you mean 'abc-clip'"),
        ({"preset": 3}, "^encoders.x.preset: no preset 3"),
        ({"preset": "abc-clip", "family": "timm"}, "^encoders.x.family: 'timm' in addition to a preset"),
        (
            {"preset": "abc-moco"},
            "^encoders.x.weights: preset 'abc-moco' needs the file https://.*pth.tar; fetch",
        ),
        ({"preset": "abc-sscd"}, r"disc_mixup.*; fetch it, and name it here, and set sha256$"),
        ({"preset": "abc-sscd", "weights": "a.pt"}, "^encoders.x.sha256: .* needs this option"),
        ({"preset": "abc-clip", "sise": 3}, "^encoders.x.sise: .*did you mean 'size'"),
        (
            {"family": "fusion", "parts": {"a": {"preset": "abc-dinno"}}},
            "^encoders.x.parts.a.preset: no preset 'abc-dinno', did you mean 'abc-dino'",
        ),
    ],
)
def test_mistakes_with_presets_are_told_when_the_config_is_read(section, words):
    with pytest.raises(InputError, match=words):
        load_config({"encoders": {"x": section}})


def test_what_a_section_says_counts_before_its_preset_in_a_fusion_too():
    part = {"preset": "abc-dino", "weights": "mine.pth", "size": 320, "weight": 2}
    assert configured({"preset": "abc-dino", "size": 320})["size"] == 320
    fused = configured({"family": "fusion", "parts": {"a": part}})["parts"]["a"]
    assert (fused["family"], fused["weights"], fused["size"], fused["weight"]) == ("timm", "mine.pth", 320, 2)
    assert "preset" not in fused


def test_a_preset_that_is_not_in_the_cache_says_what_fetches_it(tmp_path, monkeypatch):
    from huggingface_hub import constants

    from attrib_core.features.embedding import encoder_protocol

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    words = "^encoders.x: weights: 'timm/vit_base_patch16_224.dino' is not in .*`hf download timm/vit_base_patch16_224"
    with pytest.raises(InputError, match=words):
        encoder_protocol.load(configured({"preset": "abc-dino"}), where="encoders.x", device="cpu")


def test_a_preset_whose_weights_a_package_carries_computes():
    from attrib_core.features.embedding import encoder_protocol

    encoder = encoder_protocol.load(
        configured({"preset": "efficientnet-lite0"}), where="encoders.x", device="cpu"
    )
    assert encoder.dim == PRESETS["efficientnet-lite0"]["dim"]
    assert np.isfinite(encoder.encode(eight()[:1])).all()


def eight() -> list[np.ndarray]:
    """Eight images of various sizes, smooth and not."""
    random = np.random.default_rng(0)
    found = []
    for side in ((300, 400), (224, 224), (640, 333), (90, 120), (257, 256), (512, 512), (384, 500), (31, 47)):
        cells = random.integers(0, 256, (side[0] // 10 + 1, side[1] // 10 + 1, 3), dtype=np.uint8)
        found.append(np.asarray(Image.fromarray(cells).resize(side[::-1], Image.Resampling.BICUBIC)))
    return found


def transformed(transform: Any) -> Any:
    import torch

    return torch.stack([transform(Image.fromarray(one)) for one in eight()])


def published_transform(size: int, resize: int, interpolation: str, mean: Any, std: Any) -> Any:
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.Resize(resize, interpolation=transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )


def full_clip(folder: Path) -> tuple[dict[str, Any], Any]:
    import open_clip
    import torch

    model, _, transform = open_clip.create_model_and_transforms("ViT-B-32-quickgelu", load_weights=False)
    torch.save(model.state_dict(), folder / "clip.pt")
    with torch.inference_mode():
        return {"weights": str(folder / "clip.pt")}, model.eval().encode_image(transformed(transform))


def full_timm(folder: Path, architecture: str, transform: Any, wrap: str = "") -> tuple[dict[str, Any], Any]:
    """As the published code takes features: all but the last layer, which becomes the identity."""
    import timm
    import torch

    network = timm.create_model(architecture, pretrained=False)
    state = {f"{wrap}{name}": value.clone() for name, value in network.state_dict().items()}
    if wrap:  # as MoCo v3's checkpoints are: another head, a momentum encoder, and the epoch beside
        state = {name: value for name, value in state.items() if "head" not in name}
        state |= {
            f"{wrap}head.0.weight": torch.ones(8, 768),
            "module.momentum_encoder.cls_token": torch.ones(1),
        }
    torch.save({"state_dict": state, "epoch": 300, "arch": "vit_base"}, folder / "timm.pth.tar")
    network.head = torch.nn.Identity()
    with torch.inference_mode():
        return {"weights": str(folder / "timm.pth.tar")}, network.eval()(transformed(transform))


def full_sscd(folder: Path) -> tuple[dict[str, Any], Any]:
    """ResNet-50, GeM pooling with p = 3, a linear layer to 512 and unit length (Pizzi et al., 2022)."""
    import torch
    import torchvision

    trunk = torchvision.models.resnet50(weights=None)

    class Descriptor(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = torch.nn.Sequential(*list(trunk.children())[:-2])
            self.linear = torch.nn.Linear(2048, 512)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            pooled = self.trunk(images).clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3)
            return torch.nn.functional.normalize(self.linear(pooled))

    network, path = Descriptor().eval(), folder / "sscd.torchscript.pt"
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.zeros(1, 3, 288, 288)).save(str(path))
        expected = network(transformed(published_transform(288, 288, "bilinear", *IMAGENET)))
    return {"weights": str(path), "sha256": hashing.file_digest(path)}, expected


def full_size(name: str, folder: Path) -> tuple[dict[str, Any], Any]:
    """Options that name weights saved by their own library, and that library's features of eight images."""
    halves = ([0.5] * 3, [0.5] * 3)
    if name == "abc-clip":
        return full_clip(folder)
    if name == "abc-sscd":
        return full_sscd(folder)
    architecture = PRESETS[name]["options"]["architecture"]
    transform = {
        "abc-dino": published_transform(224, 256, "bicubic", *IMAGENET),
        "abc-moco": published_transform(224, 256, "bilinear", *IMAGENET),
        "abc-vit": published_transform(384, 384, "bilinear", *halves),
    }[name]
    return full_timm(folder, architecture, transform, "module.base_encoder." if name == "abc-moco" else "")


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_five_at_full_size_are_their_librarys_transform_and_forward(name, tmp_path):
    import torch

    torch.manual_seed(5)
    given, reference = full_size(name, tmp_path)
    family, options = families.split(families.with_preset("encoders", {"preset": name} | given, "x"))
    encoder = families.load("encoders", family, options, device="cpu")
    features = encoder.encode(eight())
    assert encoder.dim == PRESETS[name]["dim"] == features.shape[1]
    expected = reference.numpy()
    assert np.abs(features - expected).max() / np.abs(expected).max() < 1e-5
    assert np.linalg.matrix_rank(features) == 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "siglip", "vit", "dinov2", "dinov3_vit"])
def test_full_architectures_of_transformers_are_its_processor_and_forward(kind, tmp_path):
    """Base size with the library's default config, random weights saved and loaded back by path."""
    import torch
    import transformers

    torch.manual_seed(6)
    shown = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
    model, processor = {
        "clip": lambda: (
            transformers.CLIPModel(transformers.CLIPConfig()),
            transformers.CLIPImageProcessor(),
        ),
        "siglip": lambda: (
            transformers.SiglipModel(transformers.SiglipConfig()),
            transformers.SiglipImageProcessor(),
        ),
        "vit": lambda: (transformers.ViTModel(transformers.ViTConfig()), transformers.ViTImageProcessor()),
        "dinov2": lambda: (
            transformers.Dinov2Model(transformers.Dinov2Config()),
            transformers.BitImageProcessor(**shown),
        ),
        "dinov3_vit": lambda: (
            transformers.DINOv3ViTModel(
                transformers.DINOv3ViTConfig(hidden_size=768, num_attention_heads=12, intermediate_size=3072)
            ),
            transformers.DINOv3ViTImageProcessor(),
        ),
    }[kind]()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    batch = processor(images=[Image.fromarray(one) for one in eight()], return_tensors="pt")
    with torch.inference_mode():
        if kind in ("clip", "siglip"):
            found = model.eval().get_image_features(**batch)
            expected = (found if isinstance(found, torch.Tensor) else found.pooler_output).numpy()
        else:
            expected = model.eval()(**batch).last_hidden_state[:, 0].numpy()
    encoder = families.load("encoders", "transformers", {"weights": str(tmp_path)}, device="cpu")
    features = encoder.encode(eight())
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() / np.abs(expected).max() < 1e-5
