"""The stage `tune`: loss, batches and scores, and selection by the validation split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from attrib_core.common.errors import InputError
from attrib_core.features.heads import heads
from attrib_core.features.mapper import average_precision, contrastive_training, exemplar_sets
from attrib_core.storage import tables
from tests.features.mapper_fixtures import DIM, plain_loss, random_sets, tuned, tuning_data, unit

# --- the loss


@pytest.mark.parametrize("negatives", [0, 3])
def test_loss_against_a_plain_computation(negatives):
    random = np.random.default_rng(0)
    real, synth = (unit(random.normal(size=(7, 5))) for _ in range(2))
    others = unit(random.normal(size=(negatives, 5)))
    groups = np.array([0, 0, 1, 2, 2, 2, 3])
    got = contrastive_training.contrastive_loss(
        *map(torch.from_numpy, (real, synth, groups)),
        temperature=0.2,
        negatives=torch.from_numpy(others) if negatives else None,
    )
    assert got.item() == pytest.approx(plain_loss(real, synth, groups, 0.2, others), rel=1e-12)


# --- directions and batches


def test_directions_are_orthonormal_and_all_sets_have_the_same_weight():
    given = random_sets(9, seed=0)
    basis = contrastive_training.leading_directions(given, 7)
    assert basis.shape == (DIM, 7)
    assert np.allclose(basis.T @ basis, np.eye(7), atol=1e-12)
    assert (basis[np.abs(basis).argmax(axis=0), np.arange(7)] > 0).all()
    rows = np.r_[np.arange(len(given.real)), np.repeat(np.flatnonzero(given.real_set == 2), 4)]
    heavier = replace(given, real=given.real[rows], real_set=given.real_set[rows])
    assert np.allclose(contrastive_training.leading_directions(heavier, 7), basis, atol=1e-6)


def test_directions_are_no_more_than_the_training_embeddings_span():
    given = random_sets(2, seed=0, queries=1)  # two exemplars, two queries
    assert contrastive_training.leading_directions(given, DIM).shape == (DIM, 4)


def test_batches_use_all_sets_equally_often_and_pair_within_sets():
    given = random_sets(9, seed=0, queries=7)

    def batches(epoch: int) -> list[contrastive_training.Batch]:
        options = {"batch_sets": 4, "images_each": 2, "negatives": 3, "pool": 10, "key": (1,)}
        return list(contrastive_training.batches(given, epoch=epoch, **options))

    steps = batches(epoch=1)
    assert len(steps) == 4 * 2  # 7 queries in pairs of 2: 4 rounds, of 9 sets taken 4 at a time
    seen = np.zeros(9, int)
    for batch in steps:
        assert np.array_equal(given.real_set[batch.real], batch.groups)
        assert np.array_equal(given.synth_set[batch.synth], batch.groups)
        assert len(batch.synth.unique()) == len(batch.synth) == 8
        assert len(batch.negatives.unique()) == 3 and batch.negatives.max() < 10
        numbers, counts = np.unique(batch.groups, return_counts=True)
        assert len(numbers) == 4 and (counts == 2).all()
        seen[numbers] += 1
    assert seen.sum() == 32 and seen.max() <= 4
    again, other = batches(epoch=1), batches(epoch=2)
    assert all(torch.equal(a.synth, b.synth) for a, b in zip(steps, again, strict=True))
    assert not all(torch.equal(a.synth, b.synth) for a, b in zip(steps, other, strict=True))


def test_a_set_with_fewer_queries_gives_fewer_pairs():
    given = random_sets(3, seed=0, queries=1)
    for batch in contrastive_training.batches(
        given, batch_sets=3, images_each=5, negatives=0, pool=0, key=(1,), epoch=1
    ):
        assert len(batch.groups) == 3 and len(batch.negatives) == 0


# --- the validation score


def test_average_precision_against_scikit_learn():
    random = np.random.default_rng(0)
    similar, own = random.normal(size=(20, 30)), random.normal(size=(20, 4)) + 1
    got = average_precision.average_precisions(similar, own)
    truth = [0] * 30 + [1] * 4
    expected = [
        average_precision_score(truth, np.r_[rest, mine]) for rest, mine in zip(similar, own, strict=True)
    ]
    assert np.allclose(got, expected)


def test_a_tie_counts_as_half_a_place():
    similar = np.array([[0.5, 0.5, 0.1]])
    assert average_precision.average_precisions(similar, np.array([[0.5]]))[0] == pytest.approx(
        1 / 2
    )  # between 1st and 3rd
    assert average_precision.average_precisions(similar[:, 2:], np.array([[0.5, 0.5]]))[0] == pytest.approx(1)


def test_each_query_competes_with_its_own_exemplars_and_the_distractors_alone():
    given = random_sets(5, seed=0)
    pool = unit(np.random.default_rng(1).normal(size=(8, DIM)))
    real, synth = unit(given.real), unit(given.synth)
    got = average_precision.mean_average_precisions(given, real, synth, pool)
    for number in range(5):
        mine = real[given.real_set == number]
        scores = [
            average_precision_score([1] * len(mine) + [0] * 8, np.r_[mine @ query, pool @ query])
            for query in synth[given.synth_set == number]
        ]
        assert got[number] == pytest.approx(np.mean(scores))


# --- selection


def test_tuning_learns_the_rotation_between_real_and_synthesized():
    result = tuned(tuning_data())
    choice = result.choice
    assert choice["gain"] > 0.2 and choice["gain_low"] > 0
    assert not choice["identity_is_best"] and choice["epoch"] > 0 and choice["penalty"] in (0.1, 1.0)
    assert choice["validation_mean_average_precision"] == pytest.approx(
        choice["untuned_validation_mean_average_precision"] + choice["gain"]
    )
    test, pool = random_sets(9, seed=77), np.random.default_rng(8).normal(size=(80, DIM)).astype(np.float32)
    untuned = heads.load(None)
    scores = [
        average_precision.mean_average_precisions(
            test, both.real(test.real), both.synth(test.synth), both.real(pool)
        ).mean()
        for both in (untuned, result.heads)
    ]
    assert scores[1] > scores[0] + 0.1  # on sets used neither for training nor for selection


def test_of_one_validation_set_the_gain_has_no_interval():
    given = tuning_data()
    one = exemplar_sets.ExemplarSets(
        given.validation.names[:1],
        given.validation.real[given.validation.real_set == 0],
        given.validation.real_set[given.validation.real_set == 0],
        given.validation.synth[given.validation.synth_set == 0],
        given.validation.synth_set[given.validation.synth_set == 0],
    )
    choice = tuned(replace(given, validation=one)).choice
    assert choice["validation_sets"] == 1 and choice["gain"] > 0
    assert choice["gain_low"] is None and choice["gain_high"] is None


def test_the_selected_heads_have_the_reported_score():
    given = tuning_data()
    result = tuned(given)
    both, validation = result.heads, given.validation
    scores = average_precision.mean_average_precisions(
        validation, both.real(validation.real), both.synth(validation.synth), both.real(given.distractors)
    )
    assert scores.mean() == pytest.approx(result.choice["validation_mean_average_precision"], abs=1e-6)
    chosen = [row for row in result.curve if row["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["validation_mean_average_precision"] == max(
        row["validation_mean_average_precision"] for row in result.curve
    )
    tables.from_rows(result.curve, tables.schema("mapper_curve"))
    assert {row["epoch"] for row in result.curve if row["loss"] is None} == {0}


def test_where_training_cannot_help_the_identity_is_kept():
    result = tuned(tuning_data(bend=0.0, noise=0.01))  # queries are their exemplars: untuned is perfect
    assert result.choice["identity_is_best"] and result.choice["gain"] == 0.0
    assert result.choice["penalty"] is None and result.choice["epoch"] == 0
    assert "the identity is kept" in result.choice["verdict"]
    assert result.heads.real_head is not None
    assert np.array_equal(result.heads.real_head.weight, np.eye(DIM, dtype=np.float32))


def test_a_large_penalty_preserves_angles():
    ends = {penalty: tuned(tuning_data(), penalties=(penalty,)).curve[-1]["drift"] for penalty in (0.0, 10.0)}
    assert ends[10.0] < 0.05 * ends[0.0]


def test_tuning_gives_the_same_bits_again_whatever_the_order_of_the_penalties():
    first, second = (
        tuned(tuning_data(), penalties=(0.1, 1.0)),
        tuned(tuning_data(), penalties=(1.0, 0.1, 1.0)),
    )
    assert first.choice == second.choice and first.curve == second.curve
    for one, other in zip(
        (first.heads.real_head, first.heads.synth_head),
        (second.heads.real_head, second.heads.synth_head),
        strict=True,
    ):
        assert one is not None and other is not None
        assert np.array_equal(one.weight, other.weight) and np.array_equal(one.bias, other.bias)


def test_training_stops_after_patience_epochs_without_gain():
    result = tuned(tuning_data(bend=0.0, noise=0.01), penalties=(1.0,), patience=3)
    assert [row["epoch"] for row in result.curve if row["penalty"]] == [0, 1, 2, 3]


def test_distractors_as_negatives_change_the_training():
    with_negatives, without = (tuned(tuning_data(negatives=40), distractors=count) for count in (20, 0))
    assert with_negatives.choice["gain"] > 0
    losses = [
        next(row["loss"] for row in one.curve if row["epoch"] == 1) for one in (with_negatives, without)
    ]
    assert losses[0] > losses[1]


def test_training_that_diverges_is_an_error():
    with pytest.raises(InputError, match="mapper.learning_rate: training diverged at 1e[+]30"):
        tuned(tuning_data(), learning_rate=1e30)


def test_a_single_train_set_is_an_error():
    with pytest.raises(InputError, match="exemplars.splits.train: it gives 1 exemplar set"):
        tuned(replace(tuning_data(), train=random_sets(1, seed=0)))
