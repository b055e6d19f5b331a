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

    penalty: float
    epoch: int
    loss: float | None
    drift: float
    train: np.ndarray
    validation: np.ndarray
    start: str
    heads: Callable[[], Heads]

    @property
    def value(self) -> float:
        return float(self.validation.mean())


def tune(
    material: Material,
    settings: Settings,
    *,
    encoder: str,
    penalties: Sequence[float],
    starts: Collection[str],
    shrinkage: float,
    seed: int,
) -> Tuning:
    """Train heads on the train sets and choose start, penalty and epoch by the validation sets.

    For each start and penalty training (Adam) runs for `epochs`, or until `patience` epochs
    brought nothing. What counts is mean average precision over the sets of the validation
    split. Both starts are candidates themselves (epoch 0), and the identity always is: where
    training does not help, the identity is what is returned, with a gain of 0. Of equals the
    identity, the larger penalty and the earlier epoch win, so the order of starts and
    penalties does not matter.

    Raises InputError for fewer than two train sets and for training that diverges.
    """
    count = len(material.train.names)
    if count < 2:
        raise InputError(
            f"exemplars.splits.train: it gives {count} exemplar set, but contrastive training needs 2 or more"
        )
    rows: list[dict[str, Any]] = []
    untuned: _Point | None = None
    chosen: tuple[int, _Point] | None = None
    for start in sorted({"identity", *starts}):
        given, white = material, None
        if start == "whitened":
            pool = np.concatenate([material.distractors, material.negatives])
            white = whitening.fit(pool, material.train, shrinkage)
            given = material.whitened(white)
        basis = training.directions(given.train, settings.rank)
        for penalty in sorted(set(penalties), reverse=True) if start in starts else [max(penalties)]:
            best, waited = -1.0, 0
            run = _run(given, settings, basis, white, penalty=penalty, key=(seed, "mapper", encoder))
            epochs = settings.epochs if start in starts else 0
            for point in progress(
                itertools.islice(run, epochs + 1),
                total=epochs + 1,
                what=f"epochs, {start}, penalty {penalty:g}",
            ):
                untuned = untuned or point
                if chosen is None or point.value > chosen[1].value:
                    chosen = len(rows), point
                rows.append(_row(point, encoder))
                waited = 0 if point.value > best else waited + 1
                best = max(best, point.value)
                if waited == settings.patience:
                    break
    assert untuned is not None and chosen is not None, "at least one penalty is given"
    place, point = chosen
    rows[place]["chosen"] = True
    choice = _choice(point, untuned, material, seed=seed)
    choice |= {
        "encoder": encoder,
        "mapper": "linear",
        "rank": settings.rank,
        "shrinkage": shrinkage if point.start == "whitened" else None,
        "temperature": settings.temperature,
    }
    choice |= {"learning_rate": settings.learning_rate, "epochs_run": sum(row["epoch"] > 0 for row in rows)}
    LOGGER.info("%s", choice["verdict"])
    ordered = sorted(rows, key=lambda row: (row["start"], row["penalty"], row["epoch"]))
    return Tuning(point.heads(), ordered, choice)


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
    white: whitening.Whitening | None,
    *,
    penalty: float,
    key: tuple[Any, ...],
) -> Iterator[_Point]:
    """The heads after each epoch at one penalty, from epoch 0, the start, on.

    `material` is whitened already where `white` is given. All penalties see the same pairs in
    the same order: they differ by the penalty alone.
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
            start = "identity" if white is None else "whitened"
            made = functools.partial(_finish, real, synth, real.state(), synth.state(), white)
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
            (loss + penalty * moved()).backward()
            optimizer.step()
            losses.append(loss.item())
        if not (np.isfinite(losses).all() and all(bool(value.isfinite().all()) for value in parameters)):
            raise InputError(
                f"mapper.learning_rate: training diverged at {settings.learning_rate:g}"
                f" (penalty {penalty:g}, epoch {epoch}); choose a smaller one"
            )
        yield point(epoch, float(np.mean(losses)))


def _choice(chosen: _Point, start: _Point, material: Material, *, seed: int) -> dict[str, Any]:
    """What was chosen and what it gained over the identity, with a bootstrap interval over the sets.

    The interval does not know that the best of many epochs was taken, so it flatters; the test
    split tells the truth.
    """
    gains = chosen.validation - start.validation
    draws = keys.generator(seed, "mapper gain").integers(0, len(gains), (RESAMPLES, len(gains)))
    low, high = np.quantile(gains[draws].mean(axis=1), [0.025, 0.975])
    scores = f"validation mean average precision {chosen.value:.4f}, untuned {start.value:.4f}"
    identity = chosen.epoch == 0 and chosen.start == "identity"
    if identity:
        verdict = f"training did not help on the validation split, the identity is kept: {scores}"
    else:
        begun = "whitened features" if chosen.start == "whitened" else "the identity"
        verdict = f"from {begun}, penalty {chosen.penalty:g}, epoch {chosen.epoch}: {scores}"
    return {
        "verdict": verdict,
        "identity_is_best": identity,
        "start": chosen.start,
        "penalty": None if identity else chosen.penalty,
        "epoch": chosen.epoch,
        "validation_mean_average_precision": chosen.value,
        "untuned_validation_mean_average_precision": start.value,
        "gain": float(gains.mean()),
        "gain_low": float(low),
        "gain_high": float(high),
        "train_mean_average_precision": float(chosen.train.mean()),
        "untuned_train_mean_average_precision": float(start.train.mean()),
        "train_sets": len(material.train.names),
        "validation_sets": len(material.validation.names),
        "train_queries": len(material.train.synth),
        "validation_queries": len(material.validation.synth),
        "validation_distractors": len(material.distractors),
    }


def _row(point: _Point, encoder: str) -> dict[str, Any]:
    return {
        "encoder": encoder,
        "mapper": "linear",
        "start": point.start,
        "penalty": point.penalty,
        "epoch": point.epoch,
        "loss": point.loss,
        "drift": point.drift,
        "train_mean_average_precision": float(point.train.mean()),
        "validation_mean_average_precision": point.value,
        "chosen": False,
    }
