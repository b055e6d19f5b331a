"""Evaluate a calibrator: scoring rules and calibration errors with intervals, and mass of "none of these".

The true influence of a query is 1 / n for each of its n exemplars and 0 for all distractors, since the model
was customized on the exemplars; without its exemplars in the pool, and for a control, it is "none of these".
Intervals are those of `common.intervals`, over models and prompts, of what `calibration_errors` computes.

Shares assume that the sources are in the pool, and are evaluated on the queries as they are. The displayed
influence (`soft_scores`) is the share times 1 minus the mass of "none of these". It makes no such assumption,
so it is evaluated on a mixture where the share `absent_share` of queries has its exemplars removed: the
metrics whose names start with `mixture`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attrib_core.attribution.calibration import calibration_errors as errors
from attrib_core.attribution.calibration.calibration_errors import LEVELS, Error
from attrib_core.attribution.calibration.calibrators import Calibrator, displayed_influence
from attrib_core.attribution.calibration.scoring_rules import (
    EDGES,
    brier_score,
    negative_log_likelihood,
    sum_in_bins,
    tail_mass,
)
from attrib_core.attribution.calibration.similarities import CONDITION, SimilarityBatch
from attrib_core.attribution.calibration.subsampling import hold_out_exemplars
from attrib_core.attribution.metrics.query_groups import prompts_of
from attrib_core.attribution.metrics.summary import interval_columns
from attrib_core.common.crossing import Crossing

__all__ = ["LEVELS", "CalibrationMetrics"]

ALL = "all"
CONTROL = "control"
NONE_THRESHOLD = 0.5
"""The answer to a query is "none of these" where that has more than this mass."""
Cell = tuple[str, str, str]
"""Kind of set, exemplar set and prompt; the prompt is empty where it is not known."""


class CalibrationMetrics:
    """Metrics of a calibrator, accumulated over the batches of one split."""

    def __init__(self, calibrator: Calibrator, *, shown: int, absent_share: float) -> None:
        self._calibrator, self._shown, self._absent_share = calibrator, shown, absent_share
        self._values: dict[str, list[tuple[np.ndarray, list[Cell]]]] = {}
        # by cell: (candidates, influence, truth) x bins; of displayed influence also the bins of "none"
        self._bins: dict[Cell, np.ndarray] = {}
        self._displayed: dict[Cell, np.ndarray] = {}

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
        own_cells = _cells(batch, CONDITION)
        self._append(values, own_cells)
        cells = sorted(set(own_cells))
        number = {cell: place for place, cell in enumerate(cells)}
        group = np.array([number[cell] for cell in own_cells], np.int64)
        entries, left, ones = group[batch.query], group[held_out.query], np.ones(len(group))

        def in_bins(
            share: np.ndarray, count: np.ndarray, truth: np.ndarray, groups: np.ndarray
        ) -> np.ndarray:
            return sum_in_bins(share, count, truth, groups, len(cells))

        shares = in_bins(share, batch.count, truth, entries)
        with_exemplars = [
            in_bins(displayed, batch.count, truth, entries),
            in_bins(none, ones, 0.0 * ones, group),
        ]
        without_exemplars = [
            in_bins(displayed_held_out, held_out.count, np.zeros(len(left)), left),
            in_bins(none_held_out, ones, ones, group),
        ]
        mixed = present * np.concatenate(with_exemplars, axis=2) + absent * np.concatenate(
            without_exemplars, axis=2
        )
        for place, cell in enumerate(cells):
            self._bins[cell] = self._bins.get(cell, 0) + shares[place]
            self._displayed[cell] = self._displayed.get(cell, 0) + mixed[place]

    def add_control(self, batch: SimilarityBatch) -> None:
        """Add control images, for which no exemplar is the source; the exemplars of the batch are left out."""
        none = self._calibrator.none_mass(hold_out_exemplars(batch))
        answered = (none > NONE_THRESHOLD).astype(float)
        values = {"none_mass_control": none, "none_said_control": answered}
        self._append(values, _cells(batch, CONTROL))

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
        for kind in sorted({ALL, *(cell[0] for cell in self._bins)}) if self._bins else []:
            for name in sorted(self._values):
                values, cells = self._all(name, kind)
                if len(values):
                    crossing = _crossing(cells)
                    rows.append(_row(name, kind, errors.mean(name, values, crossing), len(values)))
            for prefix, sums in (("", self._bins), ("mixture_", self._displayed)):
                bins, cells = _of_kind(sums, kind)
                error = errors.calibration_error(bins, _crossing(cells))
                name = f"{prefix}expected_calibration_error"
                rows.append(
                    _row(name, kind, error, round(bins[:, 2].sum()))
                )  # the truth of a query sums to 1
            rows += self._excesses(kind)
            present, cells = self._all("none_mass", kind)
            absent, _ = self._all("none_mass_held_out", kind)
            error = errors.area_under_curve(present, absent, _crossing(cells))
            rows.append(_row("none_auc", kind, error, len(cells)))
        return [{**labels, **row} for row in rows]

    def reliability_rows(self, **labels: Any) -> list[dict[str, Any]]:
        """Return the rows of the table `reliability` of shares and displayed influence, all kinds together."""
        bins = len(EDGES) - 1
        shares = sum(self._bins.values(), np.zeros((3, bins)))
        displayed = sum(self._displayed.values(), np.zeros((3, 2 * bins)))[:, :bins]
        rows = [*_reliability("shares", shares), *_reliability("displayed", displayed)]
        return [{**labels, **row} for row in rows]

    def _append(self, values: dict[str, np.ndarray], cells: list[Cell]) -> None:
        for name, value in values.items():
            self._values.setdefault(name, []).append((value, cells))

    def _all(self, name: str, kind: str) -> tuple[np.ndarray, list[Cell]]:
        """Return a value of all queries of a kind, and their cells."""
        values = np.concatenate([part for part, _ in self._values[name]])
        cells = [cell for _, some in self._values[name] for cell in some]
        chosen = [cell[0] == kind or kind == ALL for cell in cells]
        return values[chosen], [cell for cell, keep in zip(cells, chosen, strict=True) if keep]

    def _excesses(self, kind: str) -> list[dict[str, Any]]:
        """Return the excess at each level, over the models with candidates that reach it."""
        bins, cells = _of_kind(self._displayed, kind)
        rows = []
        for level in LEVELS:
            inside = slice(int(np.searchsorted(EDGES, level)), len(EDGES) - 1)
            sums = bins[:, :, inside].sum(axis=2)
            high = {cell[1] for cell, count in zip(cells, sums[:, 0], strict=True) if count > 0}
            kept = [cell[1] in high for cell in cells]
            if high:
                error = errors.excess(sums[kept], _crossing([cell for cell in cells if cell[1] in high]))
                queries = sum(cell[1] in high for cell in self._all("none_mass", kind)[1])
                rows.append(_row(f"displayed_excess_at_{level:g}", kind, error, queries))
        return rows


def _cells(batch: SimilarityBatch, condition: str) -> list[Cell]:
    """Return the cell of each query of a batch."""
    prompts = prompts_of(batch.queries, batch.sets, [condition] * len(batch.queries))
    known = [""] * len(batch.queries) if prompts is None else prompts.tolist()
    return list(zip(batch.kinds, batch.sets, known, strict=True))


def _crossing(cells: list[Cell]) -> Crossing:
    """Return the models and prompts of some cells; prompts of one name but other kinds of sets are different."""
    kinds, sets, prompts = (np.array(column) for column in zip(*cells, strict=True))
    if "" in prompts:
        return Crossing(sets)
    lists = [f"{kind} {prompt.rpartition('-')[0]}" for kind, _, prompt in cells]
    return Crossing(sets, np.char.add(np.char.add(kinds, " "), prompts), np.array(lists))


def _of_kind(sums: dict[Cell, np.ndarray], kind: str) -> tuple[np.ndarray, list[Cell]]:
    """Return the sums of the cells of a kind, (cells, 3, bins), and the cells, sorted."""
    cells = sorted(cell for cell in sums if kind in (cell[0], ALL))
    return np.stack([sums[cell] for cell in cells]), cells


def _row(name: str, kind: str, error: Error, queries: int) -> dict[str, Any]:
    return {
        "kind": kind, "metric": name, "value": error.value, **interval_columns(error.interval),
        "n_queries": queries, "n_models": error.models,
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
