"""Train heads at several penalties and select one by its score on the validation split."""

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
from attrib_core.features.mapper.average_precision import mean_average_precisions
from attrib_core.features.mapper.exemplar_sets import ExemplarSets
from attrib_core.features.mapper.initialization import Start, candidate_starts
from attrib_core.features.mapper.selection import Checkpoint, curve_row, describe
from attrib_core.features.mapper.trainable_heads import State, TrainableHead
from attrib_core.features.mapper.tuning_data import TuningData
from attrib_core.runtime.progress import progress

LOGGER = logging.getLogger(__name__)
ADAM_BETAS = (0.9, 0.99)


@dataclass(frozen=True, eq=False)
class Tuning:
    """The selected heads, the rows of the table `mapper_curve`, and a description of the selection."""

    heads: Heads
    curve: list[dict[str, Any]]
    choice: dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """The settings of training at one penalty, by the config keys of the same names.

    `rank` applies to linear heads and mlps, `hidden` to mlps.
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
    data: TuningData,
    settings: Settings,
    *,
    encoder: str,
    mapper: str,
    penalties: Sequence[float],
    starts: Collection[str],
    shrinkages: Sequence[float],
    seed: int,
) -> Tuning:
    """Train heads on the train sets and select start, penalty and epoch by the validation sets.

    The score is the mean average precision over the validation sets. First the starts are compared without training
    (epoch 0): the identity, which is always a candidate, and the whitened starts at each shrinkage. From the best of
    `starts`, Adam runs at each penalty for `epochs`, or until `patience` epochs brought no improvement. If nothing
    improves the score, the identity is returned, with a gain of 0. Of equal scores the identity, the larger shrinkage,
    the larger penalty and the earlier epoch win, so the order of starts, shrinkages and penalties does not matter.

    `encoder` and `mapper` are names for the rows of the curve. Raises InputError for fewer than two train sets, for
    starts that the type of head cannot represent, and for training that diverges.
    """
    check_starts(settings.head, starts)
    count = len(data.train.names)
    if count < 2:
        raise InputError(
            f"exemplars.splits.train: it gives {count} exemplar set, but contrastive training needs 2 or more"
        )
    untrained = [
        _untrained(start, data, settings)
        for start in candidate_starts(data, starts, shrinkages, shared=settings.shared)
    ]
    untuned = untrained[0]
    start = max((one for one in untrained if one.start.name in starts), key=lambda one: one.score).start
    checkpoints = list(untrained)
    training_data = start.transform(data)
    dim = training_data.train.real.shape[1]
    if settings.head == "channel":
        basis = np.zeros((dim, 0))
    else:
        basis = contrastive_training.leading_directions(training_data.train, settings.rank)
    for penalty in sorted(set(penalties), reverse=True):
        key = (seed, "mapper", encoder, mapper)
        checkpoints += _until_patience(
            _train(training_data, settings, basis, start, penalty=penalty, key=key),
            settings,
            what=f"epochs from {start}, penalty {penalty:g}",
        )
    best = max(checkpoints, key=lambda one: one.score)  # the first of equals
    names = {"encoder": encoder, "mapper": mapper}
    choice = names | describe(best, untuned, data, seed=seed)
    choice |= {
        "rank": None if best.penalty is None or settings.head == "channel" else basis.shape[1],
        "temperature": settings.temperature,
        "learning_rate": settings.learning_rate,
        "epochs_run": sum(one.epoch > 0 for one in checkpoints),
    }
    LOGGER.info("%s", choice["verdict"])
    curve = [names | curve_row(one, chosen=one is best) for one in checkpoints]
    curve.sort(key=lambda row: (row["start"], row["shrinkage"] or 0, row["penalty"] or 0, row["epoch"]))
    return Tuning(best.heads(), curve, choice)


def _untrained(start: Start, data: TuningData, settings: Settings) -> Checkpoint:
    """Return the start itself as a candidate: epoch 0, without a penalty."""
    transformed = start.transform(data)
    basis = np.zeros((transformed.train.real.shape[1], 0))
    return next(_train(transformed, settings, basis, start, penalty=None, key=()))


def _until_patience(run: Iterator[Checkpoint], settings: Settings, *, what: str) -> Iterator[Checkpoint]:
    """Yield the epochs of a run until `patience` epochs in a row were no better than the best."""
    best, without_gain = -1.0, -1
    count = settings.epochs + 1
    for checkpoint in progress(itertools.islice(run, count), total=count, what=what):
        yield checkpoint
        without_gain = 0 if checkpoint.score > best else without_gain + 1
        best = max(best, checkpoint.score)
        if without_gain == settings.patience:
            return


def _create_heads(
    train: ExemplarSets, settings: Settings, basis: np.ndarray, key: tuple[Any, ...]
) -> tuple[TrainableHead, TrainableHead]:
    """Create the heads for real and for synthesized images at the identity; a shared head is returned twice."""
    created = [
        trainable_heads.create(
            settings.head, train, basis, hidden=settings.hidden, key=(*key, "hidden", side)
        )
        for side in (("both",) if settings.shared else ("real", "synth"))
    ]
    return created[0], created[-1]


def _export(real: TrainableHead, synth: TrainableHead, states: Sequence[State], start: Start) -> Heads:
    """Return both heads with some parameters, for embeddings as the encoder gives them."""
    real_head, synth_head = real.export(states[0]), synth.export(states[-1])
    if (whitening := start.whitening) is None:
        return Heads(real_head, synth_head)
    return Heads(
        whitening.compose(real_head, whitening.real_mean), whitening.compose(synth_head, whitening.synth_mean)
    )


def _train(
    data: TuningData,
    settings: Settings,
    basis: np.ndarray,
    start: Start,
    *,
    penalty: float | None,
    key: tuple[Any, ...],
) -> Iterator[Checkpoint]:
    """Yield the heads at the start (epoch 0) and after each epoch at one penalty.

    `data` is transformed by the start. All penalties are trained on the same pairs in the same order. Without a
    penalty only epoch 0 is meaningful.
    """
    train, validation = data.train, data.validation
    real, synth = _create_heads(train, settings, basis, key)
    trained = [real] if synth is real else [real, synth]
    parameters = [value for head in trained for value in head.parameters]
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, betas=ADAM_BETAS)
    exemplars, queries = real.prepare(train.real), synth.prepare(train.synth)
    validation_exemplars, validation_queries = real.prepare(validation.real), synth.prepare(validation.synth)
    distractors, negatives = real.prepare(data.distractors), real.prepare(data.negatives)

    def total_drift() -> torch.Tensor:
        return functools.reduce(torch.add, [head.drift() for head in trained])

    def checkpoint(epoch: int, loss: float | None) -> Checkpoint:
        with torch.no_grad():
            pool = real.map(distractors).numpy()
            train_scores, validation_scores = (
                mean_average_precisions(
                    sets, real.map(of_exemplars).numpy(), synth.map(of_queries).numpy(), pool
                )
                for sets, of_exemplars, of_queries in (
                    (train, exemplars, queries),
                    (validation, validation_exemplars, validation_queries),
                )
            )
            states = [trainable_heads.copy_state(head) for head in trained]
            return Checkpoint(
                penalty=penalty,
                epoch=epoch,
                loss=loss,
                drift=total_drift().item(),
                train=train_scores,
                validation=validation_scores,
                start=start,
                heads=functools.partial(_export, real, synth, states, start),
            )

    yield checkpoint(0, None)
    for epoch in range(1, settings.epochs + 1):
        losses = []
        for batch in contrastive_training.batches(
            train,
            batch_sets=settings.batch_sets,
            images_each=settings.images_each,
            negatives=settings.distractors,
            pool=len(data.negatives),
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
            (loss + (penalty or 0) * total_drift()).backward()
            optimizer.step()
            losses.append(loss.item())
        if not (np.isfinite(losses).all() and all(bool(value.isfinite().all()) for value in parameters)):
            raise InputError(
                f"mapper.learning_rate: training diverged at {settings.learning_rate:g}"
                f" (penalty {penalty:g}, epoch {epoch}); choose a smaller one"
            )
        yield checkpoint(epoch, float(np.mean(losses)))
