"""The published augmentation: sizes, prompts, positions and masks, each against a plain implementation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.config.load import load_config, plain
from attrib_core.diffusion.customization import augmentation, training_data, training_loop
from attrib_core.diffusion.customization.augmentation import View
from attrib_core.diffusion.customization.method import Customizer
from attrib_core.diffusion.customizers.custom_diffusion import CustomDiffusion
from attrib_core.diffusion.pipeline import components
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.storage import yaml_files
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.diffusion_fixtures import TOKEN

SIDE, CELLS = 64, 16
IMAGE = np.random.default_rng(0).integers(0, 100, (SIDE, SIDE, 3), dtype=np.uint8)  # never the canvas's 128


def views(count: int) -> list[View]:
    return [augmentation.resized(IMAGE, np.random.default_rng(seed), CELLS) for seed in range(count)]


def box(view: View) -> tuple[int, int, int]:
    """Top, left and size of the part that is not canvas."""
    shown = (view.image != augmentation.CANVAS).any(axis=2)
    rows, columns = np.nonzero(shown.any(axis=1))[0], np.nonzero(shown.any(axis=0))[0]
    assert len(rows) == len(columns)
    return int(rows[0]), int(columns[0]), len(rows)


def test_sizes_prompts_and_positions() -> None:
    found = views(600)
    large = [view for view in found if view.prompt_prefix in augmentation.LARGE_PREFIXES]
    assert abs(len(large) / 600 - 1 / 3) < 0.06
    assert all(view.mask.all() and view.image.shape == (SIDE, SIDE, 3) for view in large)
    small = [view for view in found if view.prompt_prefix not in augmentation.LARGE_PREFIXES]
    boxes = [box(view) for view in small]
    sizes = [size for _, _, size in boxes]
    assert min(sizes) == 21 and max(sizes) == 64
    for view, (top, left, size) in zip(small, boxes, strict=True):
        assert (view.prompt_prefix in augmentation.SMALL_PREFIXES) == (size < 0.6 * SIDE)
        assert view.prompt_prefix != "" or size >= 0.6 * SIDE
        expected = np.zeros((CELLS, CELLS), dtype=bool)
        for row in range(CELLS):
            for column in range(CELLS):
                # complete cells of the view, without its outermost ring
                inside = top // 4 + 1 <= row < (top + size) // 4 - 1
                expected[row, column] = inside and left // 4 + 1 <= column < (left + size) // 4 - 1
        assert np.array_equal(view.mask, expected) and expected.any()
    assert {view.prompt_prefix for view in found} == {
        *augmentation.SMALL_PREFIXES,
        *augmentation.LARGE_PREFIXES,
        "",
    }
    assert len({(top, left) for top, left, _ in boxes}) > 200


def test_a_view_of_full_size_is_the_image() -> None:
    class Fixed:
        """A generator that chooses the smaller kind, and always the largest number."""

        def uniform(self) -> float:
            return 0.0

        def integers(self, low: int, high: int, size: int | None = None) -> object:
            return high - 1 if size is None else np.array([high - 1] * size)

        def choice(self, words: tuple[str, ...]) -> str:
            return words[0]

    view = augmentation.resized(IMAGE, Fixed(), CELLS)  # type: ignore[arg-type]
    assert np.array_equal(view.image, IMAGE) and view.prompt_prefix == ""
    assert view.mask.sum() == (CELLS - 2) ** 2


def test_a_mask_is_never_empty() -> None:
    for factor, cells in ((4, 8), (8, 8), (16, 4)):
        side = factor * cells
        for size in range(side // 3, side + 1):
            for start in range(side - size + 1):
                mask = augmentation.inner_cells(start, size, factor, cells)
                place = int(np.nonzero(mask)[0][0])
                assert mask.any() and start - factor < place * factor < start + size


def test_half_of_the_views_are_mirrored() -> None:
    found = [augmentation.flipped(IMAGE, np.random.default_rng(seed)) for seed in range(400)]
    turned = [np.array_equal(one, IMAGE[:, ::-1]) for one in found]
    assert all(one or np.array_equal(shown, IMAGE) for one, shown in zip(turned, found, strict=True))
    assert abs(np.mean(turned) - 0.5) < 0.08


def encode(loaded: Components, count: int = 16, **switches: bool) -> training_data.EncodedSet:
    one = fixtures.exemplar_sets()[0]
    method = Customizer(views=count, scale_jitter=0.0, shift=0.0, **switches)
    return training_data.encode_exemplar_set(
        one, loaded, method, prompts=[f"{TOKEN} fruit"], prior=None, seed=1
    )


def test_each_switch(loaded: Components) -> None:
    plain = encode(loaded)
    assert plain.masks is None and len(plain.ids.unique(dim=0)) == 1 and len(plain.views) == 16
    assert all(torch.equal(view, plain.views[0]) for view in plain.views)
    flips = encode(loaded, horizontal_flip=True)
    assert torch.equal(flips.views[0], plain.views[0]) and len(flips.views.unique(dim=0)) == 2
    sizes = encode(loaded, random_resize=True)
    assert sizes.masks is None and len(sizes.ids.unique(dim=0)) == 1 and len(sizes.views.unique(dim=0)) == 16
    words = encode(loaded, random_resize=True, size_prompts=True)
    assert torch.equal(words.views, sizes.views)
    said = {loaded.tokenizer.decode(ids, skip_special_tokens=True) for ids in words.ids}
    # the tiny tokenizer may not spell all words back, but there are five beginnings, of which 16 views may miss one
    assert 3 <= len(said) == len(words.ids.unique(dim=0)) <= 5
    masked = encode(loaded, random_resize=True, loss_mask=True)
    assert torch.equal(masked.views, sizes.views) and masked.masks is not None
    assert masked.masks.shape == (16, 1, 8, 8) and 0 < masked.masks.mean() < 1


def test_the_loss_counts_only_inside_the_mask(loaded: Components) -> None:
    """The network's input is the same; its error is averaged over channels and the cells of the mask."""
    method = CustomDiffusion(exemplar_batch=3, prior_batch=0, stack=1, views=16)
    one = encode(loaded, random_resize=True, loss_mask=True)
    drawn = training_loop.draw(one, 2, method, num_train_timesteps=1000, seed=5)
    stack = method.start(loaded, ["fruit"], 5)
    with stack.attached(), torch.no_grad():
        found = training_loop.step_losses([one], loaded, method, 2, 5)
        plain = training_loop.step_losses([replace(one, masks=None)], loaded, method, 2, 5)
        states = components.encode_text(loaded, drawn.ids).states
        scheduler = loaded.scheduler
        noisy = scheduler.add_noise(drawn.latents, drawn.noise, drawn.timesteps)
        target = scheduler.get_velocity(drawn.latents, drawn.noise, drawn.timesteps)
        squares = (loaded.unet(noisy, drawn.timesteps, states).sample - target).square()
    assert drawn.masks is not None
    expected = []
    for row, mask in zip(squares, drawn.masks, strict=True):
        inside = [row[:, y, x].mean() for y in range(8) for x in range(8) if mask[0, y, x]]
        expected.append(torch.stack(inside).mean())
    torch.testing.assert_close(found[0], torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plain[0], squares.mean(), rtol=1e-4, atol=1e-5)


