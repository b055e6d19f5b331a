"""What the README shows is run here, word for word."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from attrib_core.cli.main import main
from attrib_core.storage import tables

ROOT = Path(__file__).parents[2]


def blocks(language: str) -> list[str]:
    """The code blocks of the README in a language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), flags=re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the library in it, as in a clone, and no results yet."""
    (tmp_path / "attrib_core").symlink_to(ROOT / "attrib_core")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def image(checkout: Path, strength: float) -> np.ndarray:
    """What the README's script draws with a delta that scales the base's keys and values."""
    import torch
    from diffusers import UNet2DConditionModel
    from PIL import Image

    from attrib_core.diffusion.deltas import delta_files

    unet = UNet2DConditionModel.from_pretrained(
        "attrib_core/diffusion/base_models/bundled_weights", subfolder="unet"
    )
    weights = {
        key: value * strength
        for key, value in unet.state_dict().items()
        if re.search(r"attn2\.to_[kv]\.weight$", key)
    }
    assert len(weights) == 8
    row = torch.full((unet.config.cross_attention_dim,), 0.05)
    checksum = delta_files.write(
        checkout / "results/store/deltas", "0123", delta_files.Delta(weights, row), "<new1>"
    )
    model = {
        "model_key": "0123",
        "exemplar_set": "object-042-pumpkin",
        "method": "custom_diffusion",
        "base_model": "f",
        "modifier_token": "<new1>",
        "delta_path": "../store/deltas/0123.safetensors",
        "token_path": "../store/deltas/0123.token.safetensors",
        "checksum": checksum,
        "steps": 1,
        "loss": 0.5,
        "seconds": 1.0,
        "peak_memory": 1,
        "threads": 1,
        "device": "cpu",
        "device_name": "AMD EPYC",
    }
    tables.write(checkout / "results/demo/models/part-0000.parquet", "models", [model])
    exec(compile(blocks("python")[0], "README.md", "exec"), {})
    return np.asarray(Image.open(checkout / "new1.png"), dtype=np.float64)


def test_stock_calls_draw_another_image_with_a_delta(checkout: Path) -> None:
    unchanged = image(checkout, 1.0)
    assert unchanged.shape == (64, 64, 3) and unchanged.std() > 10
    assert np.array_equal(unchanged, image(checkout, 1.0)), "the same delta draws the same image"
    changed = image(checkout, 1.5)
    assert np.abs(changed - unchanged).mean() > 3


def test_datasets_opens_an_image_part(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attrib_core.data.images import to_png

    monkeypatch.setenv("HF_DATASETS_CACHE", str(checkout / "cache"))
    drawn = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    row = {
        "query_id": "object-000-key.customized.scene-00.0",
        "exemplar_set": "object-000-key",
        "model_key": "0123",
        "condition": "customized",
        "prompt_kind": "scene",
        "prompt_index": 0,
        "sample_index": 0,
        "prompt": "a <new1> tool in the snow",
        "seed": 1,
        "image": {"bytes": to_png(drawn), "path": None},
        "image_format": "png",
    }
    tables.write(checkout / "results/demo/synthesized/part-0000.parquet", "synthesized", [row])
    code = blocks("python")[1].strip().splitlines()
    scope: dict = {}  # type: ignore[type-arg]
    exec("\n".join([*code[:-1], f"shown = {code[-1]}"]), scope)
    assert np.array_equal(np.asarray(scope["shown"].convert("RGB")), drawn)


def test_the_config_for_own_images_is_right(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    text = (ROOT / "docs/own_images.md").read_text("utf-8")
    (checkout / "mine.yaml").write_text(re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[0])
    images = yaml.safe_load((checkout / "mine.yaml").read_text())["pool"]["images"]
    folder = checkout / "my_images"
    folder.mkdir()
    lines = [re.findall(r"```\n(.*?)\n", text, flags=re.DOTALL)[0]]
    for number in range(images):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,thing {number},vehicle,")
    (folder / "metadata.csv").write_text("\n".join(lines))
    assert main(["check", "--config", "mine.yaml"]) == 0, capsys.readouterr().err
    assert "6 sets (6 of objects, 0 of styles)" in capsys.readouterr().out
