"""Summarize a group of queries: the average of each metric with its interval, ceiling and chance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from attrib_core.attribution.metrics import ceiling_and_chance
from attrib_core.attribution.metrics.query_groups import System
from attrib_core.common import intervals
from attrib_core.common.crossing import Spread
from attrib_core.common.errors import InputError
from attrib_core.common.intervals import NO_SPREAD, Interval, Side

MEDIAN = "median_rank"


def summarize(one: System, members: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield for each metric: metric, k, value, its interval, ceiling, chance, n_queries, n_models.

    `members` are indices of queries. The interval is that of `common.intervals`; NaN where there is only one model.
    """
    crossing = one.crossing(members)
    for key, values in one.values.items():
        own = values[members]
        spread = crossing.spread(terms(key[0], own))
        found = side(key[0], own, spread, crossing.n_models)
        yield {
            "metric": key[0],
            "k": key[1],
            "value": found.value,
            **interval_columns(found.interval(spread.df, None)),
            "ceiling": float(one.ceiling[key][members].mean()),
            "chance": chance(one, key, members),
            "n_queries": len(members),
            "n_models": crossing.n_models,
        }


def interval_columns(interval: Interval) -> dict[str, float]:
    """Return the columns of tables that describe an interval."""
    return {"ci_low": interval.low, "ci_high": interval.high, "df": interval.df}


def terms(metric: str, values: np.ndarray) -> np.ndarray:
    """Compute what each query contributes to the error of the average, (queries,), for `Crossing.spread`.

    Of the median: to the error of the share of queries at or below it.
    """
    counted = (values <= np.median(values)).astype(np.float64) if metric == MEDIAN else values
    contributions: np.ndarray = (counted - counted.mean()) / len(values)
    return contributions


def side(metric: str, values: np.ndarray, spread: Spread, models: int) -> Side:
    """Return the average of a metric, the variance of its `terms`, and its interval.

    Of the median that of Woodruff (1952): the quantiles at the ends of the interval of a share of one half. Raises
    ValueError for a value of another metric outside [0, 1].
    """
    if metric != MEDIAN:
        check_range(metric, values)
        return intervals.share_side(average(metric, values), spread, models)

    def interval(df: float, _: float | None) -> Interval:
        shares = intervals.of_share(0.5, Spread(spread.variance, df), models)
        if np.isnan(shares.low):
            return shares
        low, high = np.quantile(values, shares[:2], method="inverted_cdf")
        return Interval(float(low), float(high), df)

    return Side(average(metric, values), spread.variance, None, interval)


def check_range(metric: str, values: np.ndarray) -> None:
    """Raise ValueError for a value outside [0, 1], which its interval is not for; the median has none to keep."""
    outside = values[(values < -NO_SPREAD) | (values > 1.0 + NO_SPREAD)]
    if metric != MEDIAN and len(outside):
        raise ValueError(
            f"metric {metric!r}: {outside[0]:g} for a query or model, expected values within [0, 1]"
        )


def set_indices(one: System, members: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the index of the exemplar set of each query, and the names of the sets."""
    names, numbers = one.numbered["exemplar_set"]
    present, sets = np.unique(numbers[members], return_inverse=True)
    return sets, names[present].tolist()


def average(metric: str, values: np.ndarray) -> float:
    """Compute the mean over queries, as published; the median for median_rank."""
    return float(np.median(values) if metric == MEDIAN else values.mean())


def chance(one: System, key: tuple[str, int | None], members: np.ndarray) -> float:
    """Compute the expected value of a random ranking of the same queries."""
    if key[0] == MEDIAN:
        return ceiling_and_chance.median_rank(one.exemplars[members], one.candidates[members])
    return float(one.chance[key][members].mean())


def check_resamples(resamples: int) -> None:
    """Raise InputError for fewer than one random draw."""
    if resamples < 1:
        raise InputError(f"metrics.bootstrap: {resamples}, expected at least 1")
