"""Weights of base models from outside: `check` says what is wrong before any job, and no job invents numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from attrib_core.cli.main import main
from attrib_core.common.errors import InputError
from attrib_core.config import preflight
from attrib_core.diffusion.pipeline import components, description, networks, weight_files
from attrib_core.diffusion.pipeline.unet_weights import UNetWeights
from tests.diffusion import diffusion_families_fixtures as other
from tests.diffusion import diffusion_fixtures as fixtures

PARTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 492265168\n"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixtures.save_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "base"))


def checked(folder: Path) -> list[str]:
    """The lines of `check` about a base model."""
    return list(preflight.open_all({"base_model": {"family": "folder", "path": str(folder)}, "encoders": {}}))


def refused(folder: Path) -> tuple[str, str]:
    """What `check` and what a job say of a base model that both refuse, each in one line."""
    with pytest.raises(InputError) as by_check:
        checked(folder)
    with pytest.raises(InputError) as by_job:
        components.load(description.describe(folder), "cpu")
    found = str(by_check.value), str(by_job.value)
    assert all(str(folder) in one and "\n" not in one for one in found)
    return found


def rewrite(path: Path, change: Callable[[Tensors], Any]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def configure(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def state(folder: Path) -> Tensors:
    loaded = components.load(description.describe(folder), "cpu")
    modules = {"unet": loaded.unet, "vae": loaded.vae, "text": loaded.text_encoder}
    return {
        f"{name}.{key}": value for name, one in modules.items() for key, value in one.state_dict().items()
    }


def same(first: Tensors, second: Tensors) -> bool:
    return set(first) == set(second) and all(torch.equal(first[key], second[key]) for key in second)


def test_a_sound_base_model(folder: Path) -> None:
    lines = checked(folder)
    size = sum(
        one.numel() * 4 for part, file in PARTS.items() for one in load_file(folder / part / file).values()
    )
    assert lines[1:] == [f"base model weights: 3 files, {size / 1e9:.2f} GB read once, no NaN"]
    assert sum(weight_files.check_numbers(folder / part / file) for part, file in PARTS.items()) == size


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(POINTER), "it is a Git LFS pointer"),
        (lambda path: path.write_bytes(b"<!DOCTYPE html><html>"), "it is an HTML page"),
        (lambda path: path.write_bytes(b""), "it is an empty file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "it was cut off, as by a download"),
        (lambda path: path.write_bytes(path.read_bytes() + b"12345"), "5 more than its tensors"),
        (lambda path: path.rename(path.with_suffix(".fp16.safetensors")), "in full precision"),
        (
            lambda path: path.rename(path.with_suffix(".bin")),
            ".bin, but the base model lacks the weights of its",
        ),
    ],
)
def test_damaged_files(part: str, damage: Callable[[Path], Any], message: str, folder: Path) -> None:
    path = folder / part / PARTS[part]
    damage(path)
    for said in refused(folder):
        assert message in said and str(path) in said


def drop_first(tensors: Tensors) -> None:
    tensors.pop(min(tensors))


def cut_first(tensors: Tensors) -> None:
    tensors[min(tensors)] = tensors[min(tensors)][:3].clone()


def rename_all(tensors: Tensors) -> None:
    for key in list(tensors):
        tensors[f"model.{key}"] = tensors.pop(key)


def nan_in_first(tensors: Tensors) -> None:
    tensors[min(tensors)].view(-1)[1] = float("nan")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("change", "by_check", "by_job"),
    [
        (drop_first, "lacks 1 of the", "lacks 1 tensors of"),
        (cut_first, "has shape", "cannot load it as"),
        (rename_all, "weights of another network, or converted with other names", "lacks"),
        (nan_in_first, "has 1 numbers that are NaN or infinite", "has 1 numbers that are NaN or infinite"),
    ],
)
def test_tensors_that_no_network_has(
    part: str, change: Callable[[Tensors], Any], by_check: str, by_job: str, folder: Path
) -> None:
    rewrite(folder / part / PARTS[part], change)
    said = refused(folder)
    assert by_check in said[0] and by_job in said[1] and all(f"{folder}/{part}" in one for one in said)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("unet/config.json", {"down_block_types": ["Nothing", "Nothing"]}, "unet"),
        ("unet/config.json", {"block_out_channels": [64, 64]}, "unet"),
        ("text_encoder/config.json", {"hidden_size": "x"}, "text_encoder"),
        (
            "scheduler/scheduler_config.json",
            {"beta_schedule": "weird"},
            "no noise schedule can be built of it: weird",
        ),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "Foo"},
            "_class_name is 'Foo', which diffusers does not",
        ),
        (
            "scheduler/scheduler_config.json",
            {"num_train_timesteps": "x"},
            "num_train_timesteps is 'x', expected a whole number",
        ),
        ("scheduler/scheduler_config.json", {"beta_end": 7.0}, "schedule has NaN or infinite numbers"),
        ("model_index.json", {"unet": ["diffusers", "NoSuchNetwork"]}, "expected a library (diffusers or"),
        ("model_index.json", {"unet": ["mine", "UNet"]}, "'unet' is ['mine', 'UNet'], expected a library"),
        ("model_index.json", {"vae": None}, "'vae' is None, expected a library"),
    ],
)
def test_configurations_that_build_nothing(
    file: str, values: dict[str, Any], message: str, folder: Path
) -> None:
    configure(folder / file, **values)
    for said in refused(folder):
        assert message in said


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            shutil.rmtree,
            "no tokenizer.json, or vocab.json and merges.txt; the base model lacks its tokenizer",
        ),
        (lambda place: (place / "tokenizer.json").write_text("{}"), "transformers cannot read the tokenizer"),
        (lambda place: (place / "tokenizer_config.json").unlink(), "model_max_length is"),
    ],
)
def test_broken_tokenizers(damage: Callable[[Path], Any], message: str, folder: Path) -> None:
    """transformers makes an empty tokenizer of a folder without files."""
    damage(folder / "tokenizer")
    for said in refused(folder):
        assert message in said


def split(path: Path) -> list[str]:
    """Save the tensors of a file in two shards with an index, next to it; returns the names of the shards."""
    tensors = load_file(path)
    names = [f"{path.stem}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    placed = {key: names[number % 2] for number, key in enumerate(sorted(tensors))}
    for name in names:
        shard = {key: tensors[key] for key in tensors if placed[key] == name}
        save_file(shard, path.with_name(name), {"format": "pt"})
    index = path.with_name(f"{path.name}.index.json")
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": placed}))
    return names


@pytest.mark.parametrize("part", PARTS)
def test_one_file_and_shards_of_one_part(part: str, folder: Path, original: Path) -> None:
    """Of both, diffusers reads the shards and transformers the one file; an index of the one file is no second."""
    path = folder / part / PARTS[part]
    names = split(path)
    index = path.with_name(f"{path.name}.index.json")
    for said in refused(folder):
        assert (
            f"{folder / part}: has both {path.name} and {index.name}, which names 2 other files; remove"
            in said
        )
    if part == "unet":
        with pytest.raises(InputError, match="has both"):
            UNetWeights(folder)
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(load_file(path), path.name)}))
    for name in names:
        path.with_name(name).unlink()
    assert "base model weights: 3 files" in checked(folder)[1]
    assert same(state(folder), state(original))
    assert same(dict(UNetWeights(folder)), dict(UNetWeights(original)))


def test_shards(folder: Path, original: Path) -> None:
    """A model in shards is read as in one file; a shard that is missing or lacks a tensor is named."""
    path = folder / "unet" / PARTS["unet"]
    names, index = split(path), path.with_name(f"{path.name}.index.json")
    path.unlink()
    assert "base model weights: 4 files" in checked(folder)[1]
    assert same(state(folder), state(original))
    assert same(dict(UNetWeights(folder)), dict(UNetWeights(original)))
    rewrite(path.with_name(names[0]), drop_first)
    assert "lacks 1 of the" in refused(folder)[0]
    path.with_name(names[1]).unlink()
    assert f"{names[1]}: no such file, but {index.name} names it" in refused(folder)[0]
    index.write_text(json.dumps({"weight_map": [1]}))
    assert f"{index}: not readable as an index of shards" in refused(folder)[0]
    index.unlink()  # what is left is a shard without index
    assert f"{path}: no such file; there is {names[0]}" in refused(folder)[0]


def old_attention(tensors: Tensors) -> None:
    """Names of the autoencoder's attention as in the files of Stable Diffusion 1."""
    for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        for key in [key for key in tensors if f"mid_block.attentions.0.{new}." in key]:
            tensors[key.replace(f".{new}.", f".{old}.")] = tensors.pop(key)


