"""Evaluate a calibrator: scoring rules and calibration errors with intervals, and mass of "none of these".

The true influence of a query is 1 / n for each of its n exemplars and 0 for all distractors, since the model
was customized on the exemplars; without its exemplars in the pool, and for a control, it is "none of these".
Intervals are percentiles over resamples of the customized models.

Shares assume that the sources are in the pool, and are evaluated on the queries as they are. The displayed
influence (`soft_scores`) is the share times 1 minus the mass of "none of these". It makes no such assumption,
so it is evaluated on a mixture where the share `absent_share` of queries has its exemplars removed: the
metrics whose names start with `mixture`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attrib_core.attribution.calibration import auc
from attrib_core.attribution.calibration.calibrators import Calibrator, displayed_influence
from attrib_core.attribution.calibration.scoring_rules import (
    EDGES,
    brier_score,
    negative_log_likelihood,
    sum_in_bins,
    tail_mass,
)
from attrib_core.attribution.calibration.similarities import SimilarityBatch
from attrib_core.attribution.calibration.subsampling import hold_out_exemplars
from attrib_core.common import hashing

LEVELS = (0.1, 0.01, 0.001)
"""Edges of bins; the excess of displayed influence is over all candidates with one of these or more."""
ALL = "all"
NONE_THRESHOLD = 0.5
"""The answer to a query is "none of these" where that has more than this mass."""


class CalibrationMetrics:
    """Metrics of a calibrator, accumulated over the batches of one split."""

    def __init__(
        self, calibrator: Calibrator, *, shown: int, absent_share: float, resamples: int = 1000, seed: int = 0
    ) -> None:
        self._calibrator, self._shown, self._absent_share = calibrator, shown, absent_share
        self._resamples, self._seed = resamples, seed
        self._values: dict[str, list[tuple[np.ndarray, list[str], list[str]]]] = {}
        # by kind, set: (candidates, influence, truth) x bins; of displayed influence also the bins of "none"
        self._bins: dict[tuple[str, str], np.ndarray] = {}
        self._displayed: dict[tuple[str, str], np.ndarray] = {}

    def add(self, batch: SimilarityBatch) -> None:
        """Add queries of customized models."""
        held_out = hold_out_exemplars(batch)
        share, none = self._calibrator.shares(batch), self._calibrator.none_mass(batch)
        none_held_out = self._calibrator.none_mass(held_out)
        displayed = displayed_influence(batch, share, none)
        displayed_held_out = displayed_influence(held_out, self._calibrator.shares(held_out), none_held_out)
        own = slice(0, batch.exemplars)
        truth = np.zeros(len(share))
        truth[own] = (1.0 / batch.n_exemplars())[batch.query[own]]
        present, absent = 1.0 - self._absent_share, self._absent_share
        likelihood = negative_log_likelihood(batch, share)
        with np.errstate(divide="ignore"):
            mixture = present * (likelihood - np.log1p(-none)) - absent * np.log(none_held_out)
        values = {
            "negative_log_likelihood": likelihood,
            "mixture_brier": present * (brier_score(displayed, batch, truth) + none**2)
            + absent * (brier_score(displayed_held_out, held_out) + (1.0 - none_held_out) ** 2),
            "impossible": np.isinf(likelihood).astype(float),
            "mixture_negative_log_likelihood": mixture,
            "brier": brier_score(share, batch, truth),
            "exemplar_mass": batch.total(share[own], own),
            "tail_mass": tail_mass(batch, share, self._shown),
            "none_mass": none,
            "none_said": (none > NONE_THRESHOLD).astype(float),
            "none_mass_held_out": none_held_out,
            "none_said_held_out": (none_held_out > NONE_THRESHOLD).astype(float),
        }
        self._append(values, batch)
        kinds, sets = np.array(batch.kinds), np.array(batch.sets)
        for name in sorted(set(batch.sets)):
            queries = sets == name
            entries, left = queries[batch.query], queries[held_out.query]
            count, left_count, ones = batch.count[entries], held_out.count[left], np.ones(queries.sum())
            key = (str(kinds[queries][0]), name)
            self._bins[key] = self._bins.get(key, 0) + sum_in_bins(share[entries], count, truth[entries])
            with_exemplars = [
                sum_in_bins(displayed[entries], count, truth[entries]),
                sum_in_bins(none[queries], ones, 0.0 * ones),
            ]
            without_exemplars = [
                sum_in_bins(displayed_held_out[left], left_count, np.zeros(len(left_count))),
                sum_in_bins(none_held_out[queries], ones, ones),
            ]
            mixed = present * np.hstack(with_exemplars) + absent * np.hstack(without_exemplars)
            self._displayed[key] = self._displayed.get(key, 0) + mixed

    def add_control(self, batch: SimilarityBatch) -> None:
        """Add control images, for which no exemplar is the source; the exemplars of the batch are left out."""
        none = self._calibrator.none_mass(hold_out_exemplars(batch))
        answered = (none > NONE_THRESHOLD).astype(float)
        self._append({"none_mass_control": none, "none_said_control": answered}, batch)

    def rows(self, **labels: Any) -> list[dict[str, Any]]:
        """Return the rows of the table `calibration`, means over queries, by kind of set and for all.

        Shares are those given that the sources are among the candidates; in the metrics that start with
        `mixture` and those below them, "none of these" is an outcome like others.

        negative_log_likelihood     of the exemplars; infinite where an exemplar has no influence
        impossible                  share of queries with such an exemplar
        expected_calibration_error  sum over bins of influence of |predicted mass - true mass| / 2 a query:
                                    the share of influence that would have to change bins, 0 to 1
        brier                       sum over candidates of (p - y)^2
        exemplar_mass               influence of the exemplars together
        tail_mass                   influence of all candidates that are neither exemplars nor shown
        mixture_negative_log_likelihood
                                    on the mixture where the share `absent_share` of queries has its exemplars
                                    removed: "none of these" is then true
        mixture_expected_calibration_error, mixture_brier
                                    the same two of the displayed influence, on the mixture
        displayed_excess_at_0.1     mean of displayed minus true influence, on the mixture, over the candidates
                                    with 0.1 or more; one metric for each of LEVELS that any candidate reaches
        none_auc                    probability that a query without its exemplars has more mass of "none of
                                    these" than one with them; equal masses count one half
        none_mass, none_said        mass of "none of these" for queries with their exemplars in the pool, and
                                    share of them with more than half; where the truth is none: `_held_out`
                                    for the same queries without their exemplars, `_control` for controls
        """
        rows: list[dict[str, Any]] = []
        for kind in sorted({ALL, *(kind for kind, _ in self._bins)}) if self._bins else []:
            for name in sorted(self._values):
                values, kinds, sets = self._all(name)
                chosen = (kinds == kind) | (kind == ALL)
                if chosen.any():
                    rows.append(self._mean(name, kind, values[chosen], sets[chosen]))
            rows.append(self._calibration_error("", self._bins, kind))
            rows.append(self._calibration_error("mixture_", self._displayed, kind))
            rows += self._excesses(kind)
            rows.append(self._none_auc(kind))
        return [{**labels, **row} for row in rows]

    def reliability_rows(self, **labels: Any) -> list[dict[str, Any]]:
        """Return the rows of the table `reliability` of shares and displayed influence, all kinds together."""
        bins = len(EDGES) - 1
        shares = sum(self._bins.values(), np.zeros((3, bins)))
        displayed = sum(self._displayed.values(), np.zeros((3, 2 * bins)))[:, :bins]
        rows = [*_reliability("shares", shares), *_reliability("displayed", displayed)]
        return [{**labels, **row} for row in rows]

    def _append(self, values: dict[str, np.ndarray], batch: SimilarityBatch) -> None:
        for name, value in values.items():
            self._values.setdefault(name, []).append((value, batch.kinds, batch.sets))

    def _all(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a value of all queries, their kinds and their sets."""
        values, kinds, sets = (np.concatenate([part[i] for part in self._values[name]]) for i in range(3))
        return values, kinds, sets

    def _mean(self, name: str, kind: str, values: np.ndarray, sets: np.ndarray) -> dict[str, Any]:
        names, index = np.unique(sets, return_inverse=True)
        counts = np.bincount(index)
        finite = np.isfinite(values)
        sums = np.bincount(index, weights=np.where(finite, values, 0.0))
        infinite = np.bincount(index, weights=~finite)
        draws = self._draws(names.tolist())
        means = np.where(draws @ infinite > 0, np.inf, (draws @ sums) / (draws @ counts))
        return self._row(name, kind, float(values.mean()), means, len(values), len(names))

    def _calibration_error(
        self, prefix: str, sums: dict[tuple[str, str], np.ndarray], kind: str
    ) -> dict[str, Any]:
        by_set = {name: bins for (of, name), bins in sums.items() if kind in (of, ALL)}
        names = sorted(by_set)
        bins = np.stack([by_set[name] for name in names])
        queries = bins[:, 2].sum(axis=1)  # the truth of a query sums to 1
        difference = bins[:, 1] - bins[:, 2]
        draws = self._draws(names)
        errors = np.abs(draws @ difference).sum(axis=1) / 2.0 / (draws @ queries)
        value = float(np.abs(difference.sum(axis=0)).sum() / 2.0 / queries.sum())
        name = f"{prefix}expected_calibration_error"
        return self._row(name, kind, value, errors, round(queries.sum()), len(names))

    def _excesses(self, kind: str) -> list[dict[str, Any]]:
        """Return the excess at each level, over models and resamples with candidates that reach it."""
        by_set = {name: bins for (of, name), bins in self._displayed.items() if kind in (of, ALL)}
        names, rows = sorted(by_set), []
        draws, sets = self._draws(names), self._all("none_mass")[2]
        for level in LEVELS:
            inside = slice(int(np.searchsorted(EDGES, level)), len(EDGES) - 1)
            counts, predicted, true = np.array([by_set[name][:, inside].sum(axis=1) for name in names]).T
            high = counts > 0
            if not high.any():
                continue
            drawn = draws[draws @ counts > 0]
            resampled = (drawn @ (predicted - true)) / (drawn @ counts)
            value = float((predicted - true).sum() / counts.sum())
            queries = int(np.isin(sets, np.array(names)[high]).sum())
            name = f"displayed_excess_at_{level:g}"
            rows.append(self._row(name, kind, value, resampled, queries, int(high.sum())))
        return rows

    def _none_auc(self, kind: str) -> dict[str, Any]:
        none, kinds, sets = self._all("none_mass")
        none_held_out, _, _ = self._all("none_mass_held_out")
        chosen = (kinds == kind) | (kind == ALL)
        names, index = np.unique(sets[chosen], return_inverse=True)
        counts = np.bincount(index)
        pairs = auc.mann_whitney(none[chosen], none_held_out[chosen], index, len(names))
        value = float(auc.auc(pairs, counts, np.ones((1, len(names))))[0])
        resampled = auc.auc(pairs, counts, self._draws(names.tolist()))
        return self._row("none_auc", kind, value, resampled, len(index), len(names))

    def _draws(self, names: list[str]) -> np.ndarray:
        """Draw how often each exemplar set is in each resample, (resamples, sets)."""
        generator = hashing.generator(self._seed, "calibration over models", names)
        return generator.multinomial(len(names), np.full(len(names), 1.0 / len(names)), size=self._resamples)

    def _row(
        self, name: str, kind: str, value: float, resampled: np.ndarray, queries: int, models: int
    ) -> dict[str, Any]:
        low = high = float("nan")
        if models > 1 and len(resampled):  # no interpolation, since resamples may be infinite
            low = float(np.quantile(resampled, 0.025, method="lower"))
            high = float(np.quantile(resampled, 0.975, method="higher"))
        return {
            "kind": kind, "metric": name, "value": value, "ci_low": low, "ci_high": high,
            "n_queries": queries, "n_models": models,
        }  # fmt: skip


def _reliability(judged: str, sums: np.ndarray) -> list[dict[str, Any]]:
    """Return rows of the table `reliability` from (candidates, influence, truth) x bins."""
    counts, predicted, true = sums
    return [
        {
            "judged": judged,
            "bin_low": float(EDGES[i]),
            "bin_high": float(EDGES[i + 1]),
            "mean_influence": float(predicted[i] / counts[i]) if counts[i] else None,
            "exemplar_share": float(true[i] / counts[i]) if counts[i] else None,
            "n_candidates": round(counts[i]),
        }
        for i in range(len(counts))
    ]
