"""Presets of encoders: complete, in agreement with their libraries, and checked when the config is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.config.load import load_config, plain
from tests.features.embedding_fixtures import noise_images

PRESETS = families.presets("encoders")
PUBLISHED = ["abc-clip", "abc-dino", "abc-moco", "abc-vit", "abc-sscd"]
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def configured(section: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = plain(load_config({"encoders": {"x": section}}))["encoders"]["x"]
    return found


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_complete_and_its_options_are_those_of_its_family(name):
    preset = PRESETS[name]
    assert set(preset) == {"family", "about", "dim", "licence", "source", "revision", "options"}
    assert all(
        preset[key] for key in ("about", "licence", "source", "revision")
    )  # "not known" is written out, not left empty
    given = {"weights": "w.pt"} | ({"sha256": "0" * 64} if preset["family"] == "torchscript" else {})
    section = configured({"preset": name} | given)
    assert section["family"] == preset["family"] and section["weights"] == "w.pt"
    assert all(section[key] == value for key, value in (preset["options"] | given).items())


def test_the_published_five_have_the_preprocessing_of_the_published_code():
    """Sizes, interpolation and normalisation of the benchmark's code."""
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
    config = open_clip.get_model_config(options["architecture"])
    assert config["embed_dim"] == dim and config["vision_cfg"]["image_size"] == options["size"]
    repository = options["weights"].removeprefix("hub:")
    configs = [
        open_clip.get_pretrained_cfg(options["architecture"].removesuffix("-quickgelu"), tag)
        for tag in open_clip.list_pretrained_tags_by_model(options["architecture"].removesuffix("-quickgelu"))
    ]
    own = next(one for one in configs if one.get("hf_hub", "").rstrip("/") == repository)
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
    ("section", "message"),
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
def test_mistakes_with_presets_are_errors_of_the_config(section, message):
    with pytest.raises(InputError, match=message):
        load_config({"encoders": {"x": section}})


def test_keys_of_a_section_override_its_preset_in_a_fusion_too():
    part = {"preset": "abc-dino", "weights": "mine.pth", "size": 320, "weight": 2}
    assert configured({"preset": "abc-dino", "size": 320})["size"] == 320
    fused = configured({"family": "fusion", "parts": {"a": part}})["parts"]["a"]
    assert (fused["family"], fused["weights"], fused["size"], fused["weight"]) == ("timm", "mine.pth", 320, 2)
    assert "preset" not in fused


def test_for_a_preset_not_in_the_cache_the_error_says_how_to_download_it(tmp_path, monkeypatch):
    from huggingface_hub import constants

    from attrib_core.features.embedding import encoder_protocol

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    message = "^encoders.x: weights: 'timm/vit_base_patch16_224.dino' is not in .*`hf download timm/vit_base"
    with pytest.raises(InputError, match=message):
        encoder_protocol.load(configured({"preset": "abc-dino"}), where="encoders.x", device="cpu")


def test_a_preset_with_weights_in_a_package_computes_features():
    from attrib_core.features.embedding import encoder_protocol

    encoder = encoder_protocol.load(
        configured({"preset": "efficientnet-lite0"}), where="encoders.x", device="cpu"
    )
    assert encoder.dim == PRESETS["efficientnet-lite0"]["dim"]
    assert np.isfinite(encoder.encode(noise_images(1, size=224))).all()
