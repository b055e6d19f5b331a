"""The encoder family `transformers`: features equal those of the library; folders that do not fit are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attrib_core.common.errors import InputError
from attrib_core.features.encoders.transformers import files
from tests.features.encoders_fixtures import tiny_transformers

KINDS = ["clip", "siglip", "vit", "dinov2", "dinov2_with_registers", "dinov3_vit"]


def images() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((40, 32), (51, 77), (64, 64))]


def reference(path: Path, kind: str) -> np.ndarray:
    """Features by the library alone, under their documented names."""
    import torch
    import transformers

    processor = transformers.AutoImageProcessor.from_pretrained(path, backend="pil")
    batch = processor(images=[Image.fromarray(one) for one in images()], return_tensors="pt")
    model = transformers.AutoModel.from_pretrained(path).eval()
    with torch.inference_mode():
        if kind in ("clip", "siglip"):
            output = model.get_image_features(**batch)
            features = output if isinstance(output, torch.Tensor) else output.pooler_output
        else:
            features = model(**batch).last_hidden_state[:, 0]
    return np.asarray(features.numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_features_equal_the_librarys(load_encoder, weights_folder, kind):
    path = tiny_transformers(weights_folder, kind)
    encoder = load_encoder("transformers", weights=str(path))
    assert np.allclose(encoder.encode(images()), reference(path, kind), rtol=1e-5, atol=1e-5)
    assert encoder.dim == {"clip": 16}.get(kind, 32)


def test_identity_and_fingerprint_cover_weights_config_and_processor(load_encoder, weights_folder, tmp_path):
    path = shutil.copytree(tiny_transformers(weights_folder), tmp_path / "model")
    before = load_encoder("transformers", weights=str(path)).identity
    assert set(before["files_sha256"]) == {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert sorted(one.name for one in files(weights=str(path))) == sorted(before["files_sha256"])
    config = json.loads((path / "preprocessor_config.json").read_text())
    (path / "preprocessor_config.json").write_text(json.dumps(config | {"image_mean": [0.1, 0.2, 0.3]}))
    assert load_encoder("transformers", weights=str(path)).identity != before


def changed_copy(weights_folder: Path, target: Path, change: Any) -> str:
    path = shutil.copytree(tiny_transformers(weights_folder), target)
    change(path)
    return str(path)


def without_a_tensor(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(path / "model.safetensors")
    name = next(name for name in state if "layernorm" in name or "query" in name or "q_proj" in name)
    save_file({key: value for key, value in state.items() if key != name}, path / "model.safetensors")


def with_config(**values: Any) -> Any:
    def change(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | values))

    return change


def remove(name: str) -> Any:
    return lambda path: (path / name).unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_tensor, "does not fit ViTModel in 1 tensors, the first: .* missing"),
        (with_config(hidden_size=64), "(cannot be opened by ViTModel|does not fit ViTModel)"),
        (with_config(model_type="vitt"), "is a model of type 'vitt', did you mean 'vit'"),
        (
            with_config(model_type="siglip2"),
            "SigLIP 2 of flexible resolution.*choose one of fixed resolution",
        ),
        (lambda path: (path / "config.json").write_text("[]"), "config.json names no model_type"),
        (remove("config.json"), "weights: no folder .* with a file config.json"),
        (remove("preprocessor_config.json"), "lacks preprocessor_config.json|opens no image processor"),
        (remove("model.safetensors"), "cannot be opened|lacks model.safetensors"),
        (
            lambda path: (path / "model.safetensors").write_bytes(b"x" * 40),
            "weights: .*(cannot be opened|damaged)",
        ),
        (with_config(image_size=64), "(does not fit|refuses images|cannot be opened)"),
    ],
)
def test_folders_without_a_fitting_model_are_refused(load_encoder, weights_folder, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        load_encoder("transformers", weights=changed_copy(weights_folder, tmp_path / "model", change))
