"""Fitted calibrators, judged on queries and controls, on the whole pool and on parts of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrib_core.attribution.calibration.calibrators import Fitted
from attrib_core.attribution.calibration.scoring_rules import Quality
from attrib_core.attribution.calibration.similarities import Evidence
from attrib_core.attribution.calibration.subsampling import thin

Judged = dict[tuple[str, float], Quality]
"""By form and share of the pool."""


def judge(
    fitted: Mapping[str, Fitted],
    queries: Iterable[Evidence],
    controls: Iterable[Evidence] = (),
    *,
    shown: int,
    absent_share: float,
    pool_shares: Sequence[float],
    bootstrap: int,
    seed: int,
) -> Judged:
    """Take all queries of one split, a piece at a time; the options are those of `calibrate`."""
    shares = (1.0, *pool_shares)
    options: dict[str, Any] = {"shown": shown, "absent_share": absent_share, "resamples": bootstrap}
    judged = {
        (name, share): Quality(one.calibrator, **options, seed=seed)
        for name, one in fitted.items()
        for share in shares
    }
    for one in queries:
        for share in shares:
            part = thin(one, share, seed)
            for name in fitted:
                judged[name, share].add(part)
    for one in controls:
        for share in shares:
            part = thin(one, share, seed)
            for name in fitted:
                judged[name, share].add_control(part)
    return judged


def calibration_rows(judged: Judged, **labels: Any) -> list[dict[str, Any]]:
    """Rows of the table `calibration`."""
    return [
        row
        for (name, share), quality in judged.items()
        for row in quality.metrics(**labels, form=name, pool_share=share)
    ]


def reliability_rows(judged: Judged, **labels: Any) -> list[dict[str, Any]]:
    """Rows of the table `reliability`, which is of the whole pool alone."""
    return [
        row
        for (name, share), quality in judged.items()
        if share == 1.0
        for row in quality.reliability(**labels, form=name)
    ]
