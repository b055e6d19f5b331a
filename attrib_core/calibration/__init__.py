"""Soft influence: what share of a picture each candidate is held responsible for.

The published form (`form`), fitted by maximum likelihood on the validation split (`fit`) with the
whole pool in its sum, so that it knows how large the pool is; judged on validation and test
(`quality`). One calibrator for each encoder and mapper.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from attrib_core.calibration.evidence import (
    CONDITION,
    EXEMPLAR_COLUMNS,
    RANK_COLUMNS,
    Evidence,
    gather,
)
from attrib_core.calibration.fit import TAUS, Fit, fit
from attrib_core.calibration.form import TEXT, Calibrator, negative_log_likelihood, shares
from attrib_core.calibration.quality import Quality
from attrib_core.calibration.soft_scores import soft_scores
from attrib_core.errors import InputError

__all__ = [
    "EXEMPLAR_COLUMNS", "RANK_COLUMNS",
    "Calibrated", "Calibrator", "Evidence", "Fit", "Quality",
    "calibrate", "fit", "gather", "negative_log_likelihood", "shares", "soft_scores",
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
) -> Calibrated:
    """Fit on the validation split, give each test query's soft scores to `save`, and judge both splits.

    ranks, exemplars   one encoder's and mapper's ranks; the exemplars; RANK_COLUMNS, EXEMPLAR_COLUMNS
    candidates         the file of the same encoder's and mapper's candidates
    kinds              kinds of exemplar sets whose queries count: those that the mapper is for; None for all
    shown              distractors with a row of their own in soft_scores, the most similar ones

    Only queries of customized models count. Raises InputError where no such query is in the
    validation split, and for tables that do not belong together.
    """
    if shown < 0:
        raise InputError(f"calibration.shown: {shown}, expected at least 0")
    labels = {name: _only(ranks, name) for name in ("encoder", "mapper")}
    validation = list(gather(ranks, candidates, exemplars, "validation", kinds))
    if not validation and kinds is not None:
        raise InputError(
            f"calibration: no customized query of {' or '.join(kinds)} sets in the split 'validation'; expected some"
            " to fit on, so exemplars.splits.validation must give such sets"
        )
    fitted = fit(validation)
    if not TAUS[1] < fitted.calibrator.tau < TAUS[-2]:
        LOGGER.warning(
            "tau %.4g is at the border of the search, %.4g to %.4g", fitted.calibrator.tau, TAUS[0], TAUS[-1]
        )
    judged = [Quality(split, fitted.calibrator, shown) for split in ("validation", "test")]
    for one in validation:
        judged[0].add(one)
    for one in gather(ranks, candidates, exemplars, "test", kinds):
        judged[1].add(one)
        save(soft_scores(one, fitted.calibrator, shown=shown, **labels))
    return Calibrated(
        _description(fitted, validation, ranks, labels),
        [row for quality in judged for row in quality.metrics(**labels)],
        [row for quality in judged for row in quality.reliability(**labels)],
    )


def _description(
    fitted: Fit, validation: list[Evidence], ranks: pa.Table, labels: dict[str, str]
) -> dict[str, Any]:
    queries = {name for one in validation for name in one.queries}
    rows = [
        row for row in ranks.select(["query_id", "exemplar_set"]).to_pylist() if row["query_id"] in queries
    ]
    return {
        **labels,
        "form": TEXT,
        "tau": fitted.calibrator.tau,
        "bias": fitted.calibrator.bias,
        "uniform_share": fitted.uniform_share,
        "negative_log_likelihood": fitted.negative_log_likelihood,
        "uniform_negative_log_likelihood": fitted.uniform_negative_log_likelihood,
        "fitted_on": {
            "split": "validation",
            "condition": CONDITION,
            "kinds": sorted({kind for one in validation for kind in one.kinds}),
            "queries": fitted.queries,
            "exemplar_sets": len({row["exemplar_set"] for row in rows}),
            "distractors": _only(ranks, "n_distractors"),
        },
    }


def _only(ranks: pa.Table, name: str) -> Any:
    found = sorted(ranks.column(name).unique().to_pylist())
    if len(found) != 1:
        raise InputError(f"ranks: column {name!r} has values {found}, expected one")
    return found[0]
