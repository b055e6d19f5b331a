"""Variance over models and prompts against plain loops."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from attrib_core.common.crossing import Crossing


def table(seed: int, n_models: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Values with their models, prompts and lists; models have different numbers of rows and of each prompt."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(30, 60)
    models, prompts = rng.integers(n_models, size=rows), rng.integers(7, size=rows)
    values = rng.random(rows) + 0.3 * models + 0.5 * (prompts % 3)
    lists = np.where(prompts < 4, "scene", "media")
    return values, np.char.add("m", models.astype(str)), np.char.add("p", prompts.astype(str)), lists


def by_loops(
    terms: list[float], models: list[str], prompts: list[str], lists: list[str], sides: list[int]
) -> tuple[float, float]:
    """The formulas of the module's docstring, written out."""

    def squares(values: list[float], *groups: list[str]) -> dict[str, float]:
        """Sums of squares by list of the sums of values within groups."""
        sums: dict[tuple[str, ...], float] = defaultdict(float)
        for value, name, *group in zip(values, lists, *groups, strict=True):
            sums[name, *group] += value
        found: dict[str, float] = defaultdict(float)
        for key, one in sums.items():
            found[key[0]] += one**2
        return found

    members, by_model = defaultdict(list), defaultdict(float)
    for term, name, side, model in zip(terms, lists, sides, models, strict=True):
        members[name, side].append(term)
        by_model[model] += term
    within = [
        term - sum(members[name, side]) / len(members[name, side])
        for term, name, side in zip(terms, lists, sides, strict=True)
    ]
    n = len(by_model)
    first = n / (n - 1) * sum(one**2 for one in by_model.values())
    of_prompts, of_pairs = squares(within, prompts), squares(within, models, prompts)
    variance, below = first, first**2 / (n - 1)
    for name in set(lists):
        g = len({prompt for prompt, own in zip(prompts, lists, strict=True) if own == name})
        more = max(0.0, g / (g - 1) * of_prompts[name] - of_pairs[name])
        variance, below = variance + more, below + more**2 / (g - 1)
    return variance, variance**2 / below


@pytest.mark.parametrize("seed", range(6))
def test_the_variance_equals_loops_and_does_not_depend_on_the_order(seed: int) -> None:
    values, models, prompts, lists = table(seed)
    sides = np.random.default_rng(seed).integers(2, size=len(values))
    terms = values - values.mean()
    for groups in (np.zeros(len(values), int), sides):
        expected = by_loops(
            terms.tolist(), models.tolist(), prompts.tolist(), lists.tolist(), groups.tolist()
        )
        assert Crossing(models, prompts, lists).spread(terms, groups) == pytest.approx(expected)
        order = np.random.default_rng(seed + 1).permutation(len(values))
        mixed = Crossing(models[order], prompts[order], lists[order]).spread(terms[order], groups[order])
        assert mixed == pytest.approx(expected)
    numbers = [np.unique(labels, return_inverse=True)[1] for labels in (models, prompts, lists)]
    assert Crossing(*numbers).spread(terms) == Crossing(models, prompts, lists).spread(terms)
    assert Crossing(numbers[0] + 10**9, *numbers[1:]).spread(terms) == Crossing(*numbers).spread(terms)


def test_prompts_that_no_two_models_share_add_next_to_nothing() -> None:
    values, models, _, _ = table(3)
    terms = (values - values.mean()) / len(values)
    alone = Crossing(models).spread(terms)
    assert alone.df == 4
    own = Crossing(models, np.arange(len(models))).spread(terms)
    assert alone.variance <= own.variance <= alone.variance * (1 + 2 / len(models))
    only = Crossing(models, np.where(values > 1, "a", "b"), np.where(values > 1, "x", "y")).spread(terms)
    assert only == alone  # each list has one prompt, so prompts are no sample
    assert np.isnan(Crossing(np.zeros(9, int)).spread(np.ones(9)).variance)


def test_prompts_that_all_models_share_count_where_they_differ() -> None:
    """Half of the prompts always work and half never do, for 40 models alike: models alone have no variance."""
    models, prompts = np.repeat(np.arange(40), 8), np.tile(np.arange(8), 40)
    values = (prompts % 2).astype(float)
    terms = (values - 0.5) / len(values)
    assert Crossing(models).spread(terms).variance == pytest.approx(0.0)
    spread = Crossing(models, prompts).spread(terms)
    assert spread.variance == pytest.approx(0.25 / 7 - 0.25 / 320)  # of the mean of eight prompts
    assert spread.df == pytest.approx(7)
    lists = np.where(prompts % 2, "works", "fails")  # a difference of lists is no variance
    assert Crossing(models, prompts, lists).spread(terms).variance == pytest.approx(0.0)
