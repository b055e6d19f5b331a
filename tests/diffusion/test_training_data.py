"""Training data: views and prompts of exemplars, and prior images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attrib_core.common.errors import InputError
from attrib_core.diffusion.customization import inputs, training_data, training_loop
from attrib_core.diffusion.customization.method import Customizer
from attrib_core.diffusion.pipeline import components
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.diffusion.pipeline.latents import encode_images
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.diffusion_fixtures import TOKEN

METHOD = Customizer(views=7, scale_jitter=0.1, shift=0.1)
SUBJECTS = ("owl", "pear", "unicorn")


def test_a_view_without_jitter_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    shown = training_data.jittered(image, np.random.default_rng(1), scale_jitter=0.0, shift=0.0)
    assert np.array_equal(shown, image)


def test_views_shift_and_scale_about_the_middle() -> None:
    class Fixed:
        """A generator that draws the ends of its ranges: larger, to the right, down."""

        def uniform(self, low: float, high: float, size: int | None = None) -> Any:
            return high if size is None else np.array([high] * size)

    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    shown = training_data.jittered(image, Fixed(), scale_jitter=0.0, shift=4 / 32)  # type: ignore[arg-type]
    assert np.array_equal(shown[4:, 4:], image[:-4, :-4])
    assert np.array_equal(shown[:4, 4:], np.repeat(image[:1, :-4], 4, axis=0))
    dot = np.zeros((33, 33, 3), dtype=np.uint8)
    dot[16, 16] = dot[16, 26] = 255
    larger = training_data.jittered(dot, Fixed(), scale_jitter=0.5, shift=0.0)[..., 0].astype(float)  # type: ignore[arg-type]
    assert np.unravel_index(larger[:, :22].argmax(), (33, 22)) == (16, 16)
    assert 22 + larger[16, 22:].argmax() == 31


def test_every_exemplar_is_among_the_views_as_it_is(loaded: Components) -> None:
    style = fixtures.exemplar_sets()[4]
    one = training_data.encode_exemplar_set(
        style,
        loaded,
        METHOD,
        prompts=[f"{TOKEN} {noun}" for noun in ("a", "b", "c")],
        prior=None,
        seed=0,
    )
    assert len(one.views) == 9
    images = np.stack([training_data.to_rgb(data, where="") for data in style.images.values()])
    mode = encode_images(loaded, images)
    torch.testing.assert_close(one.views[:3], mode, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(one.views[3:6], mode, atol=1e-3)


def test_each_view_has_the_prompt_of_its_exemplar(loaded: Components) -> None:
    style = replace(
        fixtures.exemplar_sets()[4],
        subjects={f"style-0.{number}": noun for number, noun in enumerate(SUBJECTS)},
    )
    prompts = training_data.training_prompts(style, {"style": "{subject} in {token} {category}"}, TOKEN)
    assert prompts == [f"{shown} in {TOKEN} art" for shown in ("an owl", "a pear", "a unicorn")]
    bracketed = training_data.training_prompts(style, {"style": "a picture[ of {subject}] by {token}"}, TOKEN)
    assert bracketed[0] == f"a picture of an owl by {TOKEN}"
    one = training_data.encode_exemplar_set(style, loaded, METHOD, prompts=prompts, prior=None, seed=0)
    assert torch.equal(one.ids, components.tokenize(loaded, prompts * 3))
    drawn = training_loop.draw(
        one, 0, Customizer(exemplar_batch=6, prior_batch=0), num_train_timesteps=1000, seed=1
    )
    for latents, ids in zip(drawn.latents, drawn.ids, strict=True):
        view = next(place for place, view in enumerate(one.views) if torch.equal(view, latents))
        assert torch.equal(ids, one.ids[view])


def test_a_template_with_subjects_needs_them(loaded: Components) -> None:
    with pytest.raises(InputError) as caught:
        training_data.training_prompts(
            fixtures.exemplar_sets()[4], {"style": "{subject} in {token} art"}, TOKEN
        )
    assert "customizer.style_prompt: '{subject} in {token} art' asks for {subject}, but" in str(caught.value)
    assert "style-0.0" in str(caught.value)
    bracketed = {"style": "a picture[ of {subject}] by {token}"}
    assert (
        training_data.training_prompts(fixtures.exemplar_sets()[4], bracketed, TOKEN)[0]
        == f"a picture by {TOKEN}"
    )


def test_captions_of_prior_images(loaded: Components, tmp_path: Path) -> None:
    """A long one is truncated to the context of the text encoder; one with the modifier token is refused."""
    path = fixtures.write_prior(tmp_path / "images.parquet", [("object", "fruit")])
    rows = inputs.read_prior(path, [("object", "fruit")])
    rows[1]["prompt"] = "a fruit " * 40
    found = training_data.encode_prior_images(rows, loaded, [("object", "fruit")])["object", "fruit"]
    assert found.prompt_embeds.states.shape[:2] == (3, loaded.tokenizer.model_max_length)
    plain = components.encode_text(loaded, components.tokenize(loaded, [row["prompt"] for row in rows[::2]]))
    torch.testing.assert_close(found.prompt_embeds.states[::2], plain.states)
    rows[2]["prompt"] = f"a {TOKEN} fruit"
    with pytest.raises(InputError, match=f"prior image 'a {TOKEN} fruit' of 'fruit': its prompt has the"):
        training_data.encode_prior_images(rows, loaded, [("object", "fruit")])
