"""Evaluate fitted calibrators on queries and controls, with the whole pool and with parts of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrib_core.attribution.calibration.calibration_metrics import CalibrationMetrics
from attrib_core.attribution.calibration.calibrators import Fitted
from attrib_core.attribution.calibration.similarities import SimilarityBatch
from attrib_core.attribution.calibration.subsampling import subsample_pool

Evaluation = dict[tuple[str, float], CalibrationMetrics]
"""Metrics by calibrator and share of the pool."""


def evaluate(
    fitted: Mapping[str, Fitted],
    queries: Iterable[SimilarityBatch],
    controls: Iterable[SimilarityBatch] = (),
    *,
    shown: int,
    absent_share: float,
    pool_shares: Sequence[float],
    seed: int,
) -> Evaluation:
    """Evaluate on all queries of one split, a batch at a time; the options are those of `calibrate`."""
    options: dict[str, Any] = {"shown": shown, "absent_share": absent_share}
    found = {
        (name, share): CalibrationMetrics(one.calibrator, **options)
        for name, one in fitted.items()
        for share in (1.0, *pool_shares)
    }
    for batches, add in ((queries, CalibrationMetrics.add), (controls, CalibrationMetrics.add_control)):
        for batch in batches:
            for share in (1.0, *pool_shares):
                part = subsample_pool(batch, share, seed)
                for name in fitted:
                    add(found[name, share], part)
    return found


def calibration_rows(evaluation: Evaluation, **labels: Any) -> list[dict[str, Any]]:
    """Return the rows of the table `calibration`."""
    return [
        row
        for (name, share), metrics in evaluation.items()
        for row in metrics.rows(**labels, form=name, pool_share=share)
    ]


def reliability_rows(evaluation: Evaluation, **labels: Any) -> list[dict[str, Any]]:
    """Return the rows of the table `reliability`, with the whole pool."""
    return [
        row
        for (name, share), metrics in evaluation.items()
        if share == 1.0
        for row in metrics.reliability_rows(**labels, form=name)
    ]
