"""Which head: training at each penalty, and the choice by the validation split alone."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from attrib_core import embedding, keys
from attrib_core.errors import InputError
from attrib_core.heads import Heads
from attrib_core.jobs import progress
from attrib_core.mapper import training
from attrib_core.mapper.sets import Sets, mean_average_precisions, select

LOGGER = logging.getLogger(__name__)
RESAMPLES = 2000
BETAS = (0.9, 0.99)
NEGATIVE_STEPS = 16
"""Further negatives are drawn from a sample of the pool that would serve so many steps."""


@dataclass(frozen=True, eq=False)
class Tuning:
    """The heads that were chosen, the rows of the table `mapper_curve`, and the choice as plain values."""

    heads: Heads
    curve: list[dict[str, Any]]
    choice: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Material:
    """What heads are fitted on: sets of two splits, distractors for validation, negatives for training."""

    train: Sets
    validation: Sets
    distractors: np.ndarray
    negatives: np.ndarray


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
    states: tuple[training.State, training.State]

    @property
    def value(self) -> float:
        return float(self.validation.mean())


def gather(
    *,
    exemplars: pa.Table,
    exemplar_embeddings: Path,
    queries: pa.Table,
    query_embeddings: Sequence[Path],
    pool: Sequence[Path],
    excluded: Collection[str],
    validation_distractors: int,
    distractors: int,
    seed: int,
) -> Material:
    """Read what tuning needs: never a vector of the test split. Tables as in `sets.select`.

    Distractors for validation and negatives for training are drawn from the pool, without the
    excluded rows and without a row in common.
    """
    train, validation = (
        select(
            split,
            exemplars=exemplars,
            exemplar_embeddings=[exemplar_embeddings],
            queries=queries,
            query_embeddings=query_embeddings,
        )
        for split in ("train", "validation")
    )
    count = validation_distractors + NEGATIVE_STEPS * distractors
    _, vectors = embedding.sample(pool, count=count, key=(seed, "mapper pool"), excluded=excluded)
    if distractors and len(vectors) <= validation_distractors:
        raise InputError(
            f"mapper.distractors: {distractors} negatives a step, but the pool's {len(vectors)} distractors are"
            f" all needed for validation; lower mapper.validation_distractors ({validation_distractors})"
        )
    return Material(train, validation, vectors[:validation_distractors], vectors[validation_distractors:])


def tune(
    material: Material,
    settings: Settings,
    *,
    encoder: str,
    penalties: Sequence[float],
    seed: int,
) -> Tuning:
    """Train heads on the train sets and choose penalty and epoch by the validation sets.

    For each penalty training (Adam) starts at the identity and ends after `epochs`, or when
    `patience` epochs brought nothing. What counts is mean average precision over the sets of
    the validation split. The identity is a candidate too (epoch 0): where training does not
    help, the identity is what is returned, with a gain of 0. Of equals the larger penalty and
    the earlier epoch win, so the order of the penalties does not matter.

    Raises InputError for fewer than two train sets and for training that diverges.
    """
    count = len(material.train.names)
    if count < 2:
        raise InputError(
            f"exemplars.splits.train: it gives {count} exemplar set, but contrastive training needs 2 or more"
        )
    basis = training.directions(material.train, settings.rank)
    rows: list[dict[str, Any]] = []
    start: _Point | None = None
    chosen: tuple[int, _Point] | None = None
    for penalty in sorted(set(penalties), reverse=True):
        best, waited = -1.0, 0
        run = _run(material, settings, basis, penalty=penalty, key=(seed, "mapper", encoder))
        for point in progress(run, total=settings.epochs + 1, what=f"epochs at penalty {penalty:g}"):
            start = start or point
            if chosen is None or point.value > chosen[1].value:
                chosen = len(rows), point
            rows.append(_row(point, encoder))
            waited = 0 if point.value > best else waited + 1
            best = max(best, point.value)
            if waited == settings.patience:
                break
    assert start is not None and chosen is not None, "at least one penalty is given"
    place, point = chosen
    rows[place]["chosen"] = True
    choice = _choice(point, start, material, seed=seed)
    choice |= {
        "encoder": encoder,
        "mapper": "linear",
        "rank": basis.shape[1],
        "temperature": settings.temperature,
    }
    choice |= {"learning_rate": settings.learning_rate, "epochs_run": sum(row["epoch"] > 0 for row in rows)}
    LOGGER.info("%s", choice["verdict"])
    real, synth = _heads(material.train, basis)
    found = Heads(real.linear(point.states[0]), synth.linear(point.states[1]))
    return Tuning(found, sorted(rows, key=lambda row: (row["penalty"], row["epoch"])), choice)


def _heads(train: Sets, basis: np.ndarray) -> tuple[training.Head, training.Head]:
    """Both heads at the identity. Training is in units of the exemplars' mean length, so that
    the bias moves as fast whatever the encoder's scale."""
    scale = float(np.linalg.norm(train.real.astype(np.float64), axis=1).mean())
    return training.Head(basis, scale), training.Head(basis, scale)


def _run(
    material: Material, settings: Settings, basis: np.ndarray, *, penalty: float, key: tuple[Any, ...]
) -> Iterator[_Point]:
    """The state after each epoch at one penalty, from epoch 0, the identity, on.

    All penalties see the same pairs in the same order: they differ by the penalty alone.
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
            return _Point(penalty, epoch, loss, moved().item(), found, wanted, (real.state(), synth.state()))

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
    identity = chosen.epoch == 0
    if identity:
        verdict = f"training did not help on the validation split, the identity is kept: {scores}"
    else:
        verdict = f"penalty {chosen.penalty:g}, epoch {chosen.epoch}: {scores}"
    return {
        "verdict": verdict,
        "identity_is_best": identity,
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
        "penalty": point.penalty,
        "epoch": point.epoch,
        "loss": point.loss,
        "drift": point.drift,
        "train_mean_average_precision": float(point.train.mean()),
        "validation_mean_average_precision": point.value,
        "chosen": False,
    }
