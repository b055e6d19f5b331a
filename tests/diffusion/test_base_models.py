"""Base models: the description of a folder without loading it, and errors for a broken one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.diffusion.base_models import bundled
from attrib_core.diffusion.pipeline import components, description
from tests.diffusion import diffusion_fixtures as fixtures


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixtures.save_base(
        tmp_path_factory.mktemp("base") / "tiny", held_out='{"subjects": ["cat"], "styles": ["op art"]}'
    )


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "base"))


def test_a_folder_is_described(folder: Path) -> None:
    base = families.load("base_models", "folder", {"path": str(folder)})
    assert base.resolution == fixtures.SIDE
    assert base.prediction_type == "v_prediction"
    assert base.held_out == {"subjects": ["cat"], "styles": ["op art"], "source": None}


def test_the_bundled_base_model_has_no_path_of_the_machine_it_was_trained_on() -> None:
    for path in bundled.FOLDER.rglob("*.json"):
        assert "_name_or_path" not in json.loads(path.read_text("utf-8")), path
    assert families.load("base_models", "bundled", {}).held_out["source"] == "openmoji"


def test_the_files_of_a_base_model_are_listed(folder: Path) -> None:
    listed = families.module("base_models", "folder").files(path=str(folder))
    assert folder / "unet" / "diffusion_pytorch_model.safetensors" in listed
    assert len(listed) == sum(path.is_file() for path in folder.rglob("*"))


def test_the_description_survives_its_file(folder: Path, tmp_path: Path) -> None:
    base = description.describe(folder)
    path = tmp_path / "base_model.json"
    path.write_text(json.dumps(base.as_json()))
    assert description.read(path) == base


def test_a_base_model_without_a_list_of_what_it_never_saw(folder: Path) -> None:
    (folder / "held_out.json").unlink()
    assert description.describe(folder).held_out is None
    assert description.describe(folder).as_json()["held_out"] is None


def test_the_fingerprint_depends_on_bytes_not_on_the_path(original: Path, folder: Path) -> None:
    assert description.describe(original).fingerprint == description.describe(folder).fingerprint
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert description.describe(original).fingerprint != description.describe(folder).fingerprint


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_weights_are_named(folder: Path, part: str) -> None:
    (weights,) = (folder / part).glob("*.safetensors")
    weights.unlink()
    with pytest.raises(InputError, match=rf"{weights}: no such file.*weights of its {part}") as caught:
        description.describe(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_index_is_no_base_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{tmp_path}/model_index.json: no such file"):
        families.load("base_models", "folder", {"path": str(tmp_path)})


def test_the_bundled_weights_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "bundled_weights")
    with pytest.raises(InputError, match=r"bundled_weights/model_index.json: no such file"):
        families.load("base_models", "bundled", {})


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("held_out.json", '{"subjects": ["cat"]}', "key 'styles' is None, expected a list of names"),
        (
            "held_out.json",
            '{"subjects": [], "styles": [], "source": 3}',
            "key 'source' is 3, expected the name",
        ),
        ("held_out.json", "[1", "not readable as JSON"),
        ("unet/config.json", '{"sample_size": [8, 4]}', r"sample_size is \[8, 4\], expected one number"),
        ("unet/config.json", "[]", "holds a list, expected a JSON object"),
        ("scheduler/scheduler_config.json", '{"prediction_type": "flow"}', "prediction_type is 'flow'"),
    ],
)
def test_a_broken_file_is_named(folder: Path, file: str, content: str, message: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(InputError, match=rf"{folder}/{file}.*{message}"):
        description.describe(folder)


def test_latents_are_not_clipped_whatever_scheduler_the_folder_names(folder: Path) -> None:
    """Configs of other schedulers than DDIM need not say `clip_sample`, whose default in DDIM is to clip."""
    (folder / "scheduler" / "scheduler_config.json").write_text(
        '{"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",'
        ' "num_train_timesteps": 1000}'
    )
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"][1] = "PNDMScheduler"
    (folder / "model_index.json").write_text(json.dumps(index))
    loaded = components.load(description.describe(folder), "cpu")
    assert not loaded.scheduler.config.clip_sample
    loaded.scheduler.set_timesteps(10)
    timestep, noise = loaded.scheduler.timesteps[4], torch.zeros(1, 4, 8, 8)
    alpha = loaded.scheduler.alphas_cumprod[timestep]
    guessed = loaded.scheduler.step(noise, timestep, torch.full_like(noise, 3.0)).pred_original_sample
    torch.testing.assert_close(guessed, torch.full_like(noise, 3.0) / alpha.sqrt())


def test_weights_that_do_not_fit_are_one_line(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    config = json.loads(path.read_text())
    config["down_block_types"] = ["DownBlock2D", "NoSuchBlock"]
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="diffusers cannot load it") as caught:
        components.load(description.describe(folder), "cpu")
    assert "\n" not in str(caught.value)


def test_the_script_writes_the_description(folder: Path, tmp_path: Path, run_script) -> None:  # type: ignore[no-untyped-def]
    output = tmp_path / "run" / "base_model.json"
    run_script(
        "base_model",
        output={"description": str(output)},
        params={"settings": {"family": "folder", "path": str(folder)}, "code": "x"},
    )
    assert description.read(output) == description.describe(folder)


def test_describing_needs_no_torch() -> None:
    program = (
        "import sys; from attrib_core.common import families;"
        " [families.module('base_models', n) for n in families.names('base_models')];"
        " [families.module('customizers', n) for n in families.names('customizers')];"
        " import attrib_core.diffusion.pipeline.description;"
        " print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_tokens(folder: Path) -> None:
    loaded = components.load(description.describe(folder), "cpu")
    more = components.with_token(loaded, "<new1>")
    assert more.token == len(loaded.tokenizer) == len(more.tokenizer) - 1
    ids = components.tokenize(more, ["a <new1> fruit", "a fruit"])
    assert ids.shape == (2, 24)
    assert (ids == more.token).sum(dim=1).tolist() == [1, 0]
    with pytest.raises(InputError, match="modifier token '<new1>': the tokenizer .* already has it"):
        components.with_token(more, "<new1>")
    with pytest.raises(InputError, match="modifier token 'fruit': the tokenizer .* already has it"):
        components.with_token(loaded, "fruit")
    with pytest.raises(InputError, match="prompt 'fruit fruit.*: 32 tokens, the base model reads 24"):
        components.tokenize(loaded, [" ".join(["fruit"] * 30)])
