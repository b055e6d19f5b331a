"""Soft influence: what share of an image each candidate is held responsible for.

Several forms (`forms`), each fitted on the validation split and judged on validation and test (`quality`),
on the whole pool and on parts of it: `pool_aware`, which has the whole pool in its sum and may say "none
of these", `published` with its published training, and `published_whole_pool`, the published form by
maximum likelihood with the whole pool in the sum. One calibrator for each encoder and mapper.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from attrib_core.attribution.calibration.calibrators import FORMS, Fitted, Form, fit_form
from attrib_core.attribution.calibration.evaluate import Judged, calibration_rows, judge, reliability_rows
from attrib_core.attribution.calibration.pool_aware import Parameters, PoolAware
from attrib_core.attribution.calibration.published_form import Calibrator, negative_log_likelihood, shares
from attrib_core.attribution.calibration.scoring_rules import Quality
from attrib_core.attribution.calibration.similarities import (
    CONDITION,
    EXEMPLAR_COLUMNS,
    RANK_COLUMNS,
    Evidence,
    gather,
)
from attrib_core.attribution.calibration.soft_scores import soft_scores
from attrib_core.attribution.calibration.subsampling import hold_out, select, thin
from attrib_core.attribution.calibration.whole_pool_fit import TAUS, Fit, fit
from attrib_core.common.errors import InputError

__all__ = [
    "CONDITION", "EXEMPLAR_COLUMNS", "FORMS", "RANK_COLUMNS", "TAUS",
    "Calibrated", "Calibrator", "Evidence", "Fit", "Fitted", "Form", "Judged", "Parameters", "PoolAware", "Quality",
    "calibrate", "calibration_rows", "check", "fit", "fit_form", "fit_forms", "gather", "hold_out", "judge",
    "negative_log_likelihood", "reliability_rows", "select", "shares", "soft_scores", "thin",
    "warn_of_other_kinds",
]  # fmt: skip

LOGGER = logging.getLogger(__name__)


class Calibrated(NamedTuple):
    """What is known when all soft scores are saved: the calibrator's file and two tables' rows."""

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
    forms: Sequence[str] = FORMS,
    absent_share: float = 0.5,
    pool_shares: Sequence[float] = (0.25, 0.0625),
    bootstrap: int = 1000,
    seed: int = 0,
) -> Calibrated:
    """Fit on the validation split, give each test query's soft scores to `save`, and judge both splits.

    ranks, exemplars   one encoder's and mapper's ranks; the exemplars; RANK_COLUMNS, EXEMPLAR_COLUMNS
    candidates         the file of the same encoder's and mapper's candidates
    kinds              kinds of exemplar sets whose queries count: those that the mapper is for; None for all
    shown              distractors with a row of their own in soft_scores, the most similar ones
    forms              names of FORMS to fit and judge; soft scores are of the first
    absent_share       share of queries whose sources are taken not to be in the pool
    pool_shares        parts of the pool on which the calibrators, fitted on all of it, are judged too
    bootstrap, seed    resamples of the models behind the intervals; the run's seed

    Only queries of customized models are fitted on; controls are asked for "none of these". Raises
    InputError where no such query is in the validation split, for settings out of range, and for tables
    that do not belong together.
    """
    check(shown, forms, absent_share, pool_shares, bootstrap)
    labels = {name: _only(ranks, name) for name in ("encoder", "mapper")}
    validation = list(gather(ranks, candidates, exemplars, "validation", kinds))
    if not validation and kinds is not None:
        raise InputError(
            f"calibration: no customized query of {' or '.join(kinds)} sets in the split 'validation'; expected some"
            " to fit on, so exemplars.splits.validation must give such sets"
        )
    fitted = fit_forms(validation, forms, absent_share)
    known = {kind for one in validation for kind in one.kinds}
    warn_of_other_kinds(known, _kinds(exemplars, "test", kinds))
    chosen = fitted[forms[0]].calibrator

    def test() -> Iterator[Evidence]:
        for one in gather(ranks, candidates, exemplars, "test", kinds):
            save(soft_scores(one, chosen, shown=shown, **labels))
            yield one

    judged = {
        split: judge(
            fitted,
            queries,
            gather(ranks, candidates, exemplars, split, kinds, "control"),
            shown=shown,
            absent_share=absent_share,
            pool_shares=pool_shares,
            bootstrap=bootstrap,
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
                "kinds": sorted(known),
                "queries": sum(len(one.queries) for one in validation),
                "exemplar_sets": len({name for one in validation for name in one.sets}),
                "distractors": _only(ranks, "n_distractors"),
            },
        },
        [row for split, one in judged.items() for row in calibration_rows(one, **labels, split=split)],
        [row for split, one in judged.items() for row in reliability_rows(one, **labels, split=split)],
    )


def fit_forms(evidence: Sequence[Evidence], forms: Sequence[str], absent_share: float) -> dict[str, Fitted]:
    """Forms by name, each fitted on all queries of the evidence; InputError as `fit_form`."""
    fitted = {name: fit_form(name, evidence, absent_share) for name in forms}
    models = {name for one in evidence for name in one.sets}
    if len(models) == 1:
        LOGGER.warning("calibrators are fitted on a single model, %s: they are no more than a guess", *models)
    return fitted


def warn_of_other_kinds(fitted: Collection[str], asked: Collection[str]) -> None:
    """Say which kinds of sets are judged by calibrators of other kinds."""
    for kind in sorted(set(asked) - set(fitted)):
        LOGGER.warning(
            "no %s set among those that calibrators were fitted on: calibrators of the other kinds are used for these",
            kind,
        )


def check(
    shown: int, forms: Sequence[str], absent_share: float, pool_shares: Sequence[float], bootstrap: int
) -> None:
    """Settings in range; InputError names the key."""
    if shown < 0:
        raise InputError(f"calibration.shown: {shown}, expected at least 0")
    if not forms or len(set(forms)) < len(forms):
        raise InputError(f"calibration.forms: {list(forms)}, expected at least one form, each once")
    if not 0 < absent_share < 1:
        raise InputError(f"calibration.absent_share: {absent_share}, expected more than 0 and less than 1")
    if len(set(pool_shares)) < len(pool_shares) or not all(0 < share < 1 for share in pool_shares):
        raise InputError(
            f"calibration.pool_shares: {list(pool_shares)}, expected shares above 0 and below 1, each once"
        )
    if bootstrap < 1:
        raise InputError(f"metrics.bootstrap: {bootstrap}, expected at least 1")


def _kinds(exemplars: pa.Table, split: str, kinds: Collection[str] | None) -> set[str]:
    """The kinds of sets that a split has, among those that count."""
    rows = exemplars.select(["kind", "split"]).to_pylist()
    return {row["kind"] for row in rows if row["split"] == split and (kinds is None or row["kind"] in kinds)}


def _only(ranks: pa.Table, name: str) -> Any:
    found = sorted(ranks.column(name).unique().to_pylist())
    if len(found) != 1:
        raise InputError(f"ranks: column {name!r} has values {found}, expected one")
    return found[0]
