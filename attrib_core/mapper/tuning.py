"""Which head: training at each penalty, and the choice by the validation split alone."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attrib_core import keys
from attrib_core.errors import InputError
from attrib_core.heads import Heads
from attrib_core.jobs import progress
from attrib_core.mapper import training, whitening
from attrib_core.mapper.material import Material
from attrib_core.mapper.sets import Sets, mean_average_precisions
from attrib_core.mapper.starts import Start, begin

LOGGER = logging.getLogger(__name__)
RESAMPLES = 2000
BETAS = (0.9, 0.99)


@dataclass(frozen=True, eq=False)
class Tuning:
    """The heads that were chosen, the rows of the table `mapper_curve`, and the choice as plain values."""

    heads: Heads
    curve: list[dict[str, Any]]
    choice: dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How heads are trained at one penalty; the config's keys of the same names."""

    temperature: float
    learning_rate: float
    epochs: int
    patience: int
    batch_sets: int
    images_each: int
    rank: int
    distractors: int


@dataclass(frozen=True, eq=False)
class _Point:
    """One epoch at one penalty; the two scores are mean average precisions by set."""

    penalty: float | None
    epoch: int
    loss: float | None
    drift: float
    train: np.ndarray
    validation: np.ndarray
    start: Start
    heads: Callable[[], Heads]

    @property
    def value(self) -> float:
        return float(self.validation.mean())


def tune(
    material: Material,
    settings: Settings,
    *,
    encoder: str,
    mapper: str,
    penalties: Sequence[float],
    starts: Collection[str],
    shrinkages: Sequence[float],
    seed: int,
) -> Tuning:
    """Train heads on the train sets and choose start, penalty and epoch by the validation sets.

    What counts is mean average precision over the sets of the validation split. First the
    starts are compared as they are (epoch 0): the identity, which is always a candidate, and
    features whitened in the ways of `whitening`, at each shrinkage. From the best of `starts`
    training (Adam) runs at each penalty for `epochs`, or until `patience` epochs brought
    nothing. Where nothing helps, the identity is what is returned, with a gain of 0. Of equals
    the identity, the larger shrinkage, the larger penalty and the earlier epoch win, so the
    order of starts, shrinkages and penalties does not matter.

    `encoder` and `mapper` are the names that the rows bear. Raises InputError for fewer than
    two train sets and for training that diverges.
    """
    count = len(material.train.names)
    if count < 2:
        raise InputError(
            f"exemplars.splits.train: it gives {count} exemplar set, but contrastive training needs 2 or more"
        )
    untuned, *others = [
        (start, _untrained(start, material, settings)) for start in begin(material, starts, shrinkages)
    ]
    candidates = [one for one in (untuned, *others) if one[0].name in starts]
    start, _ = max(candidates, key=lambda one: one[1].value)
    points = [point for _, point in (untuned, *others)]
    given = start.material(material)
    basis = training.directions(given.train, settings.rank)
    for penalty in sorted(set(penalties), reverse=True):
        points += _until_patience(
            _run(given, settings, basis, start, penalty=penalty, key=(seed, "mapper", encoder, mapper)),
            settings,
            what=f"epochs from {start}, penalty {penalty:g}",
        )
    point = max(points, key=lambda one: one.value)  # the first of equals
    names = {"encoder": encoder, "mapper": mapper}
    choice = names | _choice(point, untuned[1], material, seed=seed)
    choice |= {
        "rank": None if point.penalty is None else basis.shape[1],
        "temperature": settings.temperature,
        "learning_rate": settings.learning_rate,
        "epochs_run": sum(one.epoch > 0 for one in points),
    }
    LOGGER.info("%s", choice["verdict"])
    rows = [names | _row(one, chosen=one is point) for one in points]
    ordered = sorted(
        rows, key=lambda row: (row["start"], row["shrinkage"] or 0, row["penalty"] or 0, row["epoch"])
    )
    return Tuning(point.heads(), ordered, choice)


def _untrained(start: Start, material: Material, settings: Settings) -> _Point:
    """The start itself as a candidate: epoch 0, with no penalty to speak of."""
    given = start.material(material)
    basis = np.zeros((given.train.real.shape[1], 0))
    return next(_run(given, settings, basis, start, penalty=None, key=()))


def _until_patience(run: Iterator[_Point], settings: Settings, *, what: str) -> Iterator[_Point]:
    """The epochs of a run, until `patience` epochs were no better than the best."""
    best, waited = -1.0, -1
    for point in progress(itertools.islice(run, settings.epochs + 1), total=settings.epochs + 1, what=what):
        yield point
        waited = 0 if point.value > best else waited + 1
        best = max(best, point.value)
        if waited == settings.patience:
            return


def _heads(train: Sets, basis: np.ndarray) -> tuple[training.Head, training.Head]:
    """Both heads at the identity. Training is in units of the exemplars' mean length, so that
    the bias moves as fast whatever the encoder's scale."""
    scale = float(np.linalg.norm(train.real.astype(np.float64), axis=1).mean())
    return training.Head(basis, scale), training.Head(basis, scale)


