"""Fit calibrators on the validation split, compute soft scores of the test split, and evaluate both splits.

Soft influence is the share of an image that each candidate is held responsible for. Three calibrators are
fitted and evaluated, on the whole pool and on parts of it: `pool_aware`, which sums over the whole pool and has
a mass of "none of these"; `published` with its published training; and `published_whole_pool`, the published
formula by maximum likelihood with the whole pool in the sum. Each encoder and mapper has calibrators of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from attrib_core.attribution.calibration.calibrators import CALIBRATORS, Fitted, fit_calibrator
from attrib_core.attribution.calibration.evaluate import calibration_rows, evaluate, reliability_rows
from attrib_core.attribution.calibration.similarities import (
    CONDITION,
    EXEMPLAR_COLUMNS,
    RANK_COLUMNS,
    SimilarityBatch,
    read_similarities,
)
from attrib_core.attribution.calibration.soft_scores import soft_scores
from attrib_core.common.errors import InputError

__all__ = [
    "EXEMPLAR_COLUMNS", "RANK_COLUMNS", "Calibrated",
    "calibrate", "check_settings", "fit_calibrators", "warn_of_other_kinds",
]  # fmt: skip

LOGGER = logging.getLogger(__name__)


class Calibrated(NamedTuple):
    """Content of `calibrator.json`, and rows of the tables `calibration` and `reliability`."""

    calibrator: dict[str, Any]
    calibration: list[dict[str, Any]]
    reliability: list[dict[str, Any]]


def calibrate(
    *,
    ranks: pa.Table,
    candidates: Path,
    exemplars: pa.Table,
    save: Callable[[pa.Table], None],
    kinds: Collection[str] | None = None,
    shown: int = 100,
    forms: Sequence[str] = CALIBRATORS,
    absent_share: float = 0.5,
    pool_shares: Sequence[float] = (0.25, 0.0625),
    seed: int = 0,
) -> Calibrated:
    """Fit on the validation split, pass soft scores of the test split to `save`, and evaluate both splits.

    ranks, exemplars   ranks of one encoder and mapper, and the exemplars, with RANK_COLUMNS, EXEMPLAR_COLUMNS
    candidates         the file of candidates of the same encoder and mapper
    kinds              kinds of exemplar sets to use: those that the mapper was trained for; None for all
    shown              most similar distractors of a query that have rows in soft_scores
    forms              names of CALIBRATORS to fit and evaluate; soft scores are of the first
    absent_share       assumed share of queries whose sources are not in the pool
    pool_shares        parts of the pool on which the calibrators, fitted on all of it, are evaluated too
    seed               seed of the run, for the parts of the pool

    The fit uses queries of customized models alone; on controls only "none of these" is evaluated. Raises
    InputError where the validation split has no such query, for settings out of range, and for tables that do
    not belong together.
    """
    check_settings(shown, forms, absent_share, pool_shares)
    labels = {name: _only(ranks, name) for name in ("encoder", "mapper")}
    validation = list(read_similarities(ranks, candidates, exemplars, "validation", kinds))
    if not validation and kinds is not None:
        raise InputError(
            f"calibration: no customized query of {' or '.join(kinds)} sets in the split 'validation'; expected some"
            " to fit on, so exemplars.splits.validation must give such sets"
        )
    fitted = fit_calibrators(validation, forms, absent_share)
    fitted_kinds = {kind for batch in validation for kind in batch.kinds}
    warn_of_other_kinds(fitted_kinds, _kinds(exemplars, "test", kinds))

    def test() -> Iterator[SimilarityBatch]:
        for batch in read_similarities(ranks, candidates, exemplars, "test", kinds):
            save(soft_scores(batch, fitted[forms[0]].calibrator, shown=shown, **labels))
            yield batch

    evaluations = {
        split: evaluate(
            fitted,
            queries,
            read_similarities(ranks, candidates, exemplars, split, kinds, "control"),
            shown=shown,
            absent_share=absent_share,
            pool_shares=pool_shares,
            seed=seed,
        )
        for split, queries in (("validation", validation), ("test", test()))
    }
    return Calibrated(
        {
            **labels,
            "forms": {name: one.description for name, one in fitted.items()},
            "fitted_on": {
                "split": "validation",
                "condition": CONDITION,
                "kinds": sorted(fitted_kinds),
                "queries": sum(len(batch.queries) for batch in validation),
                "exemplar_sets": len({name for batch in validation for name in batch.sets}),
                "distractors": _only(ranks, "n_distractors"),
            },
        },
        [row for split, one in evaluations.items() for row in calibration_rows(one, **labels, split=split)],
        [row for split, one in evaluations.items() for row in reliability_rows(one, **labels, split=split)],
    )


def fit_calibrators(
    batches: Sequence[SimilarityBatch], names: Sequence[str], absent_share: float
) -> dict[str, Fitted]:
    """Fit calibrators by name on all queries of the batches; InputError as `fit_calibrator`."""
    fitted = {name: fit_calibrator(name, batches, absent_share) for name in names}
    models = {name for batch in batches for name in batch.sets}
    if len(models) == 1:
        LOGGER.warning("calibrators are fitted on a single model, %s: they are no more than a guess", *models)
    return fitted


def warn_of_other_kinds(fitted: Collection[str], evaluated: Collection[str]) -> None:
    """Warn of kinds of sets that are evaluated with calibrators of other kinds."""
    for kind in sorted(set(evaluated) - set(fitted)):
        LOGGER.warning(
            "no %s set among those that calibrators were fitted on: calibrators of the other kinds are used for these",
            kind,
        )


def check_settings(
    shown: int, forms: Sequence[str], absent_share: float, pool_shares: Sequence[float]
) -> None:
    """Raise InputError, with the key, for a setting out of range."""
    if shown < 0:
        raise InputError(f"calibration.shown: {shown}, expected at least 0")
    if not forms or len(set(forms)) < len(forms):
        raise InputError(f"calibration.forms: {list(forms)}, expected at least one calibrator, each once")
    if not 0 < absent_share < 1:
        raise InputError(f"calibration.absent_share: {absent_share}, expected more than 0 and less than 1")
    if len(set(pool_shares)) < len(pool_shares) or not all(0 < share < 1 for share in pool_shares):
        raise InputError(
            f"calibration.pool_shares: {list(pool_shares)}, expected shares above 0 and below 1, each once"
        )


def _kinds(exemplars: pa.Table, split: str, kinds: Collection[str] | None) -> set[str]:
    """Return the kinds of sets in a split, among `kinds`."""
    rows = exemplars.select(["kind", "split"]).to_pylist()
    return {row["kind"] for row in rows if row["split"] == split and (kinds is None or row["kind"] in kinds)}


def _only(ranks: pa.Table, name: str) -> Any:
    """Return the value of a column that has one value in all rows."""
    found = sorted(ranks.column(name).unique().to_pylist())
    if len(found) != 1:
        raise InputError(f"ranks: column {name!r} has values {found}, expected one")
    return found[0]