def old_text_model(tensors: Tensors) -> None:
    for key in list(tensors):
        tensors[f"text_model.{key.removeprefix('text_model.')}"] = tensors.pop(key)
    tensors["text_model.embeddings.position_ids"] = torch.arange(24)[None]


@pytest.mark.parametrize(
    ("part", "change", "notes"),
    [
        ("vae", old_attention, 0),
        ("text_encoder", old_text_model, 0),
        ("unet", lambda tensors: tensors.update({"ema.decay": torch.ones(1), "b": torch.ones(2)}), 1),
        ("text_encoder", lambda tensors: tensors.update({"logit_scale": torch.ones(1)}), 1),
    ],
)
def test_sound_odd_files_give_the_same_numbers(
    part: str, change: Callable[[Tensors], Any], notes: int, folder: Path, original: Path
) -> None:
    rewrite(folder / part / PARTS[part], change)
    lines = checked(folder)
    assert same(state(folder), state(original))
    warnings = [line for line in lines if line.startswith("warning:")]
    assert len(warnings) == notes and all("tensors are not read" in line for line in warnings)


def test_halves_are_read_as_floats(folder: Path, original: Path) -> None:
    for part, file in PARTS.items():
        rewrite(
            folder / part / file, lambda all: all.update({key: value.half() for key, value in all.items()})
        )
    checked(folder)
    found, before = state(folder), state(original)
    assert all(torch.equal(value, before[key].half().float()) for key, value in found.items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_found(dtype: torch.dtype, value: float, tmp_path: Path) -> None:
    largest = torch.finfo(dtype).max
    sound = torch.tensor([0.0, -0.0, 1e-7, largest, -largest, torch.finfo(dtype).tiny], dtype=dtype)
    save_file({"a": sound, "n": torch.tensor([-1])}, tmp_path / "x.safetensors")
    assert weight_files.check_numbers(tmp_path / "x.safetensors") == sound.numel() * sound.element_size()
    broken = torch.cat([sound, torch.tensor([value, value], dtype=dtype)])
    save_file({"a": sound, "b": broken}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="tensor 'b' has 2 numbers that are NaN or infinite"):
        weight_files.check_numbers(tmp_path / "x.safetensors")


@pytest.mark.parametrize("save", [other.save_sd2, other.save_xl])
def test_other_families_fit_their_networks(save: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = save(tmp_path / "other")
    assert networks.check(folder) == []
    part = "text_encoder_2" if (folder / "text_encoder_2").is_dir() else "text_encoder"
    rewrite(folder / part / "model.safetensors", drop_first)
    assert f"{folder}/{part}" in refused(folder)[0]


def test_check_of_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(folder / "unet" / PARTS["unet"], drop_first)
    (tmp_path / "c.yaml").write_text(
        f"base_model: {{family: folder, path: {folder}}}\nencoders: {{a: {{family: pixel}}}}\n"
    )
    assert main(["check", "--config", str(tmp_path / "c.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: base_model: {folder}/unet: lacks 1 of the") and error.count("\n") == 1
