"""The encoder family `text`: features equal those of each library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.config.load import load_config, plain
from attrib_core.diffusion.base_models import bundled
from attrib_core.features.encoders import fusion
from attrib_core.features.encoders.text import encoder as text
from tests.features.encoders_fixtures import (
    TINY_CLIP,
    tiny_open_clip,
    tiny_transformers,
)

BUNDLED = {"family": "bundled"}
TEXTS = ["an owl in the snow", "", "a train", "a cat beside a house and " * 20]


def of_folder(path: Path, **options: Any) -> Any:
    return families.load("encoders", "text", {"weights": str(path)} | options, device="cpu")


def close(found: np.ndarray, expected: Any) -> bool:
    return bool(np.allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5))


def test_a_base_models_text_encoder_gives_its_pooled_state(load_encoder):
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(bundled.FOLDER / "tokenizer")
    model = CLIPTextModel.from_pretrained(bundled.FOLDER / "text_encoder").eval()
    inputs = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).pooler_output
    encoder = load_encoder("text")
    assert encoder.reads == "text" and encoder.dim == expected.shape[1] == 96
    assert close(encoder.encode(TEXTS), expected)
    assert families.dim({"family": "text", "base_model": BUNDLED}, "encoders.x") == 96


def test_sdxls_second_text_encoder_gives_its_projected_state(tmp_path):
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    shutil.copytree(bundled.FOLDER, tmp_path / "xl")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"vocab_size": 2196, "bos_token_id": 2194, "eos_token_id": 2, "pad_token_id": 2195}
    torch.manual_seed(5)
    own = CLIPTextConfig(**sizes, **ids, max_position_embeddings=24, projection_dim=10)
    model = CLIPTextModelWithProjection(own).eval()
    model.save_pretrained(tmp_path / "xl" / "text_encoder_2")
    CLIPTextModel(own).save_pretrained(tmp_path / "xl" / "text_encoder")
    shutil.copytree(bundled.FOLDER / "tokenizer", tmp_path / "xl" / "tokenizer_2")
    index = json.loads((tmp_path / "xl" / "model_index.json").read_text())
    (tmp_path / "xl" / "model_index.json").write_text(
        json.dumps(index | {"_class_name": "StableDiffusionXLPipeline"})
    )
    base = {"family": "folder", "path": str(tmp_path / "xl")}
    encoder = families.load("encoders", "text", {"base_model": base}, device="cpu")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "xl" / "tokenizer_2")
    inputs = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    with torch.inference_mode():
        assert close(encoder.encode(TEXTS), model(inputs.input_ids).text_embeds)
    assert encoder.dim == 10
    assert {path.parent.name for path in text.files(base_model=base, weights=None, architecture=None)} == {
        "xl", "text_encoder_2", "tokenizer_2",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_transformers_features_equal_the_librarys(weights_folder, kind):
    import torch
    import transformers

    path = tiny_transformers(weights_folder, kind)
    tokenizer, model = (
        library.from_pretrained(path) for library in (transformers.AutoTokenizer, transformers.AutoModel)
    )
    inputs = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=12, return_tensors="pt")
    if kind == "siglip":
        del inputs["attention_mask"]  # SigLIP is trained on padded texts without a mask
    with torch.inference_mode():
        found = model.eval().get_text_features(**inputs)
        expected = found if isinstance(found, torch.Tensor) else found.pooler_output
    encoder = of_folder(path)
    assert close(encoder.encode(TEXTS), expected)
    assert encoder.dim == {"clip": 16, "siglip": 32}[kind]


def test_open_clip_features_equal_the_librarys(weights_folder):
    import open_clip
    import torch

    model, _, _ = open_clip.create_model_and_transforms(
        TINY_CLIP, pretrained=str(tiny_open_clip(weights_folder))
    )
    with torch.inference_mode():
        expected = model.eval().encode_text(open_clip.get_tokenizer(TINY_CLIP)(TEXTS))
    encoder = of_folder(tiny_open_clip(weights_folder), architecture=TINY_CLIP)
    assert close(encoder.encode(TEXTS), expected) and encoder.dim == 24
    assert encoder.identity["architecture"] == TINY_CLIP


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["ViT-B-32-quickgelu", "coca_ViT-B-32"])
def test_full_size_open_clip_features_equal_the_librarys(tmp_path, architecture):
    import open_clip
    import torch

    torch.manual_seed(6)
    model = open_clip.create_model(architecture, load_weights=False).eval()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    with torch.inference_mode():
        expected = model.encode_text(open_clip.get_tokenizer(architecture)(TEXTS), normalize=False)
    found = of_folder(tmp_path / "w.pt", architecture=architecture).encode(TEXTS)
    assert close(found, expected)


def test_the_image_tower_is_not_needed(weights_folder, tmp_path):
    import torch

    state = torch.load(tiny_open_clip(weights_folder), weights_only=True)
    kept = {f"module.{name}": value for name, value in state.items() if not name.startswith("visual.")}
    torch.save(kept, tmp_path / "tower.pt")
    found = of_folder(tmp_path / "tower.pt", architecture=TINY_CLIP, prefix="module.").encode(TEXTS)
    assert np.array_equal(
        found, of_folder(tiny_open_clip(weights_folder), architecture=TINY_CLIP).encode(TEXTS)
    )
    del kept["module.text_projection"]
    torch.save(kept, tmp_path / "tower.pt")
    with pytest.raises(
        InputError, match="does not fit the network in 1 tensors, .*: text_projection missing"
    ):
        of_folder(tmp_path / "tower.pt", architecture=TINY_CLIP, prefix="module.")


def configured(**options: Any) -> dict[str, Any]:
    found: dict[str, Any] = plain(load_config({"encoders": {"x": {"family": "text"} | options}}))
    return dict(found["encoders"]["x"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "encoders.x.weights: null; name weights, or a base_model"),
        ({"base_model": BUNDLED, "weights": "w"}, "encoders.x.base_model: given with weights"),
        ({"weights": "w", "prefix": "module."}, "encoders.x.prefix: 'module.', but architecture is null"),
        ({"base_model": {"path": "x"}}, "encoders.x.base_model.family: this key is needed"),
        (
            {"base_model": {"family": "bundle"}},
            "encoders.x.base_model.family: no family 'bundle', did you mean",
        ),
    ],
)
def test_options_that_name_no_tower_are_refused_when_the_config_is_read(options, message):
    with pytest.raises(InputError, match=message):
        configured(**options)


def test_defaults_are_filled_in():
    assert configured(base_model=BUNDLED)["base_model"] == BUNDLED
    assert configured(weights="w")["architecture"] is None


def test_models_and_tokenizers_that_do_not_fit_are_refused(weights_folder, tmp_path):
    with pytest.raises(InputError, match="a model of type 'vit', choose one of 'clip'"):
        of_folder(with_tokenizer(tiny_transformers(weights_folder, "vit"), tmp_path / "vit"))
    bare = shutil.copytree(tiny_transformers(weights_folder, "clip"), tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    with pytest.raises(InputError, match="bare holds no tokenizer, expected one of tokenizer.json"):
        of_folder(bare)
    with pytest.raises(InputError, match="architecture: 'ViT-B-33' is not in open_clip, did you mean"):
        of_folder(tiny_open_clip(weights_folder), architecture="ViT-B-33")
    with pytest.raises(InputError, match="'xlm-roberta-base' of transformers, which open_clip downloads"):
        of_folder(tiny_open_clip(weights_folder), architecture="xlm-roberta-base-ViT-B-32")


def test_a_tokenizer_of_the_hub_that_is_not_cached_is_not_downloaded(weights_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="'ViT-B-16-SigLIP' is not in the hub's cache .*hf download timm/"):
        of_folder(tiny_open_clip(weights_folder), architecture="ViT-B-16-SigLIP")


def test_a_tokenizer_of_another_model_is_refused(weights_folder, tmp_path):
    path = shutil.copytree(tiny_transformers(weights_folder, "clip"), tmp_path / "clip")
    config = json.loads((path / "tokenizer.json").read_text())
    config["added_tokens"] += [config["added_tokens"][0] | {"id": 2196, "content": "words"}]
    (path / "tokenizer.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="refuses the ids of the tokenizer in .*clip, which has 2197"):
        of_folder(path)


def with_tokenizer(path: Path, target: Path) -> Path:
    shutil.copytree(path, target)
    shutil.copy(bundled.FOLDER / "tokenizer" / "tokenizer.json", target)
    return target


def test_identity_covers_the_tower_and_its_tokenizer_only(load_encoder, weights_folder, tmp_path):
    base = shutil.copytree(bundled.FOLDER, tmp_path / "base")
    options = {"base_model": {"family": "folder", "path": str(base)}}

    def identity() -> dict[str, Any]:
        found: dict[str, Any] = families.load("encoders", "text", options, device="cpu").identity
        return found

    before = identity()
    assert sorted(before["files_sha256"]) == [
        "base/model_index.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    ]
    (base / "unet" / "config.json").write_text((base / "unet" / "config.json").read_text() + "\n")
    assert identity() == before
    (base / "tokenizer" / "tokenizer_config.json").write_text(
        (base / "tokenizer" / "tokenizer_config.json").read_text() + "\n"
    )
    assert identity() != before
    assert text.others(base_model=BUNDLED) == ["base_models/bundled"]
    assert text.others(base_model=None) == []


def test_a_fusion_depends_on_the_files_and_the_code_of_its_text_part():
    parts = {"look": {"family": "pixel"}, "caption": {"family": "text", "base_model": BUNDLED}}
    section = plain(load_config({"encoders": {"x": {"family": "fusion", "parts": parts}}}))["encoders"]["x"]
    _, options = families.split(section)
    assert fusion.others(**options) == ["base_models/bundled"]
    read = {path.relative_to(bundled.FOLDER).as_posix() for path in fusion.files(**options)}
    assert "text_encoder/model.safetensors" in read and "tokenizer/tokenizer.json" in read
    assert not [name for name in read if name.startswith(("unet", "vae"))]
    assert families.dim(section, "encoders.x") == 768 + 96