def test_the_published_loss_is_four_times_that_of_the_published_settings(loaded: Components) -> None:
    """There, errors of exemplars are summed over channels and divided by cells; those of prior images are averaged."""
    values = yaml_files.read(Path(__file__).parents[2] / "config" / "paper.yaml")["customizer"]
    method = CustomDiffusion(exemplar_batch=3, prior_batch=2, prior_weight=values["prior_weight"], stack=1)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        text = components.encode_text(loaded, components.tokenize(loaded, ["a fruit", "an animal"]))
    prior = training_data.EncodedPrior(torch.randn(2, 4, 8, 8, generator=generator), text, torch.zeros(2, 6))
    one = replace(encode(loaded, random_resize=True, loss_mask=True), prior=prior)
    drawn = training_loop.draw(one, 2, method, num_train_timesteps=1000, seed=5)
    stack = method.start(loaded, ["fruit"], 5)
    with stack.attached(), torch.no_grad():
        found = training_loop.step_losses([one], loaded, method, 2, 5)
        states = torch.cat([components.encode_text(loaded, drawn.ids).states, text.states[drawn.prior]])
        noisy = loaded.scheduler.add_noise(drawn.latents, drawn.noise, drawn.timesteps)
        target = loaded.scheduler.get_velocity(drawn.latents, drawn.noise, drawn.timesteps)
        squares = (loaded.unet(noisy, drawn.timesteps, states).sample - target).square()
    assert drawn.masks is not None
    own = (squares[:3] * drawn.masks).sum(dim=(1, 2, 3)) / drawn.masks.sum(dim=(1, 2, 3))
    torch.testing.assert_close(4 * found[0], own.mean() + squares[3:].mean(), rtol=1e-4, atol=1e-5)
    assert values["gradient_clip"] == 1 / 4  # of a gradient four times as large


