"""Compare two groups of different models, stratified by category.

Seen and unseen classes of the published benchmark differ in composition: most unseen ones are animals,
which are easier or harder than vehicles whether they were seen or not. So models are compared within
strata (their coarse category), and the strata that have models of both groups are averaged with the same
weights for both groups: n m / (n + m) for n and m models, which gives most weight to the strata where the
comparison is most precise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from attrib_core.attribution.metrics import bootstrap
from attrib_core.attribution.metrics.query_groups import System
from attrib_core.attribution.metrics.summary import MEDIAN, check_resamples, set_indices


class Models(NamedTuple):
    """Models with one value each (the mean over its queries), names and strata, each (models,)."""

    names: np.ndarray
    values: np.ndarray
    strata: np.ndarray


class Difference(NamedTuple):
    """Means of two groups over the strata that both have, with interval and p-value of ours - theirs."""

    ours: float
    theirs: float
    ci_low: float
    ci_high: float
    p_value: float
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
                        "difference": found.ours - found.theirs, "ci_low": found.ci_low,
                        "ci_high": found.ci_high, "p_value": found.p_value, "n_models": found.n_ours,
                        "n_against": found.n_theirs, "n_strata": found.n_strata,
                    }  # fmt: skip


def model_means(
    one: System, key: tuple[str, int | None], members: np.ndarray, strata: Mapping[str, str]
) -> Models:
    """Average a metric over the given queries of each model, with the stratum of its category."""
    sets, names = set_indices(one, members)
    values = np.bincount(sets, weights=one.values[key][members]) / np.bincount(sets)
    first = np.unique(sets, return_index=True)[1]
    categories = one.labels["category"][members][first].tolist()
    return Models(np.array(names), values, np.array([strata.get(name, name) for name in categories]))


def matched_difference(ours: Models, theirs: Models, *, resamples: int, seed: int) -> Difference | None:
    """Compare two groups of models; None where no stratum has models of both.

    A resample draws models of each group with replacement; a stratum without models of either group is left
    out of that resample, and the others keep their weights.
    """
    shared = np.intersect1d(ours.strata, theirs.strata)
    if not len(shared):
        return None
    ours, theirs = _only(ours, shared), _only(theirs, shared)
    belongs = [(side.strata[:, None] == shared).astype(float) for side in (ours, theirs)]
    n, m = (one.sum(axis=0) for one in belongs)
    weights = n * m / (n + m)
    sides = zip((ours, theirs), belongs, (", ours", ", theirs"), strict=True)
    means, counts = [], []
    for side, one, name in sides:
        drawn = bootstrap.resamples(side.names.tolist(), resamples, seed, salt=name)
        draws = np.concatenate([np.ones((1, len(side.names))), drawn])
        counts.append(draws @ one)
        means.append((draws * side.values) @ one / np.maximum(counts[-1], 1))
    share = weights * (counts[0] > 0) * (counts[1] > 0)
    total = share.sum(axis=1)
    a, b = ((share * mean).sum(axis=1) / np.where(total > 0, total, np.nan) for mean in means)
    low, high, p = np.nan, np.nan, np.nan
    differences = (a - b)[1:][total[1:] > 0]
    if len(ours.names) > 1 and len(theirs.names) > 1 and len(differences):
        (low, high), p = bootstrap.interval(differences), bootstrap.p_value(differences)
    return Difference(float(a[0]), float(b[0]), low, high, p, len(ours.names), len(theirs.names), len(shared))


def _only(models: Models, shared: np.ndarray) -> Models:
    kept = np.isin(models.strata, shared)
    return Models(*(part[kept] for part in models))
