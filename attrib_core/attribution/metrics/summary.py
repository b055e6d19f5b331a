"""Summarize a group of queries: the average of each metric with its interval, ceiling and chance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from attrib_core.attribution.metrics import bootstrap, ceiling_and_chance
from attrib_core.attribution.metrics.query_groups import System
from attrib_core.common.errors import InputError

MEDIAN = "median_rank"


def summarize(one: System, members: np.ndarray, *, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield for each metric: metric, k, value, ci_low, ci_high, ceiling, chance, n_queries, n_models.

    `members` are indices of queries. The interval is by bootstrap over the models of the queries; NaN where
    there is only one.
    """
    sets, names = set_indices(one, members)
    draws = bootstrap.resamples(names, resamples, seed)
    for key, values in one.values.items():
        low, high = np.nan, np.nan
        if len(names) > 1:
            low, high = bootstrap.interval(average_resamples(key[0], values[members], sets, draws))
        yield {
            "metric": key[0],
            "k": key[1],
            "value": average(key[0], values[members]),
            "ci_low": low,
            "ci_high": high,
            "ceiling": float(one.ceiling[key][members].mean()),
            "chance": chance(one, key, members),
            "n_queries": len(members),
            "n_models": len(names),
        }


def set_indices(one: System, members: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the index of the exemplar set of each query, and the names of the sets."""
    names, sets = np.unique(one.labels["exemplar_set"][members], return_inverse=True)
    return sets, names.tolist()


def average_resamples(metric: str, values: np.ndarray, sets: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Compute the average of a metric in each resample, (times,)."""
    sample = bootstrap.Sample(values, sets)
    return bootstrap.medians(sample, draws) if metric == MEDIAN else bootstrap.means(sample, draws)


def average(metric: str, values: np.ndarray) -> float:
    """Compute the mean over queries, as published; the median for median_rank."""
    return float(np.median(values) if metric == MEDIAN else values.mean())


def chance(one: System, key: tuple[str, int | None], members: np.ndarray) -> float:
    """Compute the expected value of a random ranking of the same queries."""
    if key[0] == MEDIAN:
        return ceiling_and_chance.median_rank(one.exemplars[members], one.candidates[members])
    return float(one.chance[key][members].mean())


def check_resamples(resamples: int) -> None:
    """Raise InputError for fewer than one resample."""
    if resamples < 1:
        raise InputError(f"metrics.bootstrap: {resamples}, expected at least 1")
