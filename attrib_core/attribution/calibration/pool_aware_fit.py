"""Fit the pool-aware calibrator by maximum a posteriori on the validation split.

tau and the floor maximize the likelihood of the exemplars; level and slope of "none of these" that of
telling each query from the same query without its exemplars. Both have a weak prior, worth one
customized model: queries of one model are alike, so five models are five observations whatever the number
of their images, and a floor of 0, the optimum for some sets of three models, would give a fourth model an
infinite loss. The centres of the priors are the values for object and style sets of the demo's train and
validation splits, with untuned features and object mappers; the widths hardly constrain a fit to 50 models.

Kinds share one set of parameters, unless separate parameters predict left-out models better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from attrib_core.attribution.calibration.golden_section import minimize_nested
from attrib_core.attribution.calibration.pool_aware import (
    Parameters,
    PoolAware,
    log_mean_exp,
    mix_with_uniform,
    standardized_softmax,
)
from attrib_core.attribution.calibration.scoring_rules import negative_log_likelihood
from attrib_core.attribution.calibration.similarities import SimilarityBatch
from attrib_core.attribution.calibration.subsampling import hold_out_exemplars, select_queries

TAUS = np.geomspace(0.05, 5.0, 31)  # in standard deviations
FLOORS = np.linspace(-12.0, 6.0, 19)  # log odds
PRIOR_TAU, WIDTH_TAU = np.log(0.6), 0.5
PRIOR_FLOOR, WIDTH_FLOOR = -2.0, 1.5
PRIOR_SLOPE, WIDTH_SLOPE = 1.0, 1.0
WIDTH_LEVEL = 5.0
FOLDS = 10


class Fit(NamedTuple):
    """A fitted calibrator, and the losses of left-out models with joint and with separate parameters.

    together, apart   mean negative log-likelihood, nats a query, of joint parameters and of one set a kind;
                      None where there are too few models of some kind to compare them
    """

    calibrator: PoolAware
    together: float | None
    apart: float | None


def fit(batches: Sequence[SimilarityBatch], absent_share: float) -> Fit:
    """Fit to all queries."""
    kinds = sorted({kind for batch in batches for kind in batch.kinds})
    joint = _parameters(batches)
    calibrator = PoolAware(dict.fromkeys(kinds, joint), absent_share, joint)
    by_kind = {
        kind: _select(batches, [[of == kind for of in batch.kinds] for batch in batches]) for kind in kinds
    }
    if len(kinds) < 2 or min(len(model_names(parts)) for parts in by_kind.values()) < 2:
        return Fit(calibrator, None, None)
    together = left_out_loss(batches)
    apart = sum(left_out_loss(parts) * _n_queries(parts) for parts in by_kind.values()) / _n_queries(batches)
    if apart >= together:
        return Fit(calibrator, together, apart)
    separate = {kind: _parameters(parts) for kind, parts in by_kind.items()}
    return Fit(PoolAware(separate, absent_share, joint), together, apart)


def left_out_loss(batches: Sequence[SimilarityBatch]) -> float:
    """Compute the cross-validated negative log-likelihood, mean over queries, in at most FOLDS folds of models."""
    names = model_names(batches)
    fold = {name: number % FOLDS for number, name in enumerate(names)}
    losses: list[np.ndarray] = []
    for number in range(min(FOLDS, len(names))):
        inside = [[fold[name] == number for name in batch.sets] for batch in batches]
        outside = [[not chosen for chosen in some] for some in inside]
        tau, floor = fit_shares(_select(batches, outside))
        losses += [_loss(part, tau, floor) for part in _select(batches, inside)]
    return float(np.concatenate(losses).mean())


def model_names(batches: Sequence[SimilarityBatch]) -> list[str]:
    """Return the distinct exemplar sets, sorted."""
    return sorted({name for batch in batches for name in batch.sets})


def fit_shares(batches: Sequence[SimilarityBatch]) -> tuple[float, float]:
    """Fit tau and floor; see `objective`."""
    tau, odds = minimize_nested(lambda tau: objective(batches, tau), TAUS, FLOORS)
    return tau, _expit(odds)


def objective(batches: Sequence[SimilarityBatch], tau: float) -> Callable[[float], float]:
    """Return the function from log odds of the floor to mean negative log-likelihood a query plus the prior."""
    models, queries = len(model_names(batches)), _n_queries(batches)
    parts = []
    for batch in batches:
        own = slice(0, batch.exemplars)
        share = standardized_softmax(batch, np.full(len(batch.queries), tau))[own]
        of_query = batch.query[own]
        parts.append((share, (1.0 / batch.n_candidates())[of_query], (1.0 / batch.n_exemplars())[of_query]))
    share, uniform, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
    prior_tau = ((np.log(tau) - PRIOR_TAU) / WIDTH_TAU) ** 2

    def loss(odds: float) -> float:
        floor = _expit(odds)
        likelihood = float(weight @ np.log((1.0 - floor) * share + floor * uniform)) / queries
        prior = prior_tau + ((odds - PRIOR_FLOOR) / WIDTH_FLOOR) ** 2
        return float(prior) / 2.0 / models - likelihood

    return loss


def fit_none_mass(batches: Sequence[SimilarityBatch], tau: float) -> tuple[float, float]:
    """Fit level and slope: logistic regression of "exemplars removed" on `log_mean_exp`, by Newton's method."""
    scores = [
        np.concatenate([log_mean_exp(batch, np.full(len(batch.queries), tau)) for batch in side])
        for side in (batches, [hold_out_exemplars(batch) for batch in batches])
    ]
    x = np.concatenate(scores)
    y = np.repeat([0.0, 1.0], [len(side) for side in scores])
    design = np.stack([np.ones(len(x)), -x])
    precision = np.array([WIDTH_LEVEL, WIDTH_SLOPE]) ** -2.0 / len(model_names(batches))
    centre = np.array([0.0, PRIOR_SLOPE])

    def loss(at: np.ndarray) -> float:
        return float(
            np.logaddexp(0.0, (1.0 - 2.0 * y) * (at @ design)).mean() + precision @ (at - centre) ** 2 / 2.0
        )

    at, value = centre, loss(centre)
    for _ in range(100):  # the loss is strictly convex, and a step that does not lower it is halved
        p = np.exp(-np.logaddexp(0.0, -(at @ design)))
        gradient = design @ (p - y) / len(x) + precision * (at - centre)
        curvature = (design * (p * (1.0 - p))) @ design.T / len(x) + np.diag(precision)
        step = np.linalg.solve(curvature, gradient)
        while loss(at - step) > value and np.abs(step).max() > 1e-12:
            step = step / 2.0
        at, value = at - step, loss(at - step)
        if np.abs(step).max() < 1e-10:
            break
    return float(at[0]), float(at[1])


def _parameters(batches: Sequence[SimilarityBatch]) -> Parameters:
    tau, floor = fit_shares(batches)
    return Parameters(tau, floor, *fit_none_mass(batches, tau))


def _select(batches: Sequence[SimilarityBatch], chosen: Sequence[Sequence[bool]]) -> list[SimilarityBatch]:
    """Return the chosen queries, without batches that have none of them."""
    pairs = zip(batches, chosen, strict=True)
    return [select_queries(batch, np.array(some)) for batch, some in pairs if any(some)]


def _loss(batch: SimilarityBatch, tau: float, floor: float) -> np.ndarray:
    ones = np.full(len(batch.queries), 1.0)
    share = mix_with_uniform(standardized_softmax(batch, tau * ones), batch, floor * ones)
    return negative_log_likelihood(batch, share)


def _n_queries(batches: Sequence[SimilarityBatch]) -> int:
    return sum(len(batch.queries) for batch in batches)


def _expit(x: float) -> float:
    return float(np.exp(-np.logaddexp(0.0, -x)))
