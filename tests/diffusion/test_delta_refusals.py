"""Deltas and tokens that cannot be read right: each is refused in one line that says what it is. Sound ones pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from attrib_core.cli.main import main
from attrib_core.common.errors import InputError
from attrib_core.diffusion.base_models import bundled
from attrib_core.diffusion.deltas import delta_files, layouts
from attrib_core.diffusion.deltas.delta_files import Delta
from attrib_core.diffusion.pipeline.unet_weights import UNetWeights
from tests.diffusion import lora_fixtures as fixtures
from tests.diffusion.diffusion_fixtures import TOKEN

WIDTH = 96
NAN, INFINITE = float("nan"), float("inf")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    weights = UNetWeights(bundled.FOLDER)
    return {key: weights[key] for key in weights if key.endswith(("attn2.to_k.weight", "attn1.to_q.weight"))}


@pytest.fixture
def weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value + 0.1 for key, value in state.items() if "attn2" in key}


def vector(number: int = 0) -> torch.Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(number))


def run(command: str, path: Path, tmp_path: Path, *more: str) -> int:
    ends = [] if command == "describe" else ["--base", "bundled", "--out", str(tmp_path / "out")]
    return main(["delta", command, str(path), *more, *ends])


def one(weights: dict[str, torch.Tensor], change: Callable[[torch.Tensor], Any]) -> dict[str, Any]:
    """Weights of which one is changed."""
    return weights | {key: change(value) for key, value in list(weights.items())[-1:]}


def pair(
    layer: str = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
) -> dict[str, torch.Tensor]:
    """The two factors of a LoRA for one layer, under the keys of diffusers."""
    given = {layer: (torch.ones(2, WIDTH), torch.ones(128, 2))}
    return {
        fixtures.diffusers(*key): value
        for key, value in zip(((layer, "A"), (layer, "B")), given[layer], strict=True)
    }


def with_nan(value: torch.Tensor) -> torch.Tensor:
    changed = value.clone()
    changed.view(-1)[3] = NAN
    return changed


FULL = [
    (lambda w: one(w, with_nan), "has 1 of 12288 numbers that are NaN or infinite, as after a training that diverged"),
    (lambda w: one(w, lambda v: v.double() + 1e300), "has 12288 of 12288 numbers that are NaN or infinite"),
    (lambda w: {key: value * 0 for key, value in w.items()}, "its weights: every number is 0"),
    (lambda w: {0: vector(), 1: vector()}, "key 0 is a int, expected names of weights or tokens"),
    (lambda w: one(w, lambda v: {"a": v}), "is not a tensor of floating-point numbers, but a dict with ['a']"),
    (lambda w: one(w, lambda v: v.to_sparse()), "is not a tensor of floating-point numbers"),
    (lambda w: one(w, lambda v: v.to("meta")), "is not a tensor of floating-point numbers"),
    (lambda w: one(w, lambda v: v.to(torch.int8)), "but a tensor (128, 96) of int8"),
    (lambda w: {"model.diffusion_model.out.2.bias": vector()}, "is a whole model in the keys of Stability's code"),
    (lambda w: {"unet": {3: vector()}}, "key 3 in 'unet' is a int"),
    (lambda w: {"unet": w, "modifier_token": [vector()]}, "key 'modifier_token' is a list of 1, expected embeddings"),
    (lambda w: {"unet": w, "vae": {"a": vector()}}, "key 'vae' is a dict with ['a']"),
    (lambda w: {"unet": w, "modifier_token": {TOKEN: vector() * NAN}}, "key '<new1>' has 96 of 96 numbers"),
    (lambda w: {"unet": w, "modifier_token": {TOKEN: vector() * 0}}, "token '<new1>': every number is 0"),
    (lambda w: {"unet": {"a.weight": {"u": torch.ones(3, 2), "v": torch.ones(3, 4)}}}, "factors A (3, 4) and B (3, 2)"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), FULL)
@pytest.mark.parametrize("command", ["describe", "import"])
def test_weights_that_are_refused(
    command: str, change: Any, message: str, weights: dict[str, torch.Tensor], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    torch.save(change(weights), tmp_path / "d.bin")
    assert run(command, tmp_path / "d.bin", tmp_path) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith(f"error: {tmp_path}/d.bin: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


LORA = [
    ({"lora_unet_mid_block_x.hada_w1_a": vector()}, "is LoHa (Hadamard products), by its key"),
    ({"lora_unet_mid_block_x.lokr_w1": vector()}, "is LoKr (Kronecker products)"),
    ({"lora_unet_mid_block_x.diff": vector()}, "is LyCORIS with whole differences"),
    (pair() | {"unet.x.lora_magnitude_vector": vector()}, "is DoRA (it also scales each row"),
    (pair() | {"unet.x.dora_scale": vector()}, "is DoRA"),
    (pair() | {"unet.x.lora_B.bias": vector()}, "is LoRA with biases"),
    ({"transformer.blocks.0.lora_A.weight": vector()}, "a LoRA for a transformer, such as Flux"),
    ({"diffusion_model.input_blocks.4.1.x.lora_down.weight": vector()}, "for a model in ComfyUI's keys"),
    (pair() | {"x.y.lora_A.weight": torch.ones(2, 3), "x.y.lora_B.weight": torch.ones(3, 2)}, "a mixture of layouts"),
    (pair() | {"unet.x.y": vector()}, "key 'unet.x.y' is of no known layout of a LoRA; known: kohya's keys"),
    (dict(list(pair().items())[:1]), "to_k.lora_A.weight' has no other factor; expected two for each layer"),
    ({"unet.a.lora_A.weight": torch.ones(2, 3), "unet.a.lora_B.weight": torch.ones(4, 3)}, "A (2, 3) and B (4, 3)"),
    ({"unet.a.lora_A.weight": torch.ones(()), "unet.a.lora_B.weight": torch.ones(())}, "A () and B ()"),
    (pair() | {pair.__name__ + ".lora_x": vector()}, "is of no known layout of a LoRA"),
    ({key: with_nan(value) for key, value in pair().items()}, "numbers that are NaN or infinite"),
    (pair() | {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.alpha": vector()},
     "is a tensor (96,) of float32, expected one number"),
    (pair() | {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.alpha": torch.tensor(NAN)},
     "is nan, expected a finite number"),
    (pair() | {"unet.x.alpha": torch.tensor(1.0)}, "key 'unet.x.alpha' has no factors"),
    (pair() | {"text_encoder.a.lora_A.weight": vector()}, "also changes a text encoder (1 tensors, such as 'text_enc"),
    (pair() | {"lora_te_a.lora_down.weight": vector()}, "also changes a text encoder (1 tensors, such as 'lora_te_a"),
    ({key: value * 0 for key, value in pair().items()}, "every weight equals that of"),
    ({key: value * ("lora_A" in key) for key, value in pair().items()}, "every weight equals that of"),
    (pair("mid_block.x"), "names no weight of the UNet of"),
]  # fmt: skip


@pytest.mark.parametrize(("stored", "message"), LORA)
def test_loras_that_are_refused(
    stored: dict[str, torch.Tensor], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(stored, tmp_path / "d.safetensors")
    save_file({TOKEN: vector()}, tmp_path / "t.safetensors")
    assert (
        run("import", tmp_path / "d.safetensors", tmp_path, "--token-file", str(tmp_path / "t.safetensors"))
        == 2
    )
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "not readable as JSON"),
        ("[1]", "is a list, expected a configuration of LoRA"),
        ({"text_encoder.r": 4}, "has no key that begins with 'unet.'"),
        ({"unet.r": 4, "unet.lora_alpha": 4}, "rank 4 for 'down_blocks"),
        ({"unet.r": 2, "unet.lora_alpha": "x"}, "lora_alpha is 'x', expected a number"),
        ('{"unet.r": 2, "unet.lora_alpha": 1' + 400 * "0" + "}", "lora_alpha is '1000"),
        ({"unet.r": 2, "unet.use_dora": True}, "use_dora is True"),
        ({"unet.r": 2, "unet.init_lora_weights": "pissa"}, "which changes the base model itself"),
        (
            {"unet.r": 2, "unet.alpha_pattern": {"(a+)+$": 1}},
            "alpha_pattern has '(a+)+$', expected the name of",
        ),
        ({"unet.r": 2, "unet.alpha_pattern": [1]}, "alpha_pattern is [1], expected numbers by names"),
        ({"unet.r": 2, "unet.peft_type": "LOHA"}, "peft_type is 'LOHA'"),
    ],
)
def test_strengths_that_are_refused(config: Any, message: str, tmp_path: Path) -> None:
    text = config if isinstance(config, str) else json.dumps(config)
    save_file(pair(), tmp_path / "d.safetensors", metadata={"lora_adapter_metadata": text})
    with pytest.raises(InputError) as caught:
        layouts.read(tmp_path / "d.safetensors")
    assert message in str(caught.value) and str(tmp_path / "d.safetensors") in str(caught.value)


def test_a_trained_text_encoder_is_told(
    weights: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = {"text_model.a.weight": vector(), "text_model.b.weight": vector()}
    path = tmp_path / "delta.bin"
    torch.save({"unet": weights, "modifier_token": {TOKEN: vector()}, "text_encoder": encoder}, path)
    for command in ("import", "export"):
        assert run(command, path, tmp_path) == 2
        assert (
            "also changes a text encoder (2 tensors, such as 'text_encoder.text_model.a"
            in capsys.readouterr().err
        )
    assert run("describe", path, tmp_path) == 0
    assert "warning: also changes a text encoder (2 tensors" in capsys.readouterr().out
    torch.save({"unet": weights, "modifier_token": {TOKEN: vector()}, "text_encoder": {}}, path)
    assert run("import", path, tmp_path) == 0


@pytest.mark.parametrize(
    ("name", "stored", "token", "given"),
    [
        ("my-style.safetensors", {"emb_params": vector()[None]}, "my-style", []),
        ("my-style.safetensors", {"emb_params": vector()[None]}, "other", ["--token", "other"]),
        (
            "x.pt",
            {"string_to_param": {"*": vector()[None]}, "string_to_token": {"*": 265}, "name": "x-art"},
            "x-art",
            [],
        ),
        ("my-style.bin", {"string_to_param": {"*": torch.nn.Parameter(vector()[None])}}, "my-style", []),
        ("x.bin", {"<a>": vector().half()}, "<a>", []),
        ("x.bin", {"<a>": torch.nn.Parameter(vector().bfloat16())}, "<a>", []),
        ("two-of.pt", {"string_to_param": {"*": torch.stack([vector(), vector(1)])}}, "two-of", []),
        ("x.bin", {"cat": vector()}, "<cat>", ["--token", "<cat>"]),
    ],
)
def test_embeddings_of_other_tools(
    name: str, stored: Any, token: str, given: list[str], weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(weights, tmp_path / "d.bin")
    file = tmp_path / name
    save_file(stored, file) if file.suffix == ".safetensors" else torch.save(stored, file)
    assert run("import", tmp_path / "d.bin", tmp_path, "--token-file", str(file), *given) == 0
    found = load_file(tmp_path / "out" / "d.token.safetensors")
    assert list(found) == [token]
    torch.testing.assert_close(torch.atleast_2d(found[token])[0], vector(), rtol=0, atol=0.02)
    assert len(torch.atleast_2d(found[token])) == (2 if name.startswith("two") else 1)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"": vector()}, "token '' is empty; give it another name with --token"),
        ({"cat": vector()}, "token 'cat' is a word that the tokenizer of"),
        ({"my token": vector()}, "token 'my token' has a space"),
        ({"a\x07": vector()}, "has a letter that cannot be printed"),
        ({"emb_params": vector(), "b": vector()}, "has 'emb_params' next to ['b']"),
        ({"string_to_param": vector()}, "expected the embedding of one token"),
        ({"string_to_param": {"*": vector(), "b": vector()}}, "expected the embedding of one token"),
        ({"string_to_param": {"*": [1]}, "name": "x"}, "key 'x' is not a tensor of floating-point numbers"),
        ({TOKEN: torch.zeros(2, 0)}, "has shape (2, 0), expected a vector"),
        ({TOKEN: torch.ones(2, 2, WIDTH)}, "has shape (2, 2, 96), expected a vector"),
        ({TOKEN: {"a": vector()}}, "belongs to no known layout"),
        ({"clip_l": vector() * 0, "clip_g": vector() * 0}, "the token's embeddings: every number is 0"),
        (
            {"<a>": vector(), "<b>": vector(), "--token": vector()},
            "--token 'x' names one token, the delta has",
        ),
    ],
)
def test_tokens_that_are_refused(
    stored: Any,
    message: str,
    weights: dict[str, torch.Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(weights, tmp_path / "d.bin")
    given = ["--token", "x"] if stored.pop("--token", None) is not None else []
    torch.save(stored, tmp_path / "t.bin")
    assert run("import", tmp_path / "d.bin", tmp_path, "--token-file", str(tmp_path / "t.bin"), *given) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_describe_tells_what_import_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({key: value * 0 for key, value in pair().items()}, tmp_path / "d.safetensors")
    torch.save({"my token": vector()}, tmp_path / "t.bin")
    assert run("describe", tmp_path / "d.safetensors", tmp_path, "--token-file", str(tmp_path / "t.bin")) == 0
    shown = capsys.readouterr().out
    assert "warning: all of its products of factors are zero, so it changes nothing" in shown
    assert "warning: the name of token 'my token' has a space" in shown


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_other_types_of_numbers_are_read(
    dtype: torch.dtype, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    given = {f"unet.{key}": torch.nn.Parameter(value.to(dtype)) for key, value in weights.items()}
    torch.save(given, tmp_path / "d.pt")
    found = layouts.read(tmp_path / "d.pt").weights
    assert set(found) == set(weights)
    for key, value in weights.items():
        assert torch.equal(found[key], value.to(dtype).float())


def test_a_run_does_not_read_numbers_that_are_none(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    files = delta_files.paths(tmp_path, "m")

    def read(changed: dict[str, torch.Tensor], row: torch.Tensor) -> Delta:
        checksum = delta_files.write(tmp_path, "m", Delta(changed, row), TOKEN)
        return delta_files.read(*files, TOKEN, checksum)

    assert torch.equal(read(weights, vector()).embedding, vector())
    with pytest.raises(InputError, match=r"m.safetensors: key 'up.*' has 1 of 12288 numbers that are NaN or"):
        read(one(weights, with_nan), vector())
    with pytest.raises(InputError, match=r"m.token.safetensors: key '<new1>' has 96 of 96 numbers"):
        read(weights, vector() * INFINITE)
    with pytest.raises(InputError, match=r"m.token.safetensors: its tensors: every number is 0"):
        read(weights, vector() * 0)
    assert read({}, vector()).weights == {}


def test_names_that_are_too_long_for_files(
    weights: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(weights, tmp_path / "d.bin")
    torch.save({"<new1>": vector()}, tmp_path / "t.bin")
    torch.save({"é" * 101: vector()}, tmp_path / "long.bin")

    def said(command: str, token_file: str, *given: str) -> str:
        assert (
            run(command, tmp_path / "d.bin", tmp_path, "--token-file", str(tmp_path / token_file), *given)
            == 2
        )
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    ends = "… is 201 bytes long, expected at most 200: files are named by it\n"
    assert said("import", "t.bin", "--name", "x" * 201) == f"error: --name: '{'x' * 78}{ends}"
    assert said("import", "t.bin", "--token", "x" * 201) == f"error: --token: '{'x' * 78}{ends}"
    assert said("export", "long.bin").startswith(f"error: {tmp_path}/d.bin: token: 'éé")
    given = ("--token-file", str(tmp_path / "t.bin"), "--name", "é" * 100, "--token", "x" * 200)
    assert run("import", tmp_path / "d.bin", tmp_path, *given) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "é" * 100 + ".safetensors", "é" * 100 + ".token.safetensors"
    }  # fmt: skip
    assert run("export", tmp_path / "d.bin", tmp_path, "--token-file", str(tmp_path / "t.bin")) == 0


def test_describe_prints_any_name_in_a_line(
    weights: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(weights, tmp_path / "d\n.bin")
    torch.save({"a\x1b[31m\nb": vector()}, tmp_path / "t.bin")
    assert run("describe", tmp_path / "d\n.bin", tmp_path, "--token-file", str(tmp_path / "t.bin")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[0] == rf"{tmp_path}/d\n.bin" and any(
        r"token a\x1b[31m\nb: 1 of 96" in line for line in lines
    )
