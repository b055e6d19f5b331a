"""The forms of soft influence by name: each is fitted on the validation split and then used the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from attrib_core.attribution.calibration import pool_aware, pool_aware_fit, published_fit, published_form
from attrib_core.attribution.calibration.similarities import Evidence
from attrib_core.attribution.calibration.whole_pool_fit import fit
from attrib_core.common.errors import InputError

FORMS = ("pool_aware", "published", "published_whole_pool")


class Form(Protocol):
    """A fitted form."""

    def shares(self, evidence: Evidence) -> np.ndarray:
        """Influence of one candidate of each entry if one of them is the source, (entries,)."""

    def none(self, evidence: Evidence) -> np.ndarray:
        """Mass of "none of these", (queries,); all else is to be multiplied by 1 less this."""


class Fitted(NamedTuple):
    """A form that can be used, and what is written down of it."""

    calibrator: Form
    description: dict[str, Any]


def fit_form(name: str, evidence: Sequence[Evidence], absent_share: float) -> Fitted:
    """Fit one of FORMS. Raises InputError for another name, and where there is nothing to fit on."""
    if name not in FORMS:
        raise InputError(f"calibration.forms: {name!r}, expected one of {', '.join(FORMS)}")
    if not any(one.exemplars for one in evidence):
        raise InputError(
            "calibration: no customized query in the split 'validation', expected some to fit on"
        )
    if name == "pool_aware":
        found = pool_aware_fit.fit(evidence, absent_share)
        return Fitted(
            found.calibrator,
            {
                "form": pool_aware.TEXT,
                "parameters": {kind: values._asdict() for kind, values in found.calibrator.kinds.items()},
                "other_kinds": None if found.calibrator.rest is None else found.calibrator.rest._asdict(),
                "absent_share": absent_share,
                "left_out_negative_log_likelihood": {"together": found.together, "apart": found.apart},
            },
        )
    if name == "published":
        trained = published_fit.train(evidence)
        return Fitted(
            trained,
            {
                "form": published_form.TEXT,
                **trained._asdict(),
                "checkpoint": {"inv_tau": 1.0 / trained.tau, "bias": trained.bias / published_fit.GAIN},
            },
        )
    whole = fit(evidence)
    return Fitted(
        whole.calibrator,
        {"form": published_form.TEXT, **whole.calibrator._asdict(), "uniform_share": whole.uniform_share},
    )


def of_description(name: str, description: Mapping[str, Any], absent_share: float) -> Form:
    """The form that `fit_form` described; `absent_share` takes the place of the one that it was fitted at.

    Raises InputError for what is no description of one of FORMS.
    """
    if name not in FORMS:
        raise InputError(f"form {name!r}, expected one of {', '.join(FORMS)}")
    try:
        if name == "pool_aware":
            kinds = {str(kind): _parameters(of) for kind, of in description["parameters"].items()}
            return pool_aware.PoolAware(kinds, absent_share, _parameters(description["other_kinds"]))
        found = published_form.Calibrator(float(description["tau"]), float(description["bias"]))
        _finite(found.tau, *found)
        return found
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"form {name!r}: {type(error).__name__}: {error}, expected what was fitted"
        ) from None


def _parameters(values: Mapping[str, Any]) -> pool_aware.Parameters:
    found = pool_aware.Parameters(**{name: float(value) for name, value in values.items()})
    _finite(found.tau, *found)
    return found


def _finite(tau: float, *values: float) -> None:
    if not tau > 0 or not np.isfinite(values).all():
        raise ValueError(f"parameters {list(values)}, tau {tau:g} must be above 0 and all finite")


def influence(evidence: Evidence, share: np.ndarray, none: np.ndarray) -> np.ndarray:
    """What is displayed of one candidate of each entry, (entries,): its share less what "none of these" takes."""
    displayed: np.ndarray = share * (1.0 - none)[evidence.query]
    return displayed


def negative_log_likelihood(evidence: Evidence, share: np.ndarray) -> np.ndarray:
    """-(1 / n) sum over the n exemplars of log p, (queries,) nats; infinite where one has no influence."""
    own = slice(0, evidence.exemplars)
    with np.errstate(divide="ignore"):
        logarithm = np.log(share[own])
    mean: np.ndarray = -evidence.total(logarithm, own) / evidence.n_exemplars()
    return mean
