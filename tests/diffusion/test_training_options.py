"""Options of training, each against a plain implementation, and a stack that does not fit into memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attrib_core.common.errors import InputError
from attrib_core.diffusion.customization import train_stack, training_loop
from attrib_core.diffusion.customization.method import scaled_learning_rate
from attrib_core.diffusion.customization.training_data import EncodedSet
from attrib_core.diffusion.customizers.custom_diffusion import CustomDiffusion
from attrib_core.diffusion.deltas import delta_files
from attrib_core.diffusion.pipeline import components, description
from attrib_core.diffusion.pipeline.components import Components
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.diffusion_fixtures import TOKEN
from tests.diffusion.training_fixtures import flat, relative_distance, train_models

METHOD = CustomDiffusion(steps=3, learning_rate=0.003, exemplar_batch=2, prior_batch=1, stack=4, views=4)


def far(first: training_loop.Trained, second: training_loop.Trained, loaded: Components) -> float:
    """The distance of two models, as a share of how far training moved the first."""
    own = loaded.unet.state_dict()
    moved = torch.cat([(value - own[key]).flatten() for key, value in first.delta.weights.items()])
    return float((flat(first.delta) - flat(second.delta)).norm() / moved.norm())


def test_accumulated_gradients_are_those_of_one_large_batch(
    encoded_sets: list[EncodedSet], loaded: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(METHOD, accumulation=3, steps=2)
    found = train_models(encoded_sets[:2], loaded, small)
    real = training_loop.draw

    def joined(one: EncodedSet, step: int, _method: CustomDiffusion, **named: Any) -> training_loop.Draw:
        """Combine the draws of three batches; exemplar rows first, then prior rows."""
        each = [real(one, 3 * step + number, METHOD, **named) for number in range(3)]
        both = [
            torch.cat([getattr(draw, name)[:2] for draw in each] + [getattr(draw, name)[2:] for draw in each])
            for name in ("latents", "noise", "timesteps", "sizes")
        ]
        return training_loop.Draw(
            *both, torch.cat([draw.ids for draw in each]), torch.cat([draw.prior for draw in each])
        )

    monkeypatch.setattr(training_loop, "draw", joined)
    large = train_models(encoded_sets[:2], loaded, replace(METHOD, exemplar_batch=6, prior_batch=3, steps=2))
    for one, first, second in zip(encoded_sets, found, large, strict=False):
        start = flat(small.start(loaded, [one.noun], 5).delta(0))
        assert relative_distance(flat(second.delta), flat(first.delta), start) < 2e-4
        assert first.loss == pytest.approx(second.loss, rel=1e-4)


def test_checkpointing_changes_nothing(encoded_sets: list[EncodedSet], loaded: Components) -> None:
    plain = train_models(encoded_sets[:2], loaded, METHOD)
    blocks = [module for module in loaded.unet.modules() if hasattr(module, "gradient_checkpointing")]
    seen: list[bool] = []
    layer = loaded.unet.up_blocks[-1].resnets[-1]
    handle = layer.register_forward_pre_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    spare = train_models(encoded_sets[:2], loaded, replace(METHOD, checkpointing=True))
    handle.remove()
    assert len(seen) == 2 * METHOD.steps  # forwards, and once more in each backward
    assert all(
        torch.equal(flat(first.delta), flat(second.delta)) for first, second in zip(plain, spare, strict=True)
    )
    assert not any(block.gradient_checkpointing for block in blocks)


def test_bfloat16_is_near_and_keeps_float32_weights(
    encoded_sets: list[EncodedSet], loaded: Components
) -> None:
    plain = train_models(encoded_sets[:2], loaded, METHOD)
    coarse = train_models(encoded_sets[:2], loaded, replace(METHOD, precision="bfloat16"))
    turned = train_models([encoded_sets[1], encoded_sets[0]], loaded, replace(METHOD, precision="bfloat16"))
    for first, second in zip(plain, coarse, strict=True):
        assert all(value.dtype == torch.float32 for value in second.delta.weights.values())
        assert not torch.equal(flat(first.delta), flat(second.delta))
        assert first.loss == pytest.approx(second.loss, rel=0.05)
        assert far(first, second, loaded) < 0.5
    assert torch.equal(flat(coarse[0].delta), flat(turned[1].delta))


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
def test_min_snr_weights(loaded: Components, prediction_type: str) -> None:
    scheduler = copy.deepcopy(loaded.scheduler)
    scheduler.register_to_config(prediction_type=prediction_type)
    network = replace(loaded, scheduler=scheduler)
    steps = torch.tensor([0, 10, 300, 700, 999])
    found = training_loop.min_snr_weights(network, steps, 5.0)
    for step, weight in zip(steps.tolist(), found.tolist(), strict=True):
        alpha = float(scheduler.alphas_cumprod[step])
        ratio = alpha / (1 - alpha)
        if prediction_type == "v_prediction":
            expected = min(ratio, 5.0) / (ratio + 1)
        else:
            expected = min(ratio, 5.0) / ratio if ratio else 1.0
        assert weight == pytest.approx(expected, rel=1e-4)
    assert found.isfinite().all()


def test_min_snr_weighs_the_loss(encoded_sets: list[EncodedSet], loaded: Components) -> None:
    method = replace(METHOD, exemplar_batch=1, prior_batch=0)
    one = replace(encoded_sets[0], prior=None)
    drawn = training_loop.draw(one, 0, method, num_train_timesteps=1000, seed=5)
    stack = method.start(loaded, ["fruit"], 5)
    with stack.attached(), torch.no_grad():
        plain = training_loop.step_losses([one], loaded, method, 0, 5)
        weighed = training_loop.step_losses([one], loaded, replace(method, min_snr=5.0), 0, 5)
    torch.testing.assert_close(weighed, plain * training_loop.min_snr_weights(loaded, drawn.timesteps, 5.0))


def test_the_published_learning_rate() -> None:
    """1e-5, scaled as `--scale_lr` does for 2 processes of 2 images with a prior."""
    assert scaled_learning_rate(1e-5, 4, prior=True) == pytest.approx(8e-5)
    assert scaled_learning_rate(1e-5, 2, 3, prior=False) == pytest.approx(6e-5)
    scaled = replace(METHOD, learning_rate=1e-5, scale_learning_rate=True, exemplar_batch=4)
    assert scaled.rate == pytest.approx(8e-5)
    assert METHOD.rate == METHOD.learning_rate


def test_a_token_may_start_as_another_word(loaded: Components) -> None:
    ids = loaded.tokenizer("animal", add_special_tokens=False).input_ids
    stack = replace(METHOD, initializer="animal").start(loaded, ["fruit", "art"], 0)
    for place in (0, 1):
        torch.testing.assert_close(stack.delta(place).embedding, loaded.table[ids].mean(dim=0))


def narrow(limit: int, error: Callable[[], Exception], seen: list[int]) -> Callable[..., Any]:
    """`training_loop.train` on a device with memory for `limit` sets."""
    real = training_loop.train

    def train(chosen: Sequence[EncodedSet], *rest: Any, width: int, **named: Any) -> Any:
        seen.append(width)
        if width > limit:
            raise error()
        return real(chosen, *rest, width=width, **named)

    return train


OUT_OF_MEMORY = [
    lambda: torch.OutOfMemoryError("out of memory"),
    lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_half_the_stack_where_memory_is_short(
    error: Callable[[], Exception],
    tiny_base: Path,
    customize: Callable[..., list[dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"stack": 4, "views": 4, "exemplar_batch": 2}
    full = customize(fixtures.exemplar_sets(), "full", **options)
    seen: list[int] = []
    monkeypatch.setattr(training_loop, "train", narrow(1, error, seen))
    halved = customize(fixtures.exemplar_sets(), "halved", **options)
    assert seen == [4, 2, 1, 1, 1, 1, 1]  # and the next stack begins at what fitted
    assert [row["model_key"] for row in halved] == [row["model_key"] for row in full]
    base = components.load(description.describe(tiny_base), "cpu").unet.state_dict()
    for first, second in zip(full, halved, strict=True):
        deltas = [
            delta_files.read(run / row["delta_path"], run / row["token_path"], TOKEN, row["checksum"])
            for run, row in ((tmp_path / "full" / "run", first), (tmp_path / "halved" / "run", second))
        ]
        for key, value in deltas[0].weights.items():
            assert relative_distance(deltas[1].weights[key], value, base[key]) < 2e-4


def test_memory_for_not_even_one(
    encoded_sets: list[EncodedSet], loaded: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(training_loop, "train", narrow(0, OUT_OF_MEMORY[0], seen))
    with pytest.raises(
        InputError, match="customizer.stack: not even one set at a time fits into the memory of cpu"
    ):
        train_stack._train_within_memory(encoded_sets[:4], loaded, METHOD, steps=1, seed=0, width=4)
    assert seen == [4, 2, 1]
    monkeypatch.setattr(training_loop, "train", narrow(0, lambda: RuntimeError("another"), seen))
    with pytest.raises(RuntimeError, match="another"):
        train_stack._train_within_memory(encoded_sets[:4], loaded, METHOD, steps=1, seed=0, width=4)
