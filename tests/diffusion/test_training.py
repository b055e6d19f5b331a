"""Training of stacked sets: equal to a plain training loop of one set, independent of the other sets."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from attrib_core.diffusion.customization import stacked_layers, training_loop
from attrib_core.diffusion.customization.training_data import EncodedSet
from attrib_core.diffusion.customizers.custom_diffusion import CustomDiffusion
from attrib_core.diffusion.pipeline.components import Components
from tests.diffusion.customization_reference import train_plainly
from tests.diffusion.training_fixtures import relative_distance, same, train_models

METHOD = CustomDiffusion(
    steps=3, learning_rate=0.003, exemplar_batch=2, prior_batch=1, prior_weight=0.7, stack=3, views=4
)  # fmt: skip


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
@pytest.mark.parametrize("clip", [1.0, 0.01])
def test_stacked_training_equals_training_alone(
    encoded_sets: list[EncodedSet], loaded: Components, prediction_type: str, clip: float
) -> None:
    scheduler = copy.deepcopy(loaded.scheduler)
    scheduler.register_to_config(prediction_type=prediction_type)
    network = replace(loaded, scheduler=scheduler)
    method = replace(METHOD, gradient_clip=clip)
    models = train_models(encoded_sets[2:], network, method)
    before = loaded.unet.state_dict()
    for data, model in zip(encoded_sets[2:], models, strict=True):
        weights, row = train_plainly(data, network, method, seed=5)
        assert set(model.delta.weights) == set(weights) and len(weights) == 8
        for key, expected in {**weights, "row": row}.items():
            start = loaded.table[loaded.tokenizer(data.noun, add_special_tokens=False).input_ids].mean(dim=0)
            start = start if key == "row" else before[key]
            assert (expected - start).abs().max() > method.learning_rate
            found = model.delta.embedding if key == "row" else model.delta.weights[key]
            assert relative_distance(found, expected, start) < 2e-4


def test_other_sets_and_the_position_change_nothing(
    encoded_sets: list[EncodedSet], loaded: Components
) -> None:
    first = train_models([encoded_sets[0], encoded_sets[1], encoded_sets[4]], loaded, METHOD)
    turned = train_models([encoded_sets[4], encoded_sets[3], encoded_sets[0]], loaded, METHOD)
    padded = train_models([encoded_sets[4]], loaded, METHOD)
    assert same(first[0], turned[2])
    assert same(first[2], turned[0])
    assert same(first[2], padded[0])
    assert not same(first[0], first[1])


def test_the_seed_counts(encoded_sets: list[EncodedSet], loaded: Components) -> None:
    one, other = (
        training_loop.train([encoded_sets[0]], loaded, METHOD, steps=METHOD.steps, seed=seed)[0]
        for seed in (5, 6)
    )
    assert not same(one, other)


def test_training_does_not_change_the_base_model(encoded_sets: list[EncodedSet], loaded: Components) -> None:
    before = {key: value.clone() for key, value in loaded.unet.state_dict().items()}
    table = loaded.table.clone()
    train_models(encoded_sets[:2], loaded, METHOD)
    after = loaded.unet.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(before[key], value) for key, value in after.items())
    assert torch.equal(loaded.table, table)
    assert not any(parameter.requires_grad for parameter in loaded.unet.parameters())


def test_no_gradient_through_the_first_token() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 5, 3, generator=generator)
    rows = torch.randn(4, 6, 3, generator=generator, requires_grad=True)
    layer = stacked_layers.FirstTokenDetached(weight).requires_grad_()
    out = layer(rows)
    for model in range(2):
        for row in (2 * model, 2 * model + 1):
            torch.testing.assert_close(out[row], rows[row] @ weight[model].T)
    factor = torch.randn(out.shape, generator=generator)
    (out * factor).sum().backward()
    assert rows.grad is not None and layer.weight.grad is not None
    assert rows.grad[:, 0].abs().max() == 0 and rows.grad[:, 1:].abs().min() > 0
    for model in range(2):
        expected = sum(factor[row, 1:].T @ rows.detach()[row, 1:] for row in (2 * model, 2 * model + 1))
        torch.testing.assert_close(layer.weight.grad[model], expected)


def test_each_model_has_its_own_token() -> None:
    table = torch.arange(8.0).view(4, 2)
    embedding = stacked_layers.StackedEmbedding(table, 4, torch.tensor([[10.0, 11.0], [20.0, 21.0]]))
    shown = embedding(torch.tensor([[0, 4], [4, 3], [4, 1]]).repeat_interleave(2, dim=0))
    assert shown[0].tolist() == [[0, 1], [10, 11]]
    assert shown[2].tolist() == [[10, 11], [6, 7]]
    assert shown[5].tolist() == [[20, 21], [2, 3]]


def test_a_token_starts_as_the_mean_of_its_noun(loaded: Components, encoded_sets: list[EncodedSet]) -> None:
    stack = METHOD.start(loaded, ["fruit", "fruit animal"], seed=0)
    ids = [loaded.tokenizer(noun, add_special_tokens=False).input_ids for noun in ("fruit", "animal")]
    assert len(ids[0]) == len(ids[1]) == 1
    torch.testing.assert_close(stack.delta(0).embedding, loaded.table[ids[0][0]])
    torch.testing.assert_close(stack.delta(1).embedding, loaded.table[[ids[0][0], ids[1][0]]].mean(dim=0))


def draws(data: EncodedSet, power: float, steps: int = 200, batch: int = 4) -> list[training_loop.Draw]:
    method = replace(METHOD, exemplar_batch=batch, prior_batch=2, timestep_power=power)
    return [
        training_loop.draw(
            data,
            step,
            method,
            num_train_timesteps=1000,
            seed=3,
        )
        for step in range(steps)
    ]


def test_draws_follow_their_distribution(encoded_sets: list[EncodedSet]) -> None:
    drawn = draws(encoded_sets[0], power=0.6)
    exemplar = np.concatenate([one.timesteps[:4].numpy() for one in drawn])
    share = (exemplar / 1000) ** (1 / 0.6)
    assert abs(share.mean() - 0.5) < 0.01 and share.min() >= 0 and exemplar.max() <= 999
    for one in drawn:
        quarters = np.sort(((one.timesteps[:4].numpy() + 0.5) / 1000) ** (1 / 0.6) * 4).astype(int)
        assert quarters.tolist() == [0, 1, 2, 3]
    noise = torch.stack([one.noise for one in drawn])
    assert abs(float(noise.mean())) < 0.01 and abs(float(noise.std()) - 1) < 0.01
    assert {int(position) for one in drawn for position in one.prior} == {0, 1, 2}


def test_draws_of_two_sets_or_steps_differ(encoded_sets: list[EncodedSet]) -> None:
    first, second = draws(encoded_sets[0], power=1.0, steps=2)
    other = draws(encoded_sets[2], power=1.0, steps=1)[0]
    assert not torch.equal(first.noise, second.noise)
    assert not torch.equal(first.noise, other.noise)


def test_a_loss_that_is_not_finite_fails_its_set_alone(
    encoded_sets: list[EncodedSet], loaded: Components
) -> None:
    broken = replace(encoded_sets[1], views=encoded_sets[1].views * float("nan"))
    found = training_loop.train(
        [encoded_sets[0], broken, encoded_sets[2]], loaded, METHOD, steps=METHOD.steps, seed=0
    )
    sound = training_loop.train(
        [encoded_sets[0], encoded_sets[1], encoded_sets[2]], loaded, METHOD, steps=METHOD.steps, seed=0
    )
    assert isinstance(found[1], training_loop.Failed)
    assert found[1].reason.startswith("exemplar set 'object-1': its loss is nan at step 0;")
    assert same(found[0], sound[0]) and same(found[2], sound[2])
