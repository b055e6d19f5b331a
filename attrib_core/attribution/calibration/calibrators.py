"""Calibrators by name: fit each, describe it in JSON, and restore it from its description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from attrib_core.attribution.calibration import (
    pool_aware,
    pool_aware_fit,
    published_fit,
    published_form,
    whole_pool_fit,
)
from attrib_core.attribution.calibration.similarities import SimilarityBatch
from attrib_core.common.errors import InputError

CALIBRATORS = ("pool_aware", "published", "published_whole_pool")


class Calibrator(Protocol):
    """A fitted calibrator."""

    def shares(self, batch: SimilarityBatch) -> np.ndarray:
        """Compute the influence of one candidate of each entry if one of them is the source, (entries,)."""

    def none_mass(self, batch: SimilarityBatch) -> np.ndarray:
        """Compute the mass of "none of these", (queries,)."""


class Fitted(NamedTuple):
    """A fitted calibrator and its description for `calibrator.json`."""

    calibrator: Calibrator
    description: dict[str, Any]


def fit_calibrator(name: str, batches: Sequence[SimilarityBatch], absent_share: float) -> Fitted:
    """Fit one of CALIBRATORS. Raises InputError for another name, and where there is nothing to fit on."""
    if name not in CALIBRATORS:
        raise InputError(f"calibration.forms: {name!r}, expected one of {', '.join(CALIBRATORS)}")
    if not any(batch.exemplars for batch in batches):
        raise InputError(
            "calibration: no customized query in the split 'validation', expected some to fit on"
        )
    if name == "pool_aware":
        found = pool_aware_fit.fit(batches, absent_share)
        other_kinds = found.calibrator.other_kinds
        return Fitted(
            found.calibrator,
            {
                "form": pool_aware.FORMULA,
                "parameters": {kind: values._asdict() for kind, values in found.calibrator.kinds.items()},
                "other_kinds": None if other_kinds is None else other_kinds._asdict(),
                "absent_share": absent_share,
                "left_out_negative_log_likelihood": {"together": found.together, "apart": found.apart},
            },
        )
    if name == "published":
        published = published_fit.fit(batches)
        return Fitted(
            published,
            {
                "form": published_form.FORMULA,
                **published._asdict(),
                "checkpoint": {"inv_tau": 1.0 / published.tau, "bias": published.bias / published_fit.GAIN},
            },
        )
    whole_pool = whole_pool_fit.fit(batches)
    return Fitted(
        whole_pool.calibrator,
        {
            "form": published_form.FORMULA,
            **whole_pool.calibrator._asdict(),
            "uniform_share": whole_pool.uniform_share,
        },
    )


def from_description(name: str, description: Mapping[str, Any], absent_share: float) -> Calibrator:
    """Restore the calibrator that `fit_calibrator` described, with another `absent_share`.

    Raises InputError for anything but a description of one of CALIBRATORS.
    """
    if name not in CALIBRATORS:
        raise InputError(f"form {name!r}, expected one of {', '.join(CALIBRATORS)}")
    try:
        if name == "pool_aware":
            kinds = {str(kind): _parameters(of) for kind, of in description["parameters"].items()}
            return pool_aware.PoolAware(kinds, absent_share, _parameters(description["other_kinds"]))
        found = published_form.PublishedCalibrator(float(description["tau"]), float(description["bias"]))
        check_published(found)
        return found
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"form {name!r}: {type(error).__name__}: {error}, expected fitted parameters"
        ) from None


def _parameters(values: Mapping[str, Any]) -> pool_aware.Parameters:
    found = pool_aware.Parameters(**{name: float(value) for name, value in values.items()})
    _check_finite(found.tau, *found)
    if not 0 <= found.floor <= 1:
        raise ValueError(f"floor {found.floor:g} must be from 0 to 1, a share")
    return found


def check_published(found: published_form.PublishedCalibrator) -> None:
    """Raise ValueError where parameters give no influence: tau above 0, bias above -1, both finite.

    A bias is in units of the largest weight, which is 1; at -1 and below no candidate has any weight.
    """
    _check_finite(found.tau, *found)
    if found.bias <= -1:
        raise ValueError(f"bias {found.bias:g} must be above -1, or no candidate has any influence")


def _check_finite(tau: float, *values: float) -> None:
    if not tau > 0 or not np.isfinite(values).all():
        raise ValueError(f"parameters {list(values)}, tau {tau:g} must be above 0 and all finite")


def displayed_influence(batch: SimilarityBatch, share: np.ndarray, none: np.ndarray) -> np.ndarray:
    """Compute the displayed influence of one candidate of each entry, (entries,): share times (1 - none)."""
    displayed: np.ndarray = share * (1.0 - none)[batch.query]
    return displayed
