"""Encoders of full size, with random weights, give the features of their libraries (slow)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attrib_core.common import families, hashing

PRESETS = families.presets("encoders")
PUBLISHED = ["abc-clip", "abc-dino", "abc-moco", "abc-vit", "abc-sscd"]
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def images_of_eight_sizes() -> list[np.ndarray]:
    """Eight images of various sizes, smooth and not."""
    random = np.random.default_rng(0)
    images = []
    for side in ((300, 400), (224, 224), (640, 333), (90, 120), (257, 256), (512, 512), (384, 500), (31, 47)):
        cells = random.integers(0, 256, (side[0] // 10 + 1, side[1] // 10 + 1, 3), dtype=np.uint8)
        images.append(np.asarray(Image.fromarray(cells).resize(side[::-1], Image.Resampling.BICUBIC)))
    return images


def transformed(transform: Any) -> Any:
    import torch

    return torch.stack([transform(Image.fromarray(one)) for one in images_of_eight_sizes()])


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
    """Features as in the published code: the last layer is replaced by the identity."""
    import timm
    import torch

    network = timm.create_model(architecture, pretrained=False)
    state = {f"{wrap}{name}": value.clone() for name, value in network.state_dict().items()}
    if wrap:  # as in checkpoints of MoCo v3: another head, a momentum encoder, and the epoch
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
    """ResNet-50, GeM pooling with p = 3, a linear layer to 512, normalised (Pizzi et al., 2022)."""
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
    """Options with weights saved by their own library, and that library's features of the images."""
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
def test_the_published_five_at_full_size_equal_their_libraries(name, tmp_path):
    import torch

    torch.manual_seed(5)
    options, reference = full_size(name, tmp_path)
    family, options = families.split(families.with_preset("encoders", {"preset": name} | options, "x"))
    encoder = families.load("encoders", family, options, device="cpu")
    features = encoder.encode(images_of_eight_sizes())
    assert encoder.dim == PRESETS[name]["dim"] == features.shape[1]
    expected = reference.numpy()
    assert np.abs(features - expected).max() / np.abs(expected).max() < 1e-5
    assert np.linalg.matrix_rank(features) == 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "siglip", "vit", "dinov2", "dinov3_vit"])
def test_full_size_transformers_features_equal_the_librarys(kind, tmp_path):
    """Base size with the library's default config; random weights are saved and loaded by path."""
    import torch
    import transformers

    torch.manual_seed(6)
    crop = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
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
            transformers.BitImageProcessor(**crop),
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
    batch = processor(images=[Image.fromarray(one) for one in images_of_eight_sizes()], return_tensors="pt")
    with torch.inference_mode():
        if kind in ("clip", "siglip"):
            output = model.eval().get_image_features(**batch)
            expected = (output if isinstance(output, torch.Tensor) else output.pooler_output).numpy()
        else:
            expected = model.eval()(**batch).last_hidden_state[:, 0].numpy()
    encoder = families.load("encoders", "transformers", {"weights": str(tmp_path)}, device="cpu")
    features = encoder.encode(images_of_eight_sizes())
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() / np.abs(expected).max() < 1e-5
