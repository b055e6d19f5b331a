"""Every type of head, shared or not: objective and gradient, the start, the saved file, the selection."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attrib_core.common.errors import InputError
from attrib_core.features.heads import heads
from attrib_core.features.mapper import (
    average_precision,
    contrastive_training,
    exemplar_sets,
    trainable_heads,
)
from attrib_core.features.mapper.initialization import candidate_starts
from attrib_core.features.mapper.tuning_data import TuningData
from attrib_core.report import formatting
from tests.features.mapper_fixtures import DIM, plain_loss, tuned, tuning_data, unit

HEADS = ("linear", "mlp", "channel")
ALL = list(itertools.product(HEADS, (False, True)))
every_head = pytest.mark.parametrize(("head", "shared"), ALL)
HIDDEN = 20
WHITENS = ("identity", "whitened", "within")


def of_head(head: str, shared: bool, **changes: Any) -> dict[str, Any]:
    """Keyword arguments of `tuned`."""
    return {"head": head, "shared": shared, "hidden": HIDDEN, **changes}


def starts_of(head: str) -> tuple[str, ...]:
    return ("identity",) if head == "channel" else WHITENS


def scores(both: heads.Heads, given: TuningData) -> np.ndarray:
    own = given.validation
    return average_precision.mean_average_precisions(
        own, both.real(own.real), both.synth(own.synth), both.real(given.distractors)
    )


# --- objective and gradient


def plain_map(head: str, values: Sequence[np.ndarray], basis: np.ndarray, rows: np.ndarray) -> np.ndarray:
    if head == "channel":
        return unit(rows * values[0])
    if head == "linear":
        return unit(rows @ (np.eye(len(basis)) + basis @ values[0] @ basis.T).T + basis @ values[1])
    inner, level, outer, shift = values
    hidden = np.maximum(rows @ basis @ inner.T + level, 0)
    return unit(rows + hidden @ (basis @ outer).T + basis @ shift)


def plain_drift(head: str, values: Sequence[np.ndarray], basis: np.ndarray) -> float:
    if head == "mlp":
        inner, _, outer, _ = values
        return sum(
            np.linalg.norm(inner[k]) ** 2 * np.linalg.norm(outer[:, k]) ** 2 for k in range(len(inner))
        )
    dim = len(basis)
    matrix = np.diag(values[0]) if head == "channel" else np.eye(dim) + basis @ values[0] @ basis.T
    return float(np.linalg.norm(matrix.T @ matrix - np.eye(dim)) ** 2)


def in_double(head: trainable_heads.TrainableHead, random: np.random.Generator) -> None:
    """Convert a head to float64 and change its parameters at random."""
    for name, value in list(vars(head).items()):
        if isinstance(value, torch.Tensor):
            moved = value.detach().double()
            if value.requires_grad:
                moved = (moved + 0.3 * torch.from_numpy(random.normal(size=moved.shape))).requires_grad_()
                place = next(at for at, one in enumerate(head.parameters) if one is value)
                head.parameters[place] = moved
            setattr(head, name, moved)


@every_head
@pytest.mark.parametrize("negatives", [0, 2])
def test_objective_and_gradient_against_plain_computations(head: str, shared: bool, negatives: int) -> None:
    random = np.random.default_rng(1)
    dim, rank, penalty = 6, 4, 0.3
    basis = np.linalg.qr(random.normal(size=(dim, rank)))[0]
    real, synth, others = (random.normal(size=(rows, dim)) for rows in (5, 5, negatives))
    groups = np.array([0, 1, 1, 2, 3])
    ones, numbers = np.ones((4, dim), np.float32), np.arange(4)
    train = exemplar_sets.ExemplarSets(tuple("abcd"), ones, numbers, ones, numbers)
    two = [
        trainable_heads.create(head, train, basis, hidden=5, key=("x", side))
        for side in range(1 if shared else 2)
    ]
    for one in two:
        in_double(one, random)
        one.__dict__.update(_basis_tensor=torch.from_numpy(basis))  # without its rounding to float32
    point = [[value.detach().numpy().copy() for value in one.parameters] for one in two]

    def plain(values: list[list[np.ndarray]]) -> float:
        mapped = [
            plain_map(head, own, basis, rows)
            for own, rows in ((values[0], real), (values[-1], synth), (values[0], others))
        ]
        total = plain_loss(mapped[0], mapped[1], groups, 0.5, mapped[2])
        return total + penalty * sum(plain_drift(head, own, basis) for own in values)

    def vectors(rows: np.ndarray) -> trainable_heads.Vectors:
        return trainable_heads.Vectors(torch.from_numpy(rows), torch.from_numpy(rows @ basis))

    loss = contrastive_training.contrastive_loss(
        two[0].map(vectors(real)),
        two[-1].map(vectors(synth)),
        torch.from_numpy(groups),
        temperature=0.5,
        negatives=two[0].map(vectors(others)) if negatives else None,
    )
    total = loss + penalty * sum(one.drift() for one in two)
    assert total.item() == pytest.approx(plain(point), rel=1e-10)
    total.backward()
    step = 1e-6
    for number, own in enumerate(point):
        for which, value in enumerate(own):
            gradient = two[number].parameters[which].grad
            assert gradient is not None
            for place in np.ndindex(value.shape):
                ends = []
                for sign in (1, -1):
                    moved = [[array.copy() for array in arrays] for arrays in point]
                    moved[number][which][place] += sign * step
                    ends.append(plain(moved))
                slope = (ends[0] - ends[1]) / (2 * step)
                assert gradient[place].item() == pytest.approx(slope, rel=1e-4, abs=1e-7)


# --- the start


@every_head
def test_the_start_gives_untuned_ranks(head: str, shared: bool) -> None:
    """Each exemplar has as many distractors ranked above it as without a head."""
    given = tuning_data(bend=0.6)
    result = tuned(given, starts=("identity",), **of_head(head, shared, epochs=1, learning_rate=1e-12))
    untuned = heads.load(None)
    own = given.validation

    def above(both: heads.Heads) -> np.ndarray:
        pool = both.real(given.distractors) @ both.synth(own.synth).T
        mine = both.real(own.real) @ both.synth(own.synth).T
        return (pool[None] > mine[:, None]).sum(axis=1)

    assert result.choice["identity_is_best"] and result.choice["gain"] == 0.0
    assert np.array_equal(above(result.heads), above(untuned))
    if head != "linear":  # a matrix product rounds to 2**-26 of a length
        assert np.array_equal(result.heads.real(own.real), untuned.real(own.real))
        assert np.array_equal(result.heads.synth(own.synth), untuned.synth(own.synth))
    rows = [row for row in result.curve if row["epoch"] == 0]
    assert len({row["validation_mean_average_precision"] for row in rows}) == 1
    assert all(row["drift"] == 0 for row in rows)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("start", ["whitened", "within"])
def test_an_mlp_starts_from_whitened_features_where_a_linear_head_does(start: str, shared: bool) -> None:
    given = tuning_data(negatives=30)
    options = {"starts": (start,), "epochs": 1, "learning_rate": 1e-12}
    by_head = {head: tuned(given, **of_head(head, shared, **options)) for head in ("linear", "mlp")}
    for one in by_head.values():
        assert one.choice["start"] == start
    linear, mlp = (one.heads for one in by_head.values())
    assert isinstance(mlp.real_head, heads.Mlp) and mlp.real_head.skip is not None
    assert np.allclose(linear.real(given.distractors), mlp.real(given.distractors), atol=2e-6)
    assert np.allclose(linear.synth(given.train.synth), mlp.synth(given.train.synth), atol=2e-6)


def test_a_shared_start_centres_both_kinds_of_images_alike() -> None:
    given = tuning_data()
    for start in candidate_starts(given, WHITENS, (0.2,), shared=True):
        if start.whitening is not None:
            assert np.array_equal(
                start.whitening.real(given.distractors), start.whitening.synth(given.distractors)
            )
    apart = [start.whitening for start in candidate_starts(given, WHITENS, (0.2,))]
    assert apart[1] is not None
    middle = (apart[1].real_mean + apart[1].synth_mean) / 2
    shared = [start.whitening for start in candidate_starts(given, WHITENS, (0.2,), shared=True)]
    assert shared[1] is not None and np.allclose(shared[1].real_mean, middle)


def test_a_channel_head_cannot_start_from_whitened_features() -> None:
    with pytest.raises(
        InputError, match=r"mapper.starts: identity, within, but a channel head .* identity alone"
    ):
        tuned(tuning_data(), starts=("identity", "within"), head="channel")


def test_an_unknown_head_is_named() -> None:
    with pytest.raises(InputError, match="mapper.head: 'cubic', expected one of linear, channel, mlp"):
        tuned(tuning_data(), head="cubic")


# --- the contract of a trained head


@every_head
def test_the_saved_heads_are_the_selected_ones(head: str, shared: bool, tmp_path: Path) -> None:
    """The heads read back have the score of the selection, and a second tuning writes the same bytes."""
    given = tuning_data(negatives=30)
    options = of_head(head, shared, starts=starts_of(head), distractors=10, epochs=3)
    result = tuned(given, **options)
    heads.save(tmp_path / "one", result.heads, result.choice)
    again = heads.load(tmp_path / "one")
    assert type(again.real_head) is type(again.synth_head) is {
        "linear": heads.Linear, "mlp": heads.Mlp, "channel": heads.Channel
    }[head]  # fmt: skip
    for mine, other in ((again.real, result.heads.real), (again.synth, result.heads.synth)):
        assert np.array_equal(mine(given.distractors), other(given.distractors))
    assert scores(again, given).mean() == pytest.approx(
        result.choice["validation_mean_average_precision"], abs=1e-3
    )
    repeated = tuned(given, **(options | {"starts": options["starts"][::-1]}))
    heads.save(tmp_path / "two", repeated.heads, repeated.choice)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert repeated.curve == result.curve


@every_head
def test_a_shared_head_maps_both_sides_alike_and_two_differ(head: str, shared: bool) -> None:
    given = tuning_data()
    result = tuned(given, starts=("identity",), **of_head(head, shared, epochs=3, learning_rate=0.01))
    assert result.choice["epoch"] > 0
    same = np.array_equal(result.heads.real(given.distractors), result.heads.synth(given.distractors))
    assert same is shared


@every_head
def test_a_large_penalty_keeps_the_start(head: str, shared: bool) -> None:
    options = of_head(head, shared, starts=("identity",), learning_rate=0.02)
    ends = {
        penalty: tuned(tuning_data(), penalties=(penalty,), **options).curve[-1]["drift"]
        for penalty in (0.0, 30.0)
    }
    assert ends[30.0] < 0.1 * ends[0.0]


@every_head
def test_bits_of_a_row_do_not_depend_on_other_rows(head: str, shared: bool) -> None:
    both = tuned(tuning_data(), starts=("identity",), **of_head(head, shared, epochs=3)).heads
    rows = np.random.default_rng(3).normal(size=(2 * heads.BLOCK_ROWS + 5, DIM)).astype(np.float32)
    together = both.synth(rows)
    order = np.random.default_rng(2).permutation(len(rows))
    assert np.array_equal(both.synth(rows[order]), together[order])
    for first, last in ((0, 1), (7, 19), (900, 2000)):
        assert np.array_equal(both.synth(rows[first:last]), together[first:last])


# --- gain where there is something to gain, and no harm elsewhere


def noisy_data() -> TuningData:
    """Data on which every type of head can improve, with real and synthesized images in the same space."""
    given = tuning_data(bend=0.0, noise=0.25)
    random = np.random.default_rng(11)
    loud = np.where(np.arange(DIM) < 3, 6.0, 1.0)

    def with_noise(rows: np.ndarray) -> np.ndarray:
        noise = random.normal(size=rows.shape) * (loud > 1)
        return (rows + 3 * noise).astype(np.float32)

    groups = [
        replace(one, real=with_noise(one.real), synth=with_noise(one.synth))
        for one in (given.train, given.validation)
    ]
    return TuningData(*groups, with_noise(given.distractors), given.negatives)


@every_head
def test_tuning_gains_where_there_is_something_to_gain(head: str, shared: bool) -> None:
    """Three directions are noise of large variance: every type of head can reduce their weight."""
    given = noisy_data()
    options = of_head(head, shared, epochs=20, patience=20, learning_rate=0.04)
    result = tuned(given, penalties=(0.0,), starts=("identity",), **options)
    assert result.choice["gain"] > 0.05, result.choice["verdict"]
    untuned = scores(heads.load(None), given).mean()
    assert scores(result.heads, given).mean() > untuned + 0.05


@every_head
def test_tuning_does_no_harm_where_there_is_nothing_to_gain(head: str, shared: bool) -> None:
    given = tuning_data(bend=0.0, noise=0.01)
    result = tuned(given, starts=("identity",), **of_head(head, shared, learning_rate=0.05))
    assert result.choice["identity_is_best"]
    assert np.array_equal(scores(result.heads, given), scores(heads.load(None), given))


def test_names_of_mappers() -> None:
    given = [heads.mapper_name(head, shared=shared, kind="object") for head, shared in ALL]
    assert given == [
        "linear-object", "linear-shared-object", "mlp-object", "mlp-shared-object", "channel-object",
        "channel-shared-object",
    ]  # fmt: skip
    assert [formatting.mapper(name) for name in given] == [
        "object mapper", "shared object mapper", "mlp object mapper", "shared mlp object mapper",
        "channel object mapper", "shared channel object mapper",
    ]  # fmt: skip
    assert formatting.mapper("mlp-shared-both") == "shared mlp joint mapper"
