"""The recipe of the bundled base model: held-out objects stay out, and a killed training resumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from attrib_core.data.drawing.held_out import held_out_objects
from attrib_core.diffusion.base_recipe import autoencoder, corpus, denoiser, export
from attrib_core.diffusion.base_recipe.checkpoints import learning_rate_at
from attrib_core.diffusion.base_recipe.tokenizer import train_tokenizer

SEED = 2306


@pytest.fixture(scope="module")
def items() -> list[corpus.Item]:
    return list(corpus.items(SEED, 0.1, 1, 1))


@pytest.fixture(scope="module")
def tokenizer(items: list[corpus.Item], tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    rng = np.random.default_rng(0)
    train_tokenizer((corpus.draw_caption(item, rng) for item in items), 1200, 24, folder)
    return CLIPTokenizer.from_pretrained(folder)


def test_held_out_objects_are_in_no_image(items: list[corpus.Item]) -> None:
    held = held_out_objects(SEED, 0.1)
    assert len(held) >= 60
    assert {drawn.codepoint for drawn in held}.isdisjoint({item.drawn.codepoint for item in items})
    categories = {drawn.category for drawn in held}
    assert categories == {item.drawn.category for item in items}


def test_an_image_depends_only_on_its_name(items: list[corpus.Item]) -> None:
    item = items[5]
    again = next(other for other in corpus.items(SEED, 0.1, 1, 1) if other == item)
    first = corpus.pixels(item, SEED, 32)
    corpus.pixels(items[9], SEED, 32)
    assert np.array_equal(first, corpus.pixels(again, SEED, 32))
    assert not np.array_equal(first, corpus.pixels(item, SEED + 1, 32))


def test_captions_are_true_of_their_item(items: list[corpus.Item]) -> None:
    rng = np.random.default_rng(1)
    seen = set()
    for item in items[:400]:
        text = corpus.draw_caption(item, rng)
        assert item.drawn.name in text or item.drawn.category in text
        if item.treatment is not None:
            assert item.treatment in text
            seen.add("in the style of" in text)
    assert seen == {True, False}


def test_tokenizer_has_the_words_as_tokens_and_encodes_any_text(tokenizer) -> None:  # type: ignore[no-untyped-def]
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("a mosaic of a cat in the snow").input_ids)
    assert tokens[1:-1] == [f"{word}</w>" for word in "a mosaic of a cat in the snow".split()]
    odd = tokenizer("Zürich – <new1>!").input_ids
    assert odd[0] == tokenizer.bos_token_id and odd[-1] == tokenizer.eos_token_id and len(odd) > 5


def test_learning_rate_warms_up_and_decays() -> None:
    rates = [learning_rate_at(step, 100, 1.0, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.02)
    assert all(later <= earlier for earlier, later in zip(rates[10:], rates[11:], strict=False))


def test_normalised_latents_leave_reconstructions_as_they_were(items: list[corpus.Item]) -> None:
    torch.manual_seed(0)
    model = autoencoder.build([8, 8, 8], 4, 32)
    images = np.stack([corpus.pixels(item, SEED, 32) for item in items[:48:3]])
    target = autoencoder.to_tensor(images)
    with torch.no_grad():
        before = model.encode(target).latent_dist
        shown = model.decode(before.mode()).sample
        export.normalise_latents(model, images)
        after = model.encode(target).latent_dist
        assert torch.allclose(model.decode(after.mode()).sample, shown, atol=5e-3)
    latents = after.mode().numpy()
    assert np.allclose(latents.mean(axis=(0, 2, 3)), 0, atol=1e-2)
    assert np.allclose(latents.std(axis=(0, 2, 3)), 1, atol=1e-2)
    # noise of the posterior is scaled like its mean
    ratio = (after.std / before.std).mean(dim=(0, 2, 3)) * before.mode().numpy().std(axis=(0, 2, 3))
    assert np.allclose(ratio, 1, atol=2e-2)


def _train(tokenizer, items, folder: Path, stops: list[int]):  # type: ignore[no-untyped-def]
    torch.manual_seed(3)
    unet = denoiser.build_unet([16, 16], 4, 8, 16)
    text_encoder = denoiser.build_text_encoder(tokenizer, 16, 1)
    latents = np.random.default_rng(0).normal(size=(40, 4, 8, 8)).astype(np.float16)
    rows = denoiser.train(
        unet, text_encoder, tokenizer, latents, items[:40], np.ones(40),
        steps=6, batch=4, learning_rate=1e-3, dropout=0.1, decay=0.9, bfloat16=False, seed=1,
        checkpoint=folder / "state.pt", save_every=2,
    )  # fmt: skip
    for _ in zip(stops, rows, strict=False):
        pass
    return unet


def test_a_resumed_training_ends_in_the_same_weights(tokenizer, items, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from attrib_core.diffusion.base_recipe import checkpoints

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = _train(tokenizer, items, tmp_path / "whole", [0])
        killed = tmp_path / "killed"
        saves: list[int] = []
        plain = checkpoints.save

        class Killed(Exception):
            pass

        def save_once(path: Path, state: dict) -> None:  # type: ignore[type-arg]
            plain(path, state)
            saves.append(state["step"])
            if len(saves) == 2:
                raise Killed

        checkpoints.save = save_once  # type: ignore[assignment]
        try:
            with pytest.raises(Killed):
                _train(tokenizer, items, killed, [0])
        finally:
            checkpoints.save = plain
        assert saves == [2, 4]
        resumed = _train(tokenizer, items, killed, [0])
    finally:
        torch.set_num_threads(threads)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_decoder_training_leaves_latents_alone(items: list[corpus.Item], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = autoencoder.build([8, 8, 8], 4, 32)
    images = np.stack([corpus.pixels(item, SEED, 32) for item in items[:8]])
    before = export.encode(model, images)
    rows = list(
        autoencoder.train(
            model,
            images,
            steps=3,
            batch=2,
            crop=16,
            crop_share=0.0,
            learning_rate=1e-3,
            kl_weight=0.0,
            decoder_only=True,
            seed=0,
            checkpoint=tmp_path / "decoder.pt",
        )  # fmt: skip
    )
    assert rows[-1]["step"] == 3
    assert np.array_equal(before, export.encode(model, images))
