"""`python -m attrib_core delta`: every layout imported and exported, checked by calls of stock diffusers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor
from safetensors.torch import load_file, save_file

from attrib_core.cli import delta
from attrib_core.cli.main import main
from attrib_core.common.errors import InputError
from attrib_core.diffusion.deltas import delta_files, import_export, layouts, lora_factors, svd_compression
from attrib_core.diffusion.deltas.delta_files import Delta
from tests.diffusion.diffusion_fixtures import TOKEN, stock_pipeline

CROSS = ("to_k.weight", "to_v.weight")
WHOLE = (*CROSS, "to_q.weight", "to_out.0.weight", "to_out.0.bias")


@pytest.fixture(scope="module")
def state(tiny_base: Path) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in stock_pipeline(tiny_base).unet.state_dict().items()}


def changed(state: dict[str, torch.Tensor], ends: tuple[str, ...] = CROSS) -> dict[str, torch.Tensor]:
    """Cross-attention weights changed from the base model's."""
    generator = torch.Generator().manual_seed(1)
    return {
        key: value + 0.1 * torch.randn(value.shape, generator=generator)
        for key, value in state.items()
        if key.endswith(tuple(f"attn2.{end}" for end in ends))
    }


def vector(number: int = 0) -> torch.Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(number))


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return set(first) == set(second) and all(torch.equal(first[key], second[key]) for key in second)


def processed(unet: Any, weights: dict[str, torch.Tensor], whole: bool) -> None:
    """Put diffusers' Custom Diffusion processors into a UNet, with weights of their own."""
    processors = {}
    for name in unet.attn_processors:
        layer = name.removesuffix(".processor")
        cross = name.endswith("attn2.processor")
        shape = unet.get_submodule(layer).to_k.weight.shape
        processors[name] = CustomDiffusionAttnProcessor(
            train_kv=cross, train_q_out=cross and whole, hidden_size=shape[0], cross_attention_dim=shape[1]
        )
        if cross:
            own = {
                key.removeprefix(f"{layer}.").replace(".", "_custom_diffusion.", 1): value
                for key, value in weights.items()
                if key.startswith(f"{layer}.")
            }
            processors[name].load_state_dict(own)
    unet.set_attn_processor(processors)