def _finish(
    real: training.Head,
    synth: training.Head,
    real_state: training.State,
    synth_state: training.State,
    white: whitening.Whitening | None,
) -> Heads:
    """Both heads at some states, for embeddings as the encoder gives them."""
    made = real.linear(real_state), synth.linear(synth_state)
    if white is not None:
        made = white.before(made[0], white.real_mean), white.before(made[1], white.synth_mean)
    return Heads(*made)


def _run(
    material: Material,
    settings: Settings,
    basis: np.ndarray,
    start: Start,
    *,
    penalty: float | None,
    key: tuple[Any, ...],
) -> Iterator[_Point]:
    """The heads after each epoch at one penalty, from epoch 0, the start, on.

    `material` is as the start has made it. All penalties see the same pairs in the same order:
    they differ by the penalty alone. With no penalty given, only the start is to be had.
    """
    train, validation = material.train, material.validation
    real, synth = _heads(train, basis)
    parameters = [real.change, real.shift, synth.change, synth.shift]
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, betas=BETAS)
    exemplars, queries = real.take(train.real), synth.take(train.synth)
    sought, seeking = real.take(validation.real), synth.take(validation.synth)
    others, negatives = real.take(material.distractors), real.take(material.negatives)

    def moved() -> torch.Tensor:
        return training.drift(real.change) + training.drift(synth.change)

    def point(epoch: int, loss: float | None) -> _Point:
        with torch.no_grad():
            pool = real.map(others).numpy()
            found, wanted = (
                mean_average_precisions(sets, real.map(mine).numpy(), synth.map(asking).numpy(), pool)
                for sets, mine, asking in ((train, exemplars, queries), (validation, sought, seeking))
            )
            made = functools.partial(_finish, real, synth, real.state(), synth.state(), start.white)
            return _Point(penalty, epoch, loss, moved().item(), found, wanted, start, made)

    yield point(0, None)
    for epoch in range(1, settings.epochs + 1):
        losses = []
        for batch in training.batches(
            train,
            batch_sets=settings.batch_sets,
            images_each=settings.images_each,
            negatives=settings.distractors,
            pool=len(material.negatives),
            key=key,
            epoch=epoch,
        ):
            loss = training.contrastive_loss(
                real.map(exemplars, batch.real),
                synth.map(queries, batch.synth),
                batch.groups,
                temperature=settings.temperature,
                negatives=real.map(negatives, batch.negatives) if len(batch.negatives) else None,
            )
            optimizer.zero_grad()
            (loss + (penalty or 0) * moved()).backward()
            optimizer.step()
            losses.append(loss.item())
        if not (np.isfinite(losses).all() and all(bool(value.isfinite().all()) for value in parameters)):
            raise InputError(
                f"mapper.learning_rate: training diverged at {settings.learning_rate:g}"
                f" (penalty {penalty:g}, epoch {epoch}); choose a smaller one"
            )
        yield point(epoch, float(np.mean(losses)))


def _choice(chosen: _Point, untuned: _Point, material: Material, *, seed: int) -> dict[str, Any]:
    """What was chosen and what it gained over the identity, with a bootstrap interval over the sets.

    The interval does not know that the best of many was taken, so it flatters; the test split
    tells the truth.
    """
    gains = chosen.validation - untuned.validation
    draws = keys.generator(seed, "mapper gain").integers(0, len(gains), (RESAMPLES, len(gains)))
    low, high = np.quantile(gains[draws].mean(axis=1), [0.025, 0.975])
    scores = f"validation mean average precision {chosen.value:.4f}, untuned {untuned.value:.4f}"
    identity = chosen is untuned
    if identity:
        verdict = f"nothing helped on the validation split, the identity is kept: {scores}"
    else:
        verdict = f"from {chosen.start}, {_trained(chosen)}: {scores}"
    return {
        "verdict": verdict,
        "identity_is_best": identity,
        "start": chosen.start.name,
        "shrinkage": chosen.start.shrinkage,
        "penalty": chosen.penalty,
        "epoch": chosen.epoch,
        "validation_mean_average_precision": chosen.value,
        "untuned_validation_mean_average_precision": untuned.value,
        "gain": float(gains.mean()),
        "gain_low": float(low),
        "gain_high": float(high),
        "train_mean_average_precision": float(chosen.train.mean()),
        "untuned_train_mean_average_precision": float(untuned.train.mean()),
        "train_sets": len(material.train.names),
        "validation_sets": len(material.validation.names),
        "train_queries": len(material.train.synth),
        "validation_queries": len(material.validation.synth),
        "validation_distractors": len(material.distractors),
    }


def _trained(point: _Point) -> str:
    return "as it is" if point.penalty is None else f"penalty {point.penalty:g}, epoch {point.epoch}"


def _row(point: _Point, *, chosen: bool) -> dict[str, Any]:
    return {
        "start": point.start.name,
        "shrinkage": point.start.shrinkage,
        "penalty": point.penalty,
        "epoch": point.epoch,
        "loss": point.loss,
        "drift": point.drift,
        "train_mean_average_precision": float(point.train.mean()),
        "validation_mean_average_precision": point.value,
        "chosen": chosen,
    }
