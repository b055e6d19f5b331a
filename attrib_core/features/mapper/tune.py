"""Which head: training at each penalty, and the choice by the validation split alone."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attrib_core.common.errors import InputError
from attrib_core.features.heads.heads import Heads, check_starts
from attrib_core.features.mapper import contrastive_training, trainable_heads
from attrib_core.features.mapper.initialization import Start, begin
from attrib_core.features.mapper.pairs import Sets, mean_average_precisions
from attrib_core.features.mapper.selection import Point, describe, row
from attrib_core.features.mapper.tuning_data import Material
from attrib_core.runtime.progress import progress

LOGGER = logging.getLogger(__name__)
BETAS = (0.9, 0.99)


@dataclass(frozen=True, eq=False)
class Tuning:
    """The heads that were chosen, the rows of the table `mapper_curve`, and the choice as plain values."""

    heads: Heads
    curve: list[dict[str, Any]]
    choice: dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How heads are trained at one penalty; the config's keys of the same names.

    `rank` counts for linear heads and mlps, `hidden` for mlps.
    """

    temperature: float
    learning_rate: float
    epochs: int
    patience: int
    batch_sets: int
    images_each: int
    distractors: int
    head: str = "linear"
    shared: bool = False
    rank: int = 0
    hidden: int = 0


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
    two train sets, for starts that the form of head cannot hold, and for training that diverges.
    """
    check_starts(settings.head, starts)
    count = len(material.train.names)
    if count < 2:
        raise InputError(
            f"exemplars.splits.train: it gives {count} exemplar set, but contrastive training needs 2 or more"
        )
    untuned, *others = [
        (start, _untrained(start, material, settings))
        for start in begin(material, starts, shrinkages, shared=settings.shared)
    ]
    candidates = [one for one in (untuned, *others) if one[0].name in starts]
    start, _ = max(candidates, key=lambda one: one[1].value)
    points = [point for _, point in (untuned, *others)]
    given = start.material(material)
    basis = _directions(given.train, settings)
    for penalty in sorted(set(penalties), reverse=True):
        points += _until_patience(
            _run(given, settings, basis, start, penalty=penalty, key=(seed, "mapper", encoder, mapper)),
            settings,
            what=f"epochs from {start}, penalty {penalty:g}",
        )
    point = max(points, key=lambda one: one.value)  # the first of equals
    names = {"encoder": encoder, "mapper": mapper}
    choice = names | describe(point, untuned[1], material, seed=seed)
    choice |= {
        "rank": None if point.penalty is None or settings.head == "channel" else basis.shape[1],
        "temperature": settings.temperature,
        "learning_rate": settings.learning_rate,
        "epochs_run": sum(one.epoch > 0 for one in points),
    }
    LOGGER.info("%s", choice["verdict"])
    rows = [names | row(one, chosen=one is point) for one in points]
    ordered = sorted(
        rows, key=lambda one: (one["start"], one["shrinkage"] or 0, one["penalty"] or 0, one["epoch"])
    )
    return Tuning(point.heads(), ordered, choice)


def _untrained(start: Start, material: Material, settings: Settings) -> Point:
    """The start itself as a candidate: epoch 0, with no penalty to speak of."""
    given = start.material(material)
    basis = np.zeros((given.train.real.shape[1], 0))
    return next(_run(given, settings, basis, start, penalty=None, key=()))


def _until_patience(run: Iterator[Point], settings: Settings, *, what: str) -> Iterator[Point]:
    """The epochs of a run, until `patience` epochs were no better than the best."""
    best, waited = -1.0, -1
    for point in progress(itertools.islice(run, settings.epochs + 1), total=settings.epochs + 1, what=what):
        yield point
        waited = 0 if point.value > best else waited + 1
        best = max(best, point.value)
        if waited == settings.patience:
            return


def _directions(train: Sets, settings: Settings) -> np.ndarray:
    """V, (dim, rank); no column where the form of head has no such directions."""
    if settings.head == "channel":
        return np.zeros((train.real.shape[1], 0))
    return contrastive_training.directions(train, settings.rank)


def _heads(
    train: Sets, settings: Settings, basis: np.ndarray, key: tuple[Any, ...]
) -> tuple[trainable_heads.Form, trainable_heads.Form]:
    """The head for real and the one for synthesized images at the identity; where it is shared, one twice."""
    made = [
        trainable_heads.start(settings.head, train, basis, hidden=settings.hidden, key=(*key, "hidden", side))
        for side in (("both",) if settings.shared else ("real", "synth"))
    ]
    return made[0], made[-1]


def _finish(
    real: trainable_heads.Form,
    synth: trainable_heads.Form,
    states: Sequence[trainable_heads.State],
    start: Start,
) -> Heads:
    """Both heads at some states, for embeddings as the encoder gives them."""
    made = real.finished(states[0]), synth.finished(states[-1])
    if start.white is not None:
        made = (
            start.white.before(made[0], start.white.real_mean),
            start.white.before(made[1], start.white.synth_mean),
        )
    return Heads(*made)


def _run(
    material: Material,
    settings: Settings,
    basis: np.ndarray,
    start: Start,
    *,
    penalty: float | None,
    key: tuple[Any, ...],
) -> Iterator[Point]:
    """The heads after each epoch at one penalty, from epoch 0, the start, on.

    `material` is as the start has made it. All penalties see the same pairs in the same order:
    they differ by the penalty alone. With no penalty given, only the start is to be had.
    """
    train, validation = material.train, material.validation
    real, synth = _heads(train, settings, basis, key)
    trained = [real] if synth is real else [real, synth]
    parameters = [value for one in trained for value in one.parameters]
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, betas=BETAS)
    exemplars, queries = real.take(train.real), synth.take(train.synth)
    sought, seeking = real.take(validation.real), synth.take(validation.synth)
    others, negatives = real.take(material.distractors), real.take(material.negatives)

    def moved() -> torch.Tensor:
        return functools.reduce(torch.add, [one.drift() for one in trained])

    def point(epoch: int, loss: float | None) -> Point:
        with torch.no_grad():
            pool = real.map(others).numpy()
            found, wanted = (
                mean_average_precisions(sets, real.map(mine).numpy(), synth.map(asking).numpy(), pool)
                for sets, mine, asking in ((train, exemplars, queries), (validation, sought, seeking))
            )
            made = functools.partial(
                _finish, real, synth, [trainable_heads.state(one) for one in trained], start
            )
            return Point(penalty, epoch, loss, moved().item(), found, wanted, start, made)

    yield point(0, None)
    for epoch in range(1, settings.epochs + 1):
        losses = []
        for batch in contrastive_training.batches(
            train,
            batch_sets=settings.batch_sets,
            images_each=settings.images_each,
            negatives=settings.distractors,
            pool=len(material.negatives),
            key=key,
            epoch=epoch,
        ):
            loss = contrastive_training.contrastive_loss(
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
