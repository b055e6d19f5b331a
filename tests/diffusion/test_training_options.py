"""Options of training, each against a plain form, and a stack that does not fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attrib_core.common.errors import InputError
from attrib_core.diffusion.customization import customize as part
from attrib_core.diffusion.customization import inputs, train_stack, training_data, training_loop
from attrib_core.diffusion.customization.method import scaled_learning_rate
from attrib_core.diffusion.customization.training_data import EncodedSet
from attrib_core.diffusion.customizers.custom_diffusion import CustomDiffusion
from attrib_core.diffusion.pipeline import components, description
from attrib_core.diffusion.pipeline.components import Components
from tests.diffusion import diffusion_fixtures as made
from tests.diffusion.customization_reference import apart

TOKEN = "<new1>"
METHOD = CustomDiffusion(steps=3, learning_rate=0.003, exemplar_batch=2, prior_batch=1, stack=4, views=4)


@pytest.fixture(scope="module")
def ready(loaded: Components, prior_file: Path) -> list[EncodedSet]:
    sets = made.exemplar_sets()[:4]
    classes = sorted({(one.kind, one.category) for one in sets})
    found = training_data.encode_prior_images(inputs.read_prior(prior_file, classes), loaded, classes)
    return [
        training_data.encode_exemplar_set(
            one, loaded, prompts=[f"{TOKEN} {one.noun}"], prior=found[one.kind, one.category], views=4,
            scale_jitter=0.1, shift=0.08, seed=1,
        )
        for one in sets
    ]  # fmt: skip


def trained(
    chosen: Sequence[EncodedSet], loaded: Components, method: CustomDiffusion, **named: Any
) -> list[training_loop.Trained]:
    found = training_loop.train(chosen, loaded, method, steps=method.steps, seed=5, **named)
    assert all(isinstance(model, training_loop.Trained) for model in found)
    return found  # type: ignore[return-value]


def flat(model: training_loop.Trained) -> torch.Tensor:
    return torch.cat([value.flatten() for value in (*model.delta.weights.values(), model.delta.embedding)])


def far(first: training_loop.Trained, second: training_loop.Trained, loaded: Components) -> float:
    """How far two models are apart, as a share of how far training took the first."""
    own = loaded.unet.state_dict()
    moved = torch.cat([(value - own[key]).flatten() for key, value in first.delta.weights.items()])
    return float((flat(first) - flat(second)).norm() / moved.norm())


def test_accumulated_gradients_are_those_of_one_large_batch(
    ready: list[EncodedSet], loaded: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(METHOD, accumulation=3, steps=2)
    found = trained(ready[:2], loaded, small)
    real = training_loop.draw

    def joined(one: EncodedSet, step: int, **named: Any) -> training_loop.Draw:
        """The draws of three batches as one; exemplar rows first, then prior rows."""
        each = [
            real(one, 3 * step + number, **(named | {"exemplar_batch": 2, "prior_batch": 1}))
            for number in range(3)
        ]
        both = [
            torch.cat([getattr(draw, name)[:2] for draw in each] + [getattr(draw, name)[2:] for draw in each])
            for name in ("latents", "noise", "timesteps", "sizes")
        ]
        return training_loop.Draw(
            *both, torch.cat([draw.ids for draw in each]), torch.cat([draw.prior for draw in each])
        )

    monkeypatch.setattr(training_loop, "draw", joined)
    large = trained(ready[:2], loaded, replace(METHOD, exemplar_batch=6, prior_batch=3, steps=2))
    for one, first, second in zip(ready, found, large, strict=False):
        begun = small.start(loaded, [one.noun], 5).delta(0)
        start = torch.cat([value.flatten() for value in (*begun.weights.values(), begun.embedding)])
        assert apart(flat(second), flat(first), start) < 2e-4
        assert first.loss == pytest.approx(second.loss, rel=1e-4)


def test_checkpointing_changes_nothing(ready: list[EncodedSet], loaded: Components) -> None:
    plain = trained(ready[:2], loaded, METHOD)
    blocks = [module for module in loaded.unet.modules() if hasattr(module, "gradient_checkpointing")]
    seen: list[bool] = []
    layer = loaded.unet.up_blocks[-1].resnets[-1]
    handle = layer.register_forward_pre_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    spare = trained(ready[:2], loaded, replace(METHOD, checkpointing=True))
    handle.remove()
    assert len(seen) == 2 * METHOD.steps  # forwards, and once more in each backward
    assert all(torch.equal(flat(first), flat(second)) for first, second in zip(plain, spare, strict=True))
    assert not any(block.gradient_checkpointing for block in blocks)


def test_bfloat16_is_near_and_keeps_float32_weights(ready: list[EncodedSet], loaded: Components) -> None:
    plain = trained(ready[:2], loaded, METHOD)
    coarse = trained(ready[:2], loaded, replace(METHOD, precision="bfloat16"))
    turned = trained([ready[1], ready[0]], loaded, replace(METHOD, precision="bfloat16"))
    for first, second in zip(plain, coarse, strict=True):
        assert all(value.dtype == torch.float32 for value in second.delta.weights.values())
        assert not torch.equal(flat(first), flat(second))
        assert first.loss == pytest.approx(second.loss, rel=0.05)
        assert far(first, second, loaded) < 0.5
    assert torch.equal(flat(coarse[0]), flat(turned[1]))


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
def test_min_snr_weights(loaded: Components, prediction_type: str) -> None:
    import copy

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


def test_min_snr_weighs_the_loss(ready: list[EncodedSet], loaded: Components) -> None:
    method = replace(METHOD, exemplar_batch=1, prior_batch=0)
    one = replace(ready[0], prior=None)
    drawn = training_loop.draw(
        one, 0, exemplar_batch=1, prior_batch=0, timestep_power=0.6, num_train_timesteps=1000, seed=5
    )
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
    """`training.train` on a device with room for some sets."""
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
    tiny_base: Path, prior_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception]
) -> None:  # fmt: skip
    from attrib_core.diffusion.deltas import delta_files

    sets = made.exemplar_sets()
    options = {"steps": 2, "style_steps": 2, "stack": 4, "views": 4, "exemplar_batch": 2}

    def customize(run: Path) -> list[dict[str, Any]]:
        return part.customize(
            sets, prior_file, description.describe(tiny_base), settings={"family": "custom_diffusion"} | options,
            modifier_token=TOKEN, run=run, seed=4, code="code", device="cpu",
        )  # fmt: skip

    whole = customize(tmp_path / "whole" / "run")
    seen: list[int] = []
    monkeypatch.setattr(training_loop, "train", narrow(1, error, seen))
    halved = customize(tmp_path / "halved" / "run")
    assert seen == [4, 2, 1, 1, 1, 1, 1]  # and the next stack begins at what fitted
    assert [row["model_key"] for row in halved] == [row["model_key"] for row in whole]
    base = components.load(description.describe(tiny_base), "cpu").unet.state_dict()
    for first, second in zip(whole, halved, strict=True):
        models = [
            delta_files.read(run / row["delta_path"], run / row["token_path"], TOKEN, row["checksum"])
            for run, row in ((tmp_path / "whole" / "run", first), (tmp_path / "halved" / "run", second))
        ]
        for key, value in models[0].weights.items():
            assert apart(models[1].weights[key], value, base[key]) < 2e-4


def test_memory_for_not_even_one(
    ready: list[EncodedSet], loaded: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(training_loop, "train", narrow(0, OUT_OF_MEMORY[0], seen))
    with pytest.raises(
        InputError, match="customizer.stack: not even one set at a time fits the memory of cpu"
    ):
        train_stack._fitting(ready, loaded, METHOD, steps=1, seed=0, width=4)
    assert seen == [4, 2, 1]
    monkeypatch.setattr(training_loop, "train", narrow(0, lambda: RuntimeError("another"), seen))
    with pytest.raises(RuntimeError, match="another"):
        train_stack._fitting(ready, loaded, METHOD, steps=1, seed=0, width=4)