def test_training_with_all_switches(loaded: Components) -> None:
    method = CustomDiffusion(steps=2, exemplar_batch=2, prior_batch=0, stack=2, views=8)
    switches = dict.fromkeys(("random_resize", "size_prompts", "loss_mask", "horizontal_flip"), True)
    found = training_loop.train([encode(loaded, 8, **switches)], loaded, method, steps=2, seed=1)
    other = training_loop.train([encode(loaded, 8)], loaded, method, steps=2, seed=1)
    assert isinstance(found[0], training_loop.Trained) and isinstance(other[0], training_loop.Trained)
    assert np.isfinite(found[0].loss) and found[0].loss != other[0].loss


def test_the_published_settings_are_a_config() -> None:
    """`config/paper.yaml`, except for images and weights, which are not shipped."""
    values = yaml_files.read(Path(__file__).parents[2] / "config" / "paper.yaml")
    for key in ("pool", "exemplars", "base_model"):
        del values[key]
    config = plain(load_config(values))
    family, options = families.split(config["customizer"])
    method = families.load("customizers", family, options)
    assert method.rate == pytest.approx(8e-5)
    assert method.random_resize and method.size_prompts and method.loss_mask and method.horizontal_flip
    assert (method.steps_of("object"), method.weight_decay) == (250, 0.01)
    prior = {name: config["prior"][name] for name in ("family", "images", "steps", "guidance", "eta")}
    assert prior == {"family": "generated", "images": 200, "steps": 50, "guidance": 6.0, "eta": 1.0}


def test_a_switch_that_needs_another() -> None:
    for name in ("size_prompts", "loss_mask"):
        with pytest.raises(InputError, match=rf"customizer.{name}: True, but random_resize is False"):
            load_config({"customizer": {"family": "custom_diffusion", name: True}})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"object_prompt": "a {token} {thing}"}, r"customizer.object_prompt: .*; placeholders are {token}"),
        ({"object_prompt": "a {token} {"}, r"customizer.object_prompt: .*; placeholders are {token}"),
        (
            {"style_prompt": "{token}[ of {token.x}]"},
            r"customizer.style_prompt: .*; placeholders are {token}",
        ),
        ({"style_prompt": "a {{token}}"}, r"customizer.style_prompt: .* has no {token}"),
        ({"initializer": " "}, "customizer.initializer: ' ' is empty"),
    ],
)
def test_prompts_and_initializers_are_checked_with_the_config(options: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_config({"customizer": {"family": "custom_diffusion"} | options})
