"""LoRA files of other programs: each layout that is read gives the weights that stock diffusers makes of the file."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict

from attrib_core.cli.main import main
from attrib_core.common.errors import InputError
from attrib_core.diffusion.base_models import bundled
from attrib_core.diffusion.deltas import delta_files, import_export, layouts, lora_factors, svd_compression
from tests.diffusion import diffusion_families_fixtures as other
from tests.diffusion import lora_fixtures as fixtures
from tests.diffusion.diffusion_fixtures import TOKEN
from tests.diffusion.lora_fixtures import ATTENTION, CROSS, EVERY, Stock, written


@pytest.fixture(scope="module")
def stock() -> Stock:
    return Stock(bundled.FOLDER)


def compare(contents: layouts.Contents, stock: Stock, expected: dict[str, torch.Tensor]) -> None:
    """All weights are equal to those that stock diffusers merges, and the changed ones have changed."""
    own = stock.state | lora_factors.merge(contents.weights, stock.state)
    assert set(own) == set(expected)
    for key, value in own.items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=2e-6)
    for key in {lora_factors.weight_key(key) for key in contents.weights}:
        assert (own[key] - stock.state[key]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "prefix", "ends", "layout"),
    [
        (fixtures.diffusers, "unet", EVERY, "lora"),
        (fixtures.kohya, "unet", EVERY, "lora (kohya's keys)"),
        (fixtures.older, "unet", EVERY, "lora (keys of older diffusers)"),
        (fixtures.oldest, "unet", ATTENTION, "lora (keys of older diffusers)"),
        (fixtures.oldest_without_prefix, None, ATTENTION, "lora (keys of older diffusers' save_attn_procs)"),
        (fixtures.adapter, None, EVERY, "lora (keys of diffusers' save_lora_adapter)"),
    ],
)
@pytest.mark.parametrize("ranks", [(3,), (2, 5, 3)], ids=["one-rank", "ranks"])
def test_each_layout_without_a_strength(
    name: fixtures.Name, prefix: str, ends: tuple[str, ...], layout: str, ranks: tuple[int, ...], stock: Stock,
    tmp_path: Path,
) -> None:  # fmt: skip
    given = fixtures.factors(stock.state, ends, ranks)
    path = written(tmp_path / "lora.safetensors", name, given)
    contents = layouts.read(path)
    assert contents.layout == layout and len(contents.weights) == 2 * len(given)
    compare(contents, stock, stock.merged(path, prefix))


def test_alpha_of_kohya(stock: Stock, tmp_path: Path) -> None:
    """One alpha, several ranks; and another alpha for convolutions, which are fewer than attention layers."""
    given = fixtures.factors(stock.state, EVERY, (2, 4, 5))
    path = written(tmp_path / "lora.safetensors", fixtures.kohya, given, dict.fromkeys(given, 3.0))
    compare(layouts.read(path), stock, stock.merged(path))
    given = fixtures.factors(stock.state, (*ATTENTION, "conv1"))
    alphas = {layer: 1.0 if layer.endswith("conv1") else 2.0 for layer in given}
    path = written(tmp_path / "lora.safetensors", fixtures.kohya, given, alphas)
    contents = layouts.read(path)
    compare(contents, stock, stock.merged(path))
    layer = next(iter(given))
    up = contents.weights[f"unet.{layer}.lora_B.weight"]
    torch.testing.assert_close(up, given[layer][1] * (alphas[layer] / 3))


@pytest.mark.parametrize("alphas", [{"attn2.to_v": 1.0}, {"attn2.to_v": None}], ids=["differs", "is missing"])
def test_alphas_that_tools_read_differently_are_refused(
    alphas: dict[str, float | None], stock: Stock, tmp_path: Path
) -> None:
    given = fixtures.factors(stock.state, ATTENTION)
    chosen = {layer: next((a for end, a in alphas.items() if layer.endswith(end)), 2.0) for layer in given}
    path = written(
        tmp_path / "lora.safetensors",
        fixtures.kohya,
        given,
        {k: v for k, v in chosen.items() if v is not None},
    )
    with pytest.raises(InputError, match="attn2.to_v' has (alpha 1, other layers 2|no alpha, but other)"):
        layouts.read(path)


CONFIGS: list[dict[str, Any]] = [
    {"r": 3, "lora_alpha": 6},
    {"r": 3, "lora_alpha": 7.5, "use_rslora": True},
    {"r": 3, "lora_alpha": 6, "alpha_pattern": {"to_v": 1, "^down_blocks.1.attentions.0.proj_in": 2}},
    {
        "r": 3,
        "lora_alpha": 6,
        "alpha_pattern": {r"mid_block\..*attn\d.to_k": 9},
        "init_lora_weights": "gaussian",
    },
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    ("name", "prefix"), [(fixtures.diffusers, "unet"), (fixtures.adapter, None), (fixtures.older, "unet")]
)
def test_the_strength_in_the_metadata(
    name: fixtures.Name, prefix: str, config: dict[str, Any], stock: Stock, tmp_path: Path
) -> None:
    given = fixtures.factors(stock.state, ("to_k", "to_v", "proj_in"))
    whole = LoraConfig(target_modules=list(given), **config).to_dict()
    whole["target_modules"] = sorted(whole["target_modules"])
    start = "" if prefix is None else "unet."
    path = written(tmp_path / "lora.safetensors", name, given, config=whole, prefix=start)
    compare(layouts.read(path), stock, stock.merged(path, prefix))


def test_what_diffusers_itself_saves(stock: Stock, tmp_path: Path) -> None:
    """Ranks and alphas by layer, saved by the calls of its training scripts."""
    from diffusers.training_utils import _collate_lora_metadata

    unet = copy.deepcopy(stock.pipe.unet)
    config = LoraConfig(
        r=4, lora_alpha=8, init_lora_weights=False, target_modules=["to_k", "to_v", "conv1"],
        rank_pattern={"conv1": 2, "attn1.to_v": 5}, alpha_pattern={"conv1": 3, "mid_block.*to_k": 1},
    )  # fmt: skip
    torch.manual_seed(0)
    unet.add_adapter(config)
    saved = get_peft_model_state_dict(unet)
    stock.pipe.save_lora_weights(tmp_path, saved, **_collate_lora_metadata({"unet": unet}))
    path = tmp_path / "pytorch_lora_weights.safetensors"
    compare(layouts.read(path), stock, stock.merged(path))
    unet.save_lora_adapter(tmp_path / "adapter")
    path = tmp_path / "adapter" / "pytorch_lora_weights.safetensors"
    compare(layouts.read(path), stock, stock.merged(path, None))


@pytest.mark.parametrize("rslora", [False, True])
def test_what_peft_itself_saves(rslora: bool, stock: Stock, tmp_path: Path) -> None:
    """Its strength is in the file next to it; without that it is refused."""
    config = LoraConfig(
        r=4, lora_alpha=6, init_lora_weights=False, target_modules=["attn2.to_k", "conv2"], use_rslora=rslora
    )
    torch.manual_seed(0)
    get_peft_model(copy.deepcopy(stock.pipe.unet), config).save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    expected = PeftModel.from_pretrained(copy.deepcopy(stock.pipe.unet), tmp_path).merge_and_unload()
    compare(layouts.read(path), stock, expected.state_dict())
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(
        InputError, match="a LoRA in keys of peft, whose strength .* is in adapter_config.json"
    ):
        layouts.read(path)


def test_kohyas_names_of_sdxl(tmp_path: Path) -> None:
    """Stability's numbering of the blocks; SDXL has two layers in each."""
    folder = other.save_xl(tmp_path / "xl", layers_per_block=2)
    stock = Stock(folder, DiffusionPipeline.from_pretrained(folder))
    given = fixtures.factors(stock.state, (*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"))
    path = written(tmp_path / "lora.safetensors", stability, given, dict.fromkeys(given, 2.0))
    assert any("output_blocks_1_1_" in stability(layer, "A") for layer in given)
    compare(layouts.read(path), stock, stock.merged(path))


def stability(layer: str, part: str) -> str:
    """Return kohya's key of an attention layer of SDXL."""
    block, *rest = layer.split(".")
    if block == "mid_block":
        name = ".".join(["middle_block.1", *rest[2:]])
    else:
        number, kind, inner, *rest = rest
        assert kind == "attentions"
        place = 3 * int(number) + int(inner) + (block == "down_blocks")
        name = ".".join(
            [{"down_blocks": "input_blocks", "up_blocks": "output_blocks"}[block], f"{place}.1", *rest]
        )
    return fixtures.kohya(name, part)


def test_a_kohya_lora_of_all_layers_is_imported_described_and_exported(
    stock: Stock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = fixtures.factors(stock.state, EVERY)
    path = written(tmp_path / "web.safetensors", fixtures.kohya, given, dict.fromkeys(given, 1.5))
    expected = stock.merged(path)
    torch.save({TOKEN: torch.ones(96)}, tmp_path / "t.bin")
    ends = ["--token-file", str(tmp_path / "t.bin"), "--base", "bundled"]
    assert main(["delta", "import", str(path), *ends, "--out", str(tmp_path / "in")]) == 0
    assert (
        main(["delta", "export", str(path), *ends, "--layout", "unet", "--out", str(tmp_path / "out")]) == 0
    )
    assert main(["delta", "describe", str(path), *ends]) == 0
    shown = capsys.readouterr().out
    assert (
        "layout: lora (kohya's keys)" in shown
        and "rank: 3\n" in shown
        and "attn1.to_q.weight: 4 layers" in shown
    )
    pipe = Stock(bundled.FOLDER)
    compare(layouts.read(tmp_path / "in" / "web.safetensors"), stock, expected)
    compare(layouts.read(tmp_path / "out" / "delta.safetensors"), stock, expected)
    delta_files.load_into(pipe.pipe, *delta_files.paths(tmp_path / "in", "web"), TOKEN)
    pipe.pipe.fuse_lora()
    pipe.pipe.unload_lora_weights()
    compare(layouts.read(path), stock, pipe.pipe.unet.state_dict())


def test_convolutions_are_compressed_as_matrices(stock: Stock, tmp_path: Path) -> None:
    given = fixtures.factors(stock.state, ("conv1", *CROSS))
    contents = layouts.read(written(tmp_path / "lora.safetensors", fixtures.diffusers, given))
    whole = lora_factors.merge(contents.weights, stock.state)
    again = svd_compression.compress(delta_files.Delta(whole, torch.zeros(1)), stock.state, 3)
    import_export.check_fit(
        layouts.Contents("lora", again, {}), import_export.open_base(bundled.FOLDER), tmp_path
    )
    for key, value in lora_factors.merge(again, stock.state).items():
        torch.testing.assert_close(value, whole[key], rtol=0, atol=1e-5)
