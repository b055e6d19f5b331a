"""How good the shares are: likelihood, reliability, Brier score, mass of exemplars and of the tail.

The truth of a query is taken to be a share of 1 / n for each of its n exemplars and 0 for all
distractors, as customization made it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attrib_core.calibration.evidence import Evidence
from attrib_core.calibration.form import Calibrator, negative_log_likelihood, shares

EDGES = np.array([0.0, 1e-5, 1e-4, 1e-3, 1e-2, *np.arange(1, 11) / 10])
"""Bins of influence; nearly all candidates have next to none, so the first bins are by decades."""
ALL = "all"


class Quality:
    """Sums over the queries of one split, taken in a piece of evidence at a time."""

    def __init__(self, split: str, calibrator: Calibrator, shown: int) -> None:
        self.split = split
        self._calibrator, self._shown = calibrator, shown
        self._values: dict[str, list[np.ndarray]] = {}
        self._kinds: list[str] = []
        self._bins: dict[str, np.ndarray] = {}  # by kind: (candidates, influence, truth) x bins

    def add(self, evidence: Evidence) -> None:
        """Take in some queries."""
        share = shares(evidence, self._calibrator)
        n = evidence.n_exemplars()
        own = slice(0, evidence.exemplars)
        own_mass = evidence.total(share[own], own)
        values = {
            "negative_log_likelihood": negative_log_likelihood(evidence, self._calibrator),
            # sum of (p - y)^2 with y = 1 / n for exemplars: sum p^2 - 2 (sum over exemplars of p) / n + 1 / n
            "brier": evidence.total(evidence.count * share**2) - 2.0 * own_mass / n + 1.0 / n,
            "exemplar_mass": own_mass,
            "tail_mass": tail_mass(evidence, share, self._shown),
        }
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)
        self._kinds += evidence.kinds
        truth = np.zeros(len(share))
        truth[own] = (1.0 / n)[evidence.query[own]]
        kinds = np.array(evidence.kinds)[evidence.query]
        for kind in {ALL, *evidence.kinds}:
            chosen = np.ones(len(share), bool) if kind == ALL else kinds == kind
            sums = _binned(share[chosen], evidence.count[chosen], truth[chosen])
            self._bins[kind] = self._bins.get(kind, 0) + sums

    def metrics(self, **labels: str) -> list[dict[str, Any]]:
        """Rows of the table `calibration`, means over queries, by kind of set and for all.

        negative_log_likelihood     see `form`
        expected_calibration_error  sum over bins of influence of |predicted mass - true mass| / 2 a query:
                                    the share of influence that would have to change bins, 0 to 1
        brier                       sum over candidates of (p - y)^2
        exemplar_mass               influence of the exemplars together
        tail_mass                   influence of all candidates that are neither exemplars nor shown
        """
        rows: list[dict[str, Any]] = []
        kinds = np.array(self._kinds)
        for kind in sorted(self._bins):
            chosen = np.ones(len(kinds), bool) if kind == ALL else kinds == kind
            queries = int(np.count_nonzero(chosen))
            values = {
                name: float(np.concatenate(parts)[chosen].mean()) for name, parts in self._values.items()
            }
            _, predicted, true = self._bins[kind]
            values["expected_calibration_error"] = float(np.abs(predicted - true).sum() / 2.0 / queries)
            rows += [
                {
                    **labels,
                    "split": self.split,
                    "kind": kind,
                    "metric": name,
                    "value": value,
                    "n_queries": queries,
                }
                for name, value in sorted(values.items())
            ]
        return rows

    def reliability(self, **labels: str) -> list[dict[str, Any]]:
        """Rows of the table `reliability`, all kinds together."""
        counts, predicted, true = self._bins.get(ALL, np.zeros((3, len(EDGES) - 1)))
        return [
            {
                **labels,
                "split": self.split,
                "bin_low": float(EDGES[i]),
                "bin_high": float(EDGES[i + 1]),
                "mean_influence": float(predicted[i] / counts[i]) if counts[i] else None,
                "exemplar_share": float(true[i] / counts[i]) if counts[i] else None,
                "n_candidates": int(counts[i]),
            }
            for i in range(len(counts))
        ]


def tail_mass(evidence: Evidence, share: np.ndarray, shown: int) -> np.ndarray:
    """Influence of the candidates that are not shown, (queries,)."""
    hidden = slice(evidence.exemplars, None)
    mass = (evidence.count * share)[hidden]
    mass[: evidence.top][evidence.places() < shown] = 0.0
    return evidence.total(mass, hidden)


def _binned(share: np.ndarray, count: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Candidates, predicted and true influence in each bin of influence, (3, bins)."""
    place = np.clip(np.searchsorted(EDGES, share, side="right") - 1, 0, len(EDGES) - 2)
    return np.stack(
        [np.bincount(place, weights=w, minlength=len(EDGES) - 1) for w in (count, count * share, truth)]
    )
