"""`python -m attrib_core delta` where the base model has two text encoders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from attrib_core.cli.main import main
from attrib_core.common.errors import InputError
from attrib_core.diffusion.deltas import delta_files, layouts, token_file
from attrib_core.diffusion.deltas.delta_files import Delta
from tests.diffusion import diffusion_families_fixtures as other
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.diffusion_fixtures import TOKEN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return other.save_xl(tmp_path_factory.mktemp("base") / "xl")


@pytest.fixture(scope="module")
def delta(folder: Path) -> Delta:
    generator = torch.Generator().manual_seed(1)
    state = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    weights = {
        key: value + 0.1 * torch.randn(value.shape, generator=generator)
        for key, value in state.items()
        if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }
    return Delta(weights, torch.randn(2, 24, generator=generator), torch.randn(2, 40, generator=generator))


def rows(contents: layouts.Contents) -> list[torch.Tensor]:
    return [contents.tokens[TOKEN], contents.tokens_2[TOKEN]]


@pytest.mark.parametrize("layout", ["lora", "unet", "custom-diffusion"])
def test_export_and_import_again(
    layout: str, folder: Path, delta: Delta, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delta_files.write(tmp_path, "one", delta, TOKEN)
    files = [str(path) for path in delta_files.paths(tmp_path, "one")]
    given = [files[0], "--token-file", files[1], "--base", str(folder)]
    assert main(["delta", "describe", *given]) == 0
    shown = capsys.readouterr().out
    assert f"token {TOKEN}: 2 of 24 values" in shown
    assert f"token {TOKEN} in the second text encoder: 2 of 40 values" in shown

    assert main(["delta", "export", *given, "--layout", layout, "--out", str(tmp_path / "out")]) == 0
    written = sorted((tmp_path / "out").iterdir(), key=lambda path: TOKEN in path.name)
    tokens = ["--token-file", str(written[1])] if layout != "custom-diffusion" else []
    assert len(written) == 1 + len(tokens) // 2
    back = ["delta", "import", str(written[0]), *tokens, "--base", str(folder), "--name", "two"]
    assert main([*back, "--out", str(tmp_path)]) == 0
    paths = delta_files.paths(tmp_path, "two")
    found = delta_files.read(*paths, TOKEN, delta_files.checksum(*paths))
    assert all(first.equal(second) for first, second in zip(found.embeddings, delta.embeddings, strict=True))
    if layout != "lora":
        assert all(found.weights[key].equal(value) for key, value in delta.weights.items())
    pipe = StableDiffusionXLPipeline.from_pretrained(folder)
    delta_files.load_into(pipe, *paths, TOKEN)
    assert pipe.tokenizer_2.convert_tokens_to_ids([TOKEN, f"{TOKEN}_1"]) == [
        len(pipe.tokenizer_2) - 2,
        len(pipe.tokenizer_2) - 1,
    ]


@pytest.mark.parametrize("layout", ["published", "diffusers"])
def test_layouts_that_cannot_hold_two_embeddings(
    layout: str, folder: Path, delta: Delta, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delta_files.write(tmp_path, "one", delta, TOKEN)
    files = [str(path) for path in delta_files.paths(tmp_path, "one")]
    given = ["delta", "export", files[0], "--token-file", files[1], "--base", str(folder)]
    assert main([*given, "--layout", layout, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert f"layout '{layout}' holds one embedding per token" in error and "choose 'lora', 'unet'" in error
    assert not (tmp_path / "out").exists()


def test_files_of_other_trainers(delta: Delta, tmp_path: Path) -> None:
    """A file without metadata, whose name is the token; and a pickle of the Custom Diffusion code."""
    assert delta.embedding_2 is not None
    plain = {"clip_l": delta.embedding, "clip_g": delta.embedding_2}
    save_file(plain, tmp_path / f"{TOKEN}.safetensors")
    found = layouts.read(tmp_path / f"{TOKEN}.safetensors")
    assert all(first.equal(second) for first, second in zip(rows(found), delta.embeddings, strict=True))
    torch.save(plain, tmp_path / f"{TOKEN}.pt")
    assert rows(layouts.read(tmp_path / f"{TOKEN}.pt"))[1].equal(delta.embedding_2)
    stored = {"unet": delta.weights, "modifier_token": {TOKEN: delta.embedding[0]}}
    torch.save(stored | {"modifier_token_2": {TOKEN: delta.embedding_2[0]}}, tmp_path / "delta.bin")
    assert rows(layouts.read(tmp_path / "delta.bin"))[1].equal(delta.embedding_2[0])
    torch.save(stored | {"modifier_token_2": {"<new2>": delta.embedding_2[0]}}, tmp_path / "delta.bin")
    with pytest.raises(InputError, match="modifier_token has .'<new1>'., modifier_token_2 .'<new2>'."):
        layouts.read(tmp_path / "delta.bin")


def test_token_files_that_do_not_fit(
    folder: Path, delta: Delta, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert delta.embedding_2 is not None
    with pytest.raises(InputError, match="lacks 'clip_g', the token's embedding in one of two"):
        token_file.embeddings_of({"clip_l": delta.embedding}, TOKEN, tmp_path)
    with pytest.raises(InputError, match="2 vectors of clip_l and 1 of clip_g"):
        token_file.embeddings_of(
            {"clip_l": delta.embedding, "clip_g": delta.embedding_2[:1]}, TOKEN, tmp_path
        )
    delta_files.write(tmp_path, "one", Delta(delta.weights, delta.embedding), TOKEN)
    files = delta_files.paths(tmp_path, "one")
    given = ["delta", "describe", str(files[0]), "--token-file", str(files[1]), "--base"]
    assert main([*given, str(folder)]) == 2
    assert "token '<new1>' has embeddings for 1 text encoders" in capsys.readouterr().err
    with pytest.raises(InputError, match="is for 1 text encoders, the pipeline has 2"):
        delta_files.load_into(StableDiffusionXLPipeline.from_pretrained(folder), *files, TOKEN)
    delta_files.write(tmp_path, "one", delta, TOKEN)
    small = fixtures.save_base(tmp_path / "small")
    weights = {"clip_l": delta.embedding, "clip_g": delta.embedding_2}
    save_file(weights, tmp_path / f"{TOKEN}.safetensors")
    assert main(["delta", "describe", str(tmp_path / f"{TOKEN}.safetensors"), "--base", str(small)]) == 2
    assert "has embeddings for 2 text encoders" in capsys.readouterr().err