def source(
    layout: str, tiny_base: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> tuple[Path, list[Path]]:
    """Write the files of a delta as other programs do."""
    token = tmp_path / f"{TOKEN}.bin"
    torch.save({TOKEN: vector()}, token)
    if layout == "published":
        torch.save(weights, tmp_path / "pytorch_custom_diffusion_weights.pt")
        return tmp_path / "pytorch_custom_diffusion_weights.pt", [token]
    if layout == "custom-diffusion":
        torch.save({"unet": weights, "modifier_token": {TOKEN: vector()}}, tmp_path / "delta.bin")
        return tmp_path / "delta.bin", []
    unet = stock_pipeline(tiny_base).unet
    processed(unet, weights, len(weights) > 8)
    safe = layout == "diffusers-safetensors"
    unet.save_attn_procs(tmp_path, safe_serialization=safe)
    return tmp_path / f"pytorch_custom_diffusion_weights.{'safetensors' if safe else 'bin'}", [token]


@pytest.mark.parametrize("ends", [CROSS, WHOLE], ids=["keys-and-values", "crossattn"])
@pytest.mark.parametrize("layout", ["published", "custom-diffusion", "diffusers", "diffusers-safetensors"])
def test_what_others_write_is_imported(
    tiny_base: Path, state: dict[str, torch.Tensor], tmp_path: Path, layout: str, ends: tuple[str, ...]
) -> None:
    weights = changed(state, ends)
    path, tokens = source(layout, tiny_base, weights, tmp_path)
    given = ["--token-file", *map(str, tokens)] if tokens else []
    out = tmp_path / "out"
    assert (
        main(
            [
                "delta",
                "import",
                str(path),
                *given,
                "--base",
                str(tiny_base),
                "--out",
                str(out),
                "--name",
                "one",
            ]
        )
        == 0
    )
    files = delta_files.paths(out, "one")
    assert same(load_file(files[0]), weights)
    assert same(load_file(files[1]), {TOKEN: vector()})
    pipe = stock_pipeline(tiny_base)
    delta_files.load_into(pipe, *files, TOKEN)  # raises where nothing has changed
    assert same({key: pipe.unet.state_dict()[key] for key in weights}, weights)


@pytest.mark.parametrize("layout", delta.LAYOUTS)
def test_every_export_comes_back(
    tiny_base: Path, state: dict[str, torch.Tensor], tmp_path: Path, layout: str
) -> None:
    weights = changed(state)
    (tmp_path / "in").mkdir()
    path, tokens = source("published", tiny_base, weights, tmp_path / "in")
    out = tmp_path / "out"
    given = ["delta", "export", str(path), "--token-file", str(tokens[0]), "--base", str(tiny_base)]
    assert main([*given, "--layout", layout, "--out", str(out)]) == 0
    main_file = next(file for file in out.iterdir() if TOKEN not in file.name)
    contents = layouts.read(main_file, [file for file in out.iterdir() if TOKEN in file.name])
    assert same(contents.tokens, {TOKEN: vector()})
    if layout != "lora":
        assert same(contents.weights, weights)
    else:
        whole = lora_factors.merge(contents.weights, state)
        for key, value in weights.items():
            torch.testing.assert_close(whole[key], value, rtol=0, atol=3e-6)


@pytest.mark.parametrize("ends", [CROSS, WHOLE], ids=["keys-and-values", "crossattn"])
def test_the_layout_of_diffusers_is_what_diffusers_writes(
    tiny_base: Path, state: dict[str, torch.Tensor], tmp_path: Path, ends: tuple[str, ...]
) -> None:
    weights = changed(state, ends)
    path, _ = source("diffusers", tiny_base, weights, tmp_path)
    stock = torch.load(path, weights_only=True)
    ours = layouts.to_files("diffusers", weights, {}, state)
    (tmp_path / "ours.bin").write_bytes(ours[path.name])
    found = torch.load(tmp_path / "ours.bin", weights_only=True)
    assert set(found) == set(stock) and {key for key, value in found.items() if not len(value)}
    assert all(torch.equal(found[key], stock[key]) for key in stock if len(stock[key]))
    processors = stock_pipeline(tiny_base).unet._process_custom_diffusion(found)
    assert sum(bool(one.state_dict()) for one in processors.values()) == 4


def test_load_lora_weights_opens_the_export_and_equals_the_delta(
    tiny_base: Path, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    weights = changed(state)
    contents = layouts.Contents("unet", weights, {TOKEN: vector()})
    base = import_export.open_base(tiny_base)
    import_export.export_delta(contents, base, "lora", tmp_path)
    pipe = stock_pipeline(tiny_base)
    pipe.load_lora_weights(tmp_path)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    after = pipe.unet.state_dict()
    for key, value in state.items():
        if key in weights:
            torch.testing.assert_close(after[key], weights[key], rtol=0, atol=3e-6)
            assert (after[key] - value).abs().max() > 0.01
        else:
            assert torch.equal(after[key], value)
    pipe.load_textual_inversion(str(tmp_path / f"{TOKEN}.safetensors"))
    table = pipe.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[pipe.tokenizer.convert_tokens_to_ids(TOKEN)], vector())


def test_a_share_of_the_singular_values(tiny_base: Path, state: dict[str, torch.Tensor]) -> None:
    weights = changed(state)
    before = 0
    for share in (0.3, 0.6, 0.9, 1.0):
        found = svd_compression.compress(Delta(weights, vector()), state, share=share)
        size = sum(value.numel() for value in found.values())
        assert size > before
        before = size
        for key, value in weights.items():
            values = torch.linalg.svdvals((value - state[key]).double())
            kept = len(found[f"unet.{key.removesuffix('.weight')}.lora_A.weight"])
            assert values[:kept].sum() >= share * values.sum() * (1 - 1e-6)
            assert share == 1 or values[: kept - 1].sum() < share * values.sum()
    limited = svd_compression.compress(Delta(weights, vector()), state, rank=2, share=0.6)
    assert {min(value.shape) for value in limited.values()} == {2}
    again = svd_compression.compress(Delta(limited, vector()), state, rank=1)
    assert {min(value.shape) for value in again.values()} == {1}
    assert svd_compression.compress(Delta(limited, vector()), state) == limited


def test_compressed_deltas_and_several_tokens(
    tiny_base: Path, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(3)
    packed = {
        key: {
            "u": torch.randn(value.shape[0], 2, generator=generator),
            "v": torch.randn(2, value.shape[1], generator=generator),
        }
        for key, value in changed(state).items()
    }
    tokens = {TOKEN: vector(1), "<new2>": vector(2)}
    torch.save({"unet": packed, "modifier_token": tokens}, tmp_path / "delta.bin")
    given = ["delta", "import", str(tmp_path / "delta.bin"), "--base", str(tiny_base), "--out", str(tmp_path)]
    assert main(given) == 0
    stored = load_file(tmp_path / "delta.safetensors")
    whole = lora_factors.merge(stored, state)
    for key, parts in packed.items():
        torch.testing.assert_close(whole[key], state[key] + parts["u"] @ parts["v"])
    assert same(load_file(tmp_path / "delta.token.safetensors"), {TOKEN: vector(1)})
    assert same(load_file(tmp_path / "delta.token-2.safetensors"), {"<new2>": vector(2)})


def test_alpha_is_multiplied_in(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    stored = svd_compression.compress(Delta(changed(state), vector()), state, rank=4)
    layer = next(iter(stored)).removesuffix(".lora_A.weight")
    save_file(stored | {f"{layer}.alpha": torch.tensor(2.0)}, tmp_path / "lora.safetensors")
    found = layouts.read(tmp_path / "lora.safetensors").weights
    assert torch.equal(found[f"{layer}.lora_B.weight"], stored[f"{layer}.lora_B.weight"] * 0.5)


def test_describe(
    tiny_base: Path, state: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = changed(state)
    path, tokens = source("published", tiny_base, weights, tmp_path)
    given = ["delta", "describe", str(path), "--token-file", str(tokens[0]), "--base", str(tiny_base)]
    assert main(given) == 0
    shown = capsys.readouterr().out
    assert "method: Custom Diffusion (keys and values of the cross-attention)" in shown
    assert f"size: 8 tensors, {sum(value.numel() for value in weights.values()):,} numbers" in shown
    keys = [key for key in weights if key.endswith("to_k.weight")]
    change = torch.cat([(weights[key] - state[key]).flatten() for key in keys]).norm()
    whole = torch.cat([weights[key].flatten() for key in keys]).norm()
    line = next(line for line in shown.splitlines() if "attn2.to_k.weight: 4 layers" in line)
    found = [float(value) for value in re.findall(r"(?:norm|change|is) ([\d.e-]+)", line)]
    assert found == pytest.approx([float(whole), float(change), float(100 * change / whole)], rel=2e-3)
    assert f"token {TOKEN}: 1 of 32 values, norm {float(vector().norm()):.4g}" in shown
    assert main(given[:-2]) == 0
    assert "change" not in capsys.readouterr().out


class NotATensor:
    """An object that unpickling would build."""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {"x.attn9.to_k.weight": torch.zeros(2, 2)}, "names no weight of the UNet of"),
        (lambda w: {k: v[:, :7] for k, v in w.items()}, "made for a text encoder of width 7, that of"),
        (lambda w: {k: v[:3] for k, v in w.items()}, "has shape (3, 32), the base model has (64, 32)"),
        (lambda w: {k: NotATensor() for k in w}, "NotATensor), refused; only tensors"),
        (lambda w: dict.fromkeys(w, 3), "is not a tensor of floating-point numbers"),
        (lambda w: {"hello.there": torch.zeros(1)}, "belongs to no known layout"),
        (lambda w: [1, 2], "holds a list, expected a dictionary of tensors"),
        (lambda w: {"unet": [1]}, "key 'unet' holds a list"),
        (lambda w: w, "holds no token; name its file with --token-file"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported(
    tiny_base: Path, state: dict[str, torch.Tensor], tmp_path: Path, change: Any, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "delta.pt"
    torch.save(change(changed(state)), path)
    given = ["delta", "import", str(path), "--base", str(tiny_base), "--out", str(tmp_path / "out")]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert message in error and str(path) in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_other_bad_input(
    tiny_base: Path, state: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = import_export.open_base(tiny_base)
    untouched = {key: value for key, value in state.items() if key.endswith("attn2.to_k.weight")}
    with pytest.raises(InputError, match="every weight equals that of .*; nothing is customized"):
        import_export.check_fit(layouts.Contents("unet", untouched, {}), base, tmp_path)
    with pytest.raises(InputError, match="token '<new1>' has 31 values, the token table of .* has 32"):
        import_export.check_fit(
            layouts.Contents("unet", changed(state), {TOKEN: torch.zeros(31)}), base, tmp_path
        )
    half = {
        key: value
        for key, value in svd_compression.compress(Delta(changed(state), vector()), state, 2).items()
        if "lora_A" in key
    }
    with pytest.raises(InputError, match="its other factor '.*lora_B.weight' is missing"):
        import_export.check_fit(layouts.Contents("lora", half, {}), base, tmp_path)
    with pytest.raises(InputError, match="a LoRA holds no bias"):
        svd_compression.compress(Delta(changed(state, WHOLE), vector()), state)
    with pytest.raises(InputError, match="share 1.5: expected more than 0, and 1 at most"):
        svd_compression.compress(Delta(changed(state), vector()), state, share=1.5)
    other = {key: value + 1 for key, value in state.items() if key.endswith("attn1.to_k.weight")}
    with pytest.raises(InputError, match="the layout 'diffusers' holds only cross-attention"):
        layouts.to_files("diffusers", other, {}, state)
    with pytest.raises(InputError, match="no diffusion_pytorch_model"):
        import_export.UNetWeights(tmp_path)
    with pytest.raises(InputError, match="no such file; expected a file of torch.save"):
        layouts.read(tmp_path / "nothing.bin")
    with pytest.raises(InputError, match="expected the file of a delta"):
        layouts.read(tmp_path / "nothing.safetensors")
    save_file({TOKEN: vector()}, tmp_path / "t.safetensors")
    with pytest.raises(InputError, match="token '<new1>' occurs twice"):
        layouts.read(tmp_path / "t.safetensors", [tmp_path / "t.safetensors"])
    given = [
        "delta",
        "export",
        str(tmp_path / "t.safetensors"),
        "--base",
        str(tiny_base),
        "--out",
        str(tmp_path),
    ]
    assert main([*given, "--layout", "unet", "--rank", "3"]) == 2
    assert "--rank and --share are for --layout lora, not 'unet'" in capsys.readouterr().err


def test_where_files_may_be_written(
    tiny_base: Path, state: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that cannot be written to is an error, and so is a name that leads out of it, as a token may."""
    path, out = tmp_path / "delta.bin", tmp_path / "out"
    torch.save({"unet": changed(state), "modifier_token": {"../evil": vector()}}, path)
    ends = ["--base", str(tiny_base), "--out"]
    assert main(["delta", "export", str(path), *ends, str(out)]) == 2
    assert "'../evil.safetensors' is not a name of a file in it" in capsys.readouterr().err
    assert main(["delta", "import", str(path), "--name", "../evil", *ends, str(out)]) == 2
    assert "'../evil.safetensors' is not a name of a file in it" in capsys.readouterr().err
    assert {one.name for one in tmp_path.iterdir()} == {"delta.bin"}
    assert main(["delta", "import", str(path), "--name", "fine", *ends, str(path)]) == 2
    assert capsys.readouterr().err.endswith("expected a folder to write into\n")
    path.write_text("no delta")
    assert main(["delta", "describe", str(path)]) == 2
    assert "weights_only" not in capsys.readouterr().err
