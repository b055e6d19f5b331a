"""Values of another type in a base model's JSON files: `check` and `describe` refuse each in one line with the key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from attrib_core.common.errors import InputError
from attrib_core.config import preflight
from attrib_core.diffusion.pipeline import description, networks
from tests.diffusion import diffusion_families_fixtures as other
from tests.diffusion import diffusion_fixtures as fixtures

ODD: list[Any] = [[], {}, [[]], "", None, True, -1, 1.5, {"a": [1]}, [[64], [64]], ["a\nb"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixtures.save_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def xl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return other.save_xl(tmp_path_factory.mktemp("base") / "xl")


def refused(folder: Path) -> str:
    """What `describe` says of a folder; `check` says the same, and both in one line."""
    with pytest.raises(InputError) as described:
        description.describe(folder)
    with pytest.raises(InputError) as checked:
        list(preflight.open_all({"base_model": {"family": "folder", "path": str(folder)}, "encoders": {}}))
    found = str(described.value)
    assert found in str(checked.value) and "\n" not in str(checked.value)
    return found


def with_text(folder: Path, file: str, text: str | bytes) -> str:
    """What is said of a folder while one of its files has another text."""
    path = folder / file
    before = path.read_bytes()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        return refused(folder)
    finally:
        path.write_bytes(before)


def with_value(folder: Path, file: str, key: str, value: Any) -> str:
    return with_text(folder, file, json.dumps(json.loads((folder / file).read_text()) | {key: value}))


@pytest.mark.parametrize("value", ODD, ids=str)
@pytest.mark.parametrize(
    ("file", "key", "expected"),
    [
        ("model_index.json", "_class_name", "expected one of StableDiffusionPipeline"),
        ("unet/config.json", "sample_size", "expected one number (square images)"),
        ("vae/config.json", "block_out_channels", "expected a list of at most"),
        ("scheduler/scheduler_config.json", "prediction_type", "expected 'epsilon' or 'v_prediction'"),
    ],
)
def test_values_of_another_type(file: str, key: str, expected: str, value: Any, folder: Path) -> None:
    if key == "block_out_channels" and isinstance(value, list) and value:
        value = "a list"  # `check` finds what is wrong within a list as it builds the network
    said = with_value(folder, file, key, value)
    assert said.startswith(f"{folder}/{file}: {key} is ") and expected in said


@pytest.mark.parametrize("value", ODD, ids=str)
@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("unet/config.json", "addition_embed_type"),
        ("unet/config.json", "cross_attention_dim"),
        ("unet/config.json", "projection_class_embeddings_input_dim"),
        ("unet/config.json", "addition_time_embed_dim"),
        ("text_encoder/config.json", "hidden_size"),
        ("text_encoder_2/config.json", "projection_dim"),
    ],
)
def test_values_of_another_type_in_sdxl(file: str, key: str, value: Any, xl_folder: Path) -> None:
    said = with_value(xl_folder, file, key, value)
    assert said.startswith(f"{xl_folder}/{file}: {key} is ") and ("expected" in said or " wide" in said)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[" * 100_000, "not readable as JSON: nested too deep"),
        ('{"a": ' * 100_000, "not readable as JSON: nested too deep"),
        ("[1", "not readable as JSON"),
        ("3", "holds a int, expected a JSON object"),
        (b"\xff\xfe{\0}\0", "saved as UTF-16; save it as UTF-8"),
        (b"\xef\xbb\xbf{}", "begins with a byte order mark; save it as UTF-8 without one"),
        (b'{"a": "\xe9"}', "not UTF-8 at byte 7"),
    ],
    ids=lambda text: str(text)[:12],
)
@pytest.mark.parametrize("file", ["model_index.json", "vae/config.json", "scheduler/scheduler_config.json"])
def test_texts_that_are_no_json(file: str, text: str | bytes, expected: str, folder: Path) -> None:
    said = with_text(folder, file, text)
    assert said.startswith(f"{folder}/{file}: ") and expected in said


def test_a_folder_or_nothing_in_place_of_a_file(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = copy / "vae" / "config.json"
    config.unlink()
    assert refused(copy) == f"{config}: no such part of a base model in diffusers layout"
    config.mkdir()
    assert refused(copy).startswith(f"{config}: Is a directory; expected a part of a base model")


def test_values_that_are_sound(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    path = copy / "unet" / "config.json"
    values = json.loads(path.read_text())
    side = values["sample_size"]
    for size in (side, [side, side]):
        path.write_text(json.dumps(values | {"sample_size": size}))
        assert description.describe(copy).resolution == fixtures.SIDE
    path = copy / "vae" / "config.json"
    values = json.loads(path.read_text())
    blocks = values.pop("block_out_channels")
    path.write_text(json.dumps(values))
    assert description.resolution(copy) == fixtures.SIDE // 2 ** (len(blocks) - 1)
    path = copy / "text_encoder" / "config.json"
    values = json.loads(path.read_text())
    assert description.text_widths(copy) == [values.pop("hidden_size")]
    path.write_text(json.dumps(values))
    assert description.text_widths(copy) == [512]


@pytest.mark.parametrize("value", [None, 3, ["a"]], ids=str)
def test_the_description_of_a_run_with_another_path(value: Any, tmp_path: Path) -> None:
    values = {
        "path": value,
        "fingerprint": "f",
        "resolution": 8,
        "prediction_type": "epsilon",
        "held_out": None,
    }
    (tmp_path / "base_model.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"base_model.json: no description of a base model, path is .*; run"):
        description.read(tmp_path / "base_model.json")


@pytest.mark.parametrize("value", ["77", [77], 0, 1e30], ids=str)
def test_lengths_of_prompts_of_another_type(value: Any, folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    path = copy / "tokenizer" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": value}))
    with pytest.raises(
        InputError, match=r"tokenizer: transformers cannot read|model_max_length is .*, expected the"
    ):
        networks.check_small_parts(copy)
