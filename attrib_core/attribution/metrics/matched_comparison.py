"""Compare two groups of different models, stratified by category.

Seen and unseen classes of the published benchmark differ in composition: most unseen ones are animals,
which are easier or harder than vehicles whether they were seen or not. So models are compared within
strata (their coarse category), and the strata that have models of both groups are averaged with the same
weights for both groups: n m / (n + m) for n and m models, which gives most weight to the strata where the
comparison is most precise. P-values are of a permutation test within strata; intervals as everywhere, of
`common.intervals`, with one variance of models around the means of their strata and groups for all. Both groups
have prompts of the same lists, whose effects cancel in the difference, so prompts are no source of its variance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from attrib_core.attribution.metrics import permutation_test
from attrib_core.attribution.metrics.query_groups import System
from attrib_core.attribution.metrics.summary import (
    MEDIAN,
    check_range,
    check_resamples,
    interval_columns,
    set_indices,
)
from attrib_core.common import intervals
from attrib_core.common.crossing import Spread
from attrib_core.common.intervals import Interval


class Models(NamedTuple):
    """Models with one value each (the mean over its queries), names and strata, each (models,)."""

    names: np.ndarray
    values: np.ndarray
    strata: np.ndarray


class Difference(NamedTuple):
    """Means of two groups over the strata that both have, with interval and p-value of ours - theirs."""

    ours: float
    theirs: float
    interval: Interval
    p_value: float
    p_error: float
    n_ours: int
    n_theirs: int
    n_strata: int


def matched(
    measured: Sequence[System], *, resamples: int, seed: int, alike: Sequence[Sequence[str]] = ()
) -> Iterator[dict[str, Any]]:
    """Compute the rows of the table `matched`: unseen with seen categories, within strata.

    alike  groups of categories that form one stratum each; any other category is a stratum of its own.
           A category is either seen or unseen, so only groups of several categories can be matched

    Nothing is yielded where no stratum has models of both; median_rank, which is no mean, is left out.
    """
    check_resamples(resamples)
    strata = {name: ", ".join(group) for group in alike for name in group}
    for one in measured:
        if "category" not in one.labels:
            continue
        groups = dict(one.groups())
        for group, members in groups.items():
            seen = groups.get(group._replace(seen="seen"))
            if group.seen != "unseen" or seen is None:
                continue
            labels = group._asdict()
            del labels["seen"]
            for key in one.values:
                if key[0] == MEDIAN:
                    continue
                sides = [model_means(one, key, some, strata) for some in (members, seen)]
                found = matched_difference(*sides, resamples=resamples, seed=seed)
                if found is not None:
                    yield {
                        "encoder": one.encoder, "mapper": one.mapper, **labels, "metric": key[0], "k": key[1],
                        "value": found.ours, "against_value": found.theirs,
                        "difference": found.ours - found.theirs, **interval_columns(found.interval),
                        "p_value": found.p_value, "p_error": found.p_error, "n_models": found.n_ours,
                        "n_against": found.n_theirs, "n_strata": found.n_strata,
                    }  # fmt: skip


def model_means(
    one: System, key: tuple[str, int | None], members: np.ndarray, strata: Mapping[str, str]
) -> Models:
    """Average a metric over the given queries of each model, with the stratum of its category.

    Raises ValueError for a value outside [0, 1].
    """
    check_range(key[0], one.values[key][members])
    sets, names = set_indices(one, members)
    values = np.bincount(sets, weights=one.values[key][members]) / np.bincount(sets)
    first = np.unique(sets, return_index=True)[1]
    categories = one.labels["category"][members][first].tolist()
    return Models(np.array(names), values, np.array([strata.get(name, name) for name in categories]))


def matched_difference(ours: Models, theirs: Models, *, resamples: int, seed: int) -> Difference | None:
    """Compare two groups of models by values within [0, 1]; None where no stratum has models of both.

    `resamples` random assignments of models to groups, where there are too many to try all. No interval where each
    group has one model in each stratum.
    """
    shared = np.intersect1d(ours.strata, theirs.strata)
    if not len(shared):
        return None
    both = (_only(ours, shared), _only(theirs, shared))
    belongs = [(side.strata[:, None] == shared).astype(float) for side in both]
    counts = [one.sum(axis=0) for one in belongs]
    weights = counts[0] * counts[1] / (counts[0] + counts[1])
    share = weights / weights.sum()
    means = [side.values @ one / n for side, one, n in zip(both, belongs, counts, strict=True)]
    rest = [side.values - one @ mean for side, one, mean in zip(both, belongs, means, strict=True)]
    numbers = [len(side.names) for side in both]
    df = sum(numbers) - 2 * len(shared)
    variance = float(sum(one @ one for one in rest)) / df if df > 0 else np.nan
    our_side, their_side = (
        intervals.share_side(float(share @ mean), Spread(variance * float(share**2 @ (1 / n)), df), models)
        for mean, n, models in zip(means, counts, numbers, strict=True)
    )
    together = Spread(our_side.variance + their_side.variance, df)
    interval = intervals.of_difference(our_side, their_side, together)
    p, error = np.nan, np.nan
    if min(numbers) > 1:
        names, values, strata = (np.concatenate(part) for part in zip(*both, strict=True))
        is_ours = np.repeat([True, False], numbers)
        p, error = permutation_test.p_value(values, is_ours, strata, names, times=resamples, seed=seed)
    return Difference(
        our_side.value, their_side.value, interval, p, error, numbers[0], numbers[1], len(shared)
    )  # fmt: skip


def _only(models: Models, shared: np.ndarray) -> Models:
    kept = np.isin(models.strata, shared)
    return Models(*(part[kept] for part in models))
