"""Variance of an average over rows that share models and prompts (two-way clustering).

Images of one model are not independent, and neither are images of one prompt, which many models share. With z the
contributions of the rows to the error of an estimate, n models, lists of G prompts each, and sums over rows,

    V(models)  = n / (n - 1)  sum over models of (sum of z of the model)^2
    V(prompts) = G / (G - 1)  sum over the prompts of a list of (sum of z of the prompt)^2
    V(both)    = sum over pairs of a model and a prompt of the list of (sum of z of the pair)^2
    V          = V(models) + sum over lists of max(0, V(prompts) - V(both))

as of Cameron, Gelbach and Miller (2011), Robust inference with multiway clustering, eq. 2.13; Owen (2007), The
pigeonhole bootstrap, has the same three parts. What both clusterings share is counted once, and V is not below
V(models), as negative estimates are not unusual. Each model has prompts of every list, so lists are no sample but
strata: in V(prompts) and V(both), z is less its mean within the list.

The degrees of freedom are Satterthwaite's (1946), of the terms of V with n - 1 and G - 1: where only a few prompts
matter, they are few, however many models there are. Where prompts are not known, or a list has one, they add nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """Variance of an estimate and its degrees of freedom; NaN for one model."""

    variance: float
    df: float


UNKNOWN = Spread(np.nan, np.nan)


class Crossing:
    """The model and the prompt of each row of some groups of rows.

    models   (rows,) name, or number of at least 0, of the model
    prompts  (rows,) of the prompt, or None where prompts are not known
    lists    (rows,) of the list of the prompt; None: there is one
    """

    def __init__(
        self, models: np.ndarray, prompts: np.ndarray | None = None, lists: np.ndarray | None = None
    ) -> None:
        self.models, self.n_models = _numbered(models)  # in the order of the names
        self._known = prompts is not None
        if prompts is not None:
            self._prompts, n_prompts = _numbered(prompts)
            self._lists, n_lists = _numbered(np.zeros(len(models), np.int64) if lists is None else lists)
            self._pairs, n_pairs = _numbered(self.models * n_prompts + self._prompts)
            self._of_prompts, self._of_pairs = np.empty(n_prompts, np.int64), np.empty(n_pairs, np.int64)
            self._of_prompts[self._prompts] = self._of_pairs[self._pairs] = self._lists
            self._lengths = np.bincount(self._of_prompts, minlength=n_lists)

    def spread(self, terms: np.ndarray, sides: np.ndarray | None = None) -> Spread:
        """Compute the variance of an estimate from the contributions of the rows to its error, (rows,).

        The contributions of a mean are (value - mean) / rows, and sum to 0. `sides` numbers the groups, 0, 1, ...,
        whose means make up the estimate; means within a list are of each group.
        """
        if self.n_models < 2:
            return UNKNOWN
        df = self.n_models - 1
        everything = np.zeros(self.n_models, np.int64)
        of_models = float(_squares(terms, self.models, everything)[0]) * self.n_models / df
        if not self._known:
            return Spread(of_models, df)
        groups = self._lists if sides is None else self._lists * (int(sides.max(initial=0)) + 1) + sides
        within = terms - (np.bincount(groups, weights=terms) / np.maximum(np.bincount(groups), 1))[groups]
        others = np.maximum(self._lengths - 1, 1)
        of_prompts = _squares(within, self._prompts, self._of_prompts) * self._lengths / others
        more = np.maximum(0.0, of_prompts - _squares(within, self._pairs, self._of_pairs))
        more[self._lengths < 2] = 0.0
        variance = of_models + float(more.sum())
        if variance <= 0:
            return Spread(0.0, df)
        return Spread(variance, variance**2 / (of_models**2 / df + float((more**2 / others).sum())))


def _numbered(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Return labels as numbers 0, 1, ..., in their order, and how many there are; small numbers without a sort."""
    if np.issubdtype(labels.dtype, np.integer) and labels.max(initial=0) < 8 * len(labels) + 1000:
        places = np.cumsum(np.bincount(labels) > 0) - 1
        return places[labels], int(places[-1]) + 1
    names, numbers = np.unique(labels, return_inverse=True)
    return numbers, len(names)


def _squares(terms: np.ndarray, groups: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """Sum the squares of the sums of terms within groups, for each list; `lists` has that of each group."""
    sums = np.bincount(groups, weights=terms, minlength=len(lists))
    squares: np.ndarray = np.bincount(lists, weights=sums * sums)
    return squares
