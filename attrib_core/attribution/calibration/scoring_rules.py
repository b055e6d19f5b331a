"""How good the shares are: likelihood, reliability, Brier score, mass of exemplars and of the tail, "none".

The truth of a query is taken to be a share of 1 / n for each of its n exemplars and 0 for all
distractors, as customization made it; without its exemplars in the pool, and for a control, it is
"none of these". Intervals are percentiles over resamples of the customized models.

Shares, given that the sources are in the pool, are judged on the queries as they are. What is displayed
(`soft_scores`) is the share times 1 less the mass of "none of these". It makes no such assumption, so it is
judged where the share `absent_share` of queries has its exemplars taken away: the metrics that begin with
`mixture`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attrib_core.attribution.calibration import auc
from attrib_core.attribution.calibration.calibrators import Form, influence, negative_log_likelihood
from attrib_core.attribution.calibration.similarities import Evidence
from attrib_core.attribution.calibration.subsampling import hold_out
from attrib_core.common import hashing

EDGES = np.array([0.0, 1e-5, 1e-4, 1e-3, 1e-2, *np.arange(1, 11) / 10])
"""Bins of influence; nearly all candidates have next to none, so the first bins are by decades."""
LEVELS = (0.1, 0.01, 0.001)
"""Edges of bins; what is displayed is also judged over all candidates that are given one of these or more."""
ALL = "all"
SAID = 0.5
"""A query counts as answered with "none of these" where that has more than half of the mass."""


class Quality:
    """Sums over the queries of one split, taken in a piece of evidence at a time."""

    def __init__(
        self, calibrator: Form, *, shown: int, absent_share: float, resamples: int = 1000, seed: int = 0
    ) -> None:
        self._calibrator, self._shown, self._absent = calibrator, shown, absent_share
        self._resamples, self._seed = resamples, seed
        self._values: dict[str, list[tuple[np.ndarray, list[str], list[str]]]] = {}
        # by kind, set: (outcomes, influence, truth) x bins; of what is displayed the bins of candidates, then of none
        self._bins: dict[tuple[str, str], np.ndarray] = {}
        self._displayed: dict[tuple[str, str], np.ndarray] = {}

    def add(self, evidence: Evidence) -> None:
        """Take in some queries of customized models."""
        share = self._calibrator.shares(evidence)
        n = evidence.n_exemplars()
        own = slice(0, evidence.exemplars)
        own_mass = evidence.total(share[own], own)
        likelihood = negative_log_likelihood(evidence, share)
        none = self._calibrator.none(evidence)
        held_out = hold_out(evidence)
        without = self._calibrator.none(held_out)
        displayed = influence(evidence, share, none)
        astray = influence(held_out, self._calibrator.shares(held_out), without)
        truth = np.zeros(len(share))
        truth[own] = (1.0 / n)[evidence.query[own]]
        with np.errstate(divide="ignore"):
            mixture = (1.0 - self._absent) * (likelihood - np.log1p(-none)) - self._absent * np.log(without)
        values = {
            "negative_log_likelihood": likelihood,
            "mixture_brier": (1.0 - self._absent) * (_squared(displayed, evidence, truth) + none**2)
            + self._absent * (_squared(astray, held_out) + (1.0 - without) ** 2),
            "impossible": np.isinf(likelihood).astype(float),
            "mixture_negative_log_likelihood": mixture,
            "brier": _squared(share, evidence, truth),
            "exemplar_mass": own_mass,
            "tail_mass": tail_mass(evidence, share, self._shown),
            "none_mass": none,
            "none_said": (none > SAID).astype(float),
            "none_mass_held_out": without,
            "none_said_held_out": (without > SAID).astype(float),
        }
        self._keep(values, evidence)
        kinds, sets = np.array(evidence.kinds), np.array(evidence.sets)
        for name in sorted(set(evidence.sets)):
            chosen = (sets == name)[evidence.query]
            lost = (sets == name)[held_out.query]
            place = (str(kinds[sets == name][0]), name)
            sums = _binned(share[chosen], evidence.count[chosen], truth[chosen])
            self._bins[place] = self._bins.get(place, 0) + sums
            ones = np.ones(int(np.count_nonzero(sets == name)))
            present = [
                _binned(displayed[chosen], evidence.count[chosen], truth[chosen]),
                _binned(none[sets == name], ones, 0.0 * ones),
            ]
            absent = [
                _binned(astray[lost], held_out.count[lost], np.zeros(np.count_nonzero(lost))),
                _binned(without[sets == name], ones, ones),
            ]
            mixed = (1.0 - self._absent) * np.hstack(present) + self._absent * np.hstack(absent)
            self._displayed[place] = self._displayed.get(place, 0) + mixed

    def add_control(self, evidence: Evidence) -> None:
        """Take in some control images, which no exemplar made; exemplars among the evidence are left out."""
        none = self._calibrator.none(hold_out(evidence))
        self._keep({"none_mass_control": none, "none_said_control": (none > SAID).astype(float)}, evidence)

    def _keep(self, values: dict[str, np.ndarray], evidence: Evidence) -> None:
        for name, value in values.items():
            self._values.setdefault(name, []).append((value, evidence.kinds, evidence.sets))

    def metrics(self, **labels: Any) -> list[dict[str, Any]]:
        """Rows of the table `calibration`, means over queries, by kind of set and for all.

        Shares are those given that the sources are among the candidates; from the metrics that begin with
        `mixture` on, "none of these" is an outcome as others.

        negative_log_likelihood     see `forms`; infinite where an exemplar has no influence
        impossible                  share of queries with such an exemplar
        expected_calibration_error  sum over bins of influence of |predicted mass - true mass| / 2 a query:
                                    the share of influence that would have to change bins, 0 to 1
        brier                       sum over candidates of (p - y)^2
        exemplar_mass               influence of the exemplars together
        tail_mass                   influence of all candidates that are neither exemplars nor shown
        mixture_negative_log_likelihood
                                    where the share `absent_share` of queries has its exemplars taken away:
                                    "none of these" is then true
        mixture_expected_calibration_error, mixture_brier
                                    the same two of what is displayed, there
        displayed_excess_at_0.1     mean of what is displayed less that of the truth, there, over the candidates
                                    given 0.1 or more; so for each of LEVELS that any candidate is given
        none_auc                    chance that a query without its exemplars has more mass of "none of these" than
                                    one with them, any two of them; equal masses count one half
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
                    rows.append(self._row(name, kind, values[chosen], sets[chosen], labels))
            rows.append(self._calibration_error("", self._bins, kind, labels))
            rows.append(self._calibration_error("mixture_", self._displayed, kind, labels))
            rows += self._excesses(kind, labels)
            rows.append(self._none_auc(kind, labels))
        return rows

    def reliability(self, **labels: Any) -> list[dict[str, Any]]:
        """Rows of the table `reliability`, all kinds together: shares, and what is displayed."""
        bins = len(EDGES) - 1
        shares = sum(self._bins.values(), np.zeros((3, bins)))
        displayed = sum(self._displayed.values(), np.zeros((3, 2 * bins)))[:, :bins]
        return [*_reliability("shares", shares, labels), *_reliability("displayed", displayed, labels)]

    def _row(
        self, name: str, kind: str, values: np.ndarray, sets: np.ndarray, labels: dict[str, Any]
    ) -> dict[str, Any]:
        names, place = np.unique(sets, return_inverse=True)
        counts = np.bincount(place)
        finite = np.isfinite(values)
        sums = np.bincount(place, weights=np.where(finite, values, 0.0))
        lost = np.bincount(place, weights=~finite)
        draws = self._draws(names.tolist())
        means = np.where(draws @ lost > 0, np.inf, (draws @ sums) / (draws @ counts))
        return self._line(name, kind, float(values.mean()), means, len(values), len(names), labels)

    def _calibration_error(
        self,
        prefix: str,
        sums: dict[tuple[str, str], np.ndarray],
        kind: str,
        labels: dict[str, Any],
    ) -> dict[str, Any]:
        names = sorted(name for of, name in sums if kind in (of, ALL))
        by_set = {name: bins for (_, name), bins in sums.items()}
        bins = np.stack([by_set[name] for name in names])
        queries = bins[:, 2].sum(axis=1)  # the truth of a query sums to 1
        difference = bins[:, 1] - bins[:, 2]
        draws = self._draws(names)
        errors = np.abs(draws @ difference).sum(axis=1) / 2.0 / (draws @ queries)
        value = float(np.abs(difference.sum(axis=0)).sum() / 2.0 / queries.sum())
        name = f"{prefix}expected_calibration_error"
        return self._line(name, kind, value, errors, round(queries.sum()), len(names), labels)

    def _excesses(self, kind: str, labels: dict[str, Any]) -> list[dict[str, Any]]:
        """Of the models alone that have candidates as high as a level, and of resamples that draw one of these."""
        by_set = {name: bins for (of, name), bins in self._displayed.items() if kind in (of, ALL)}
        names, rows = sorted(by_set), []
        draws, sets = self._draws(names), self._all("none_mass")[2]
        for level in LEVELS:
            inside = slice(int(np.searchsorted(EDGES, level)), len(EDGES) - 1)
            counts, stated, true = np.array([by_set[name][:, inside].sum(axis=1) for name in names]).T
            high = counts > 0
            if not high.any():
                continue
            drawn = draws[draws @ counts > 0]
            resampled = (drawn @ (stated - true)) / (drawn @ counts)
            value = float((stated - true).sum() / counts.sum())
            queries = int(np.isin(sets, np.array(names)[high]).sum())
            name = f"displayed_excess_at_{level:g}"
            rows.append(self._line(name, kind, value, resampled, queries, int(high.sum()), labels))
        return rows

    def _none_auc(self, kind: str, labels: dict[str, Any]) -> dict[str, Any]:
        none, kinds, sets = self._all("none_mass")
        without, _, _ = self._all("none_mass_held_out")
        chosen = (kinds == kind) | (kind == ALL)
        names, place = np.unique(sets[chosen], return_inverse=True)
        counts = np.bincount(place)
        pairs = auc.wins(none[chosen], without[chosen], place, len(names))
        value = float(auc.auc(pairs, counts, np.ones((1, len(names))))[0])
        resampled = auc.auc(pairs, counts, self._draws(names.tolist()))
        return self._line("none_auc", kind, value, resampled, len(place), len(names), labels)

    def _all(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A value of all queries, their kinds and their sets."""
        values, kinds, sets = (np.concatenate([part[i] for part in self._values[name]]) for i in range(3))
        return values, kinds, sets

    def _draws(self, names: list[str]) -> np.ndarray:
        """How often each exemplar set is drawn in each resample, (resamples, sets)."""
        generator = hashing.generator(self._seed, "calibration over models", names)
        return generator.multinomial(len(names), np.full(len(names), 1.0 / len(names)), size=self._resamples)

    def _line(
        self,
        name: str,
        kind: str,
        value: float,
        resampled: np.ndarray,
        queries: int,
        models: int,
        labels: dict[str, Any],
    ) -> dict[str, Any]:
        low = high = float("nan")
        if models > 1 and len(resampled):  # no interpolation, since resamples may be infinite
            low = float(np.quantile(resampled, 0.025, method="lower"))
            high = float(np.quantile(resampled, 0.975, method="higher"))
        return {
            **labels, "kind": kind, "metric": name, "value": value, "ci_low": low, "ci_high": high,
            "n_queries": queries, "n_models": models,
        }  # fmt: skip


def tail_mass(evidence: Evidence, share: np.ndarray, shown: int) -> np.ndarray:
    """Influence of the candidates that are not shown, (queries,)."""
    hidden = slice(evidence.exemplars, None)
    mass = (evidence.count * share)[hidden]
    mass[: evidence.top][evidence.places() < shown] = 0.0
    return evidence.total(mass, hidden)


def _squared(share: np.ndarray, evidence: Evidence, truth: np.ndarray | float = 0.0) -> np.ndarray:
    """Sum over the candidates of (p - y)^2, (queries,)."""
    return evidence.total(evidence.count * (share - truth) ** 2)


def _reliability(judged: str, sums: np.ndarray, labels: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table `reliability` from (candidates, influence, truth) x bins."""
    counts, predicted, true = sums
    return [
        {
            **labels,
            "judged": judged,
            "bin_low": float(EDGES[i]),
            "bin_high": float(EDGES[i + 1]),
            "mean_influence": float(predicted[i] / counts[i]) if counts[i] else None,
            "exemplar_share": float(true[i] / counts[i]) if counts[i] else None,
            "n_candidates": round(counts[i]),
        }
        for i in range(len(counts))
    ]


def _binned(share: np.ndarray, count: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Candidates, predicted and true influence in each bin of influence, (3, bins)."""
    place = np.clip(np.searchsorted(EDGES, share, side="right") - 1, 0, len(EDGES) - 2)
    return np.stack(
        [np.bincount(place, weights=w, minlength=len(EDGES) - 1) for w in (count, count * share, truth)]
    )
