"""Parameters of the pool-aware form by maximum posterior likelihood on the validation split.

tau and the floor maximise the likelihood of the exemplars; level and slope of "none of these" that of
telling each query from the same query with its exemplars taken away. Both have a weak prior, worth one
customized model: queries of one model are alike, so five models are five observations however many
images they made, and a floor of 0, which three models may well ask for, would be refuted without
limit by the fourth. Its centres are what object and style sets of the demo's train and validation splits
gave with untuned features and object mappers; its widths let 50 models go where they want.

Kinds share one set of parameters, unless parameters of their own predict left-out models better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from attrib_core.attribution.calibration.golden_section import lowest
from attrib_core.attribution.calibration.pool_aware import Parameters, PoolAware, mixed, outstanding, soft
from attrib_core.attribution.calibration.similarities import Evidence
from attrib_core.attribution.calibration.subsampling import hold_out, select

TAUS = np.geomspace(0.05, 5.0, 31)  # in standard deviations
FLOORS = np.linspace(-12.0, 6.0, 19)  # log odds
PRIOR_TAU, WIDTH_TAU = np.log(0.6), 0.5
PRIOR_FLOOR, WIDTH_FLOOR = -2.0, 1.5
PRIOR_SLOPE, WIDTH_SLOPE = 1.0, 1.0
WIDTH_LEVEL = 5.0
FOLDS = 10


class Fit(NamedTuple):
    """The calibrator, and the likelihood of left-out models: one set of parameters, and one a kind.

    together, apart   mean negative log-likelihood, nats a query; None where it was not asked
    """

    calibrator: PoolAware
    together: float | None
    apart: float | None


def fit(evidence: Sequence[Evidence], absent_share: float) -> Fit:
    """Fit on all queries of the evidence."""
    kinds = sorted({kind for one in evidence for kind in one.kinds})
    joint = _parameters(evidence)
    together = PoolAware(dict.fromkeys(kinds, joint), absent_share, joint)
    by_kind = {
        kind: _where(evidence, [[of == kind for of in one.kinds] for one in evidence]) for kind in kinds
    }
    if len(kinds) < 2 or min(len(models(parts)) for parts in by_kind.values()) < 2:
        return Fit(together, None, None)
    left_out = left_out_likelihood(evidence)
    apart = sum(left_out_likelihood(parts) * _queries(parts) for parts in by_kind.values()) / _queries(
        evidence
    )
    if apart >= left_out:
        return Fit(together, left_out, apart)
    own = {kind: _parameters(parts) for kind, parts in by_kind.items()}
    return Fit(PoolAware(own, absent_share, joint), left_out, apart)


def left_out_likelihood(evidence: Sequence[Evidence]) -> float:
    """Negative log-likelihood, mean over queries, each by a fit to other models; in at most FOLDS folds."""
    names = models(evidence)
    fold = {name: place % FOLDS for place, name in enumerate(names)}
    losses: list[np.ndarray] = []
    for number in range(min(FOLDS, len(names))):
        inside = [[fold[name] == number for name in one.sets] for one in evidence]
        outside = [[not chosen for chosen in some] for some in inside]
        tau, floor = shares_parameters(_where(evidence, outside))
        losses += [_loss(part, tau, floor) for part in _where(evidence, inside)]
    return float(np.concatenate(losses).mean())


def models(evidence: Sequence[Evidence]) -> list[str]:
    """The exemplar sets of the evidence, in order."""
    return sorted({name for one in evidence for name in one.sets})


def shares_parameters(evidence: Sequence[Evidence]) -> tuple[float, float]:
    """tau and floor; see `objective`."""

    def at(tau: float) -> tuple[float, float]:
        loss = objective(evidence, tau)
        odds = lowest(loss, FLOORS)
        return loss(odds), odds

    tau = float(np.exp(lowest(lambda x: at(float(np.exp(x)))[0], np.log(TAUS))))
    return tau, _expit(at(tau)[1])


def objective(evidence: Sequence[Evidence], tau: float) -> Callable[[float], float]:
    """Log odds of the floor -> mean negative log-likelihood a query, and the prior over the models."""
    number = len(models(evidence))
    parts = []
    for one in evidence:
        own = slice(0, one.exemplars)
        weight = (1.0 / one.n_exemplars())[one.query[own]]
        parts.append(
            (
                soft(one, np.full(len(one.queries), tau))[own],
                (1.0 / one.n_candidates())[one.query[own]],
                weight,
            )
        )
    share, even, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
    queries = _queries(evidence)
    prior_tau = ((np.log(tau) - PRIOR_TAU) / WIDTH_TAU) ** 2

    def loss(odds: float) -> float:
        floor = _expit(odds)
        likelihood = float(weight @ np.log((1.0 - floor) * share + floor * even)) / queries
        prior = prior_tau + ((odds - PRIOR_FLOOR) / WIDTH_FLOOR) ** 2
        return float(prior) / 2.0 / number - likelihood

    return loss


def none_parameters(evidence: Sequence[Evidence], tau: float) -> tuple[float, float]:
    """Level and slope: logistic regression of "exemplars taken away" on `outstanding`, by Newton's method."""
    sides = [
        np.concatenate([outstanding(one, np.full(len(one.queries), tau)) for one in side])
        for side in (evidence, [hold_out(one) for one in evidence])
    ]
    x = np.concatenate(sides)
    y = np.repeat([0.0, 1.0], [len(side) for side in sides])
    design = np.stack([np.ones(len(x)), -x])
    precision = np.array([WIDTH_LEVEL, WIDTH_SLOPE]) ** -2.0 / len(models(evidence))
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


def _parameters(evidence: Sequence[Evidence]) -> Parameters:
    tau, floor = shares_parameters(evidence)
    return Parameters(tau, floor, *none_parameters(evidence, tau))


def _where(evidence: Sequence[Evidence], chosen: Sequence[Sequence[bool]]) -> list[Evidence]:
    """The chosen queries; pieces that hold none of them are left out."""
    pairs = zip(evidence, chosen, strict=True)
    return [select(one, np.array(some)) for one, some in pairs if any(some)]


def _loss(evidence: Evidence, tau: float, floor: float) -> np.ndarray:
    same = np.full(len(evidence.queries), 1.0)
    own = slice(0, evidence.exemplars)
    share = mixed(soft(evidence, tau * same), evidence, floor * same)
    loss: np.ndarray = -evidence.total(np.log(share[own]), own) / evidence.n_exemplars()
    return loss


def _queries(evidence: Sequence[Evidence]) -> int:
    return sum(len(one.queries) for one in evidence)


def _expit(x: float) -> float:
    return float(np.exp(-np.logaddexp(0.0, -x)))
