"""P-values of the permutation test within strata against enumeration in full."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from attrib_core.attribution.metrics import permutation_test

Groups = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def groups(seed: int, sizes: list[tuple[int, int]], *, shift: float = 0.0, round_to: int = 9) -> Groups:
    """Values, membership, strata and names, in a random order; sizes are those of both groups in each stratum."""
    rng = np.random.default_rng(seed)
    ours = np.concatenate([[True] * n + [False] * m for n, m in sizes])
    strata = np.repeat([f"s{i}" for i in range(len(sizes))], [n + m for n, m in sizes])
    values = np.round(rng.random(len(ours)) + shift * ours, round_to)
    order = rng.permutation(len(ours))
    names = np.array([f"m{i:03d}" for i in range(len(ours))])
    return values[order], ours[order], strata[order], names[order]


def weighted_difference(values: np.ndarray, ours: np.ndarray, strata: np.ndarray) -> float:
    total = 0.0
    for name in sorted(set(strata.tolist())):
        own, other = values[(strata == name) & ours], values[(strata == name) & ~ours]
        total += len(own) * len(other) / (len(own) + len(other)) * (own.mean() - other.mean())
    return total


def enumerated(values: np.ndarray, ours: np.ndarray, strata: np.ndarray) -> float:
    places = [np.flatnonzero(strata == name) for name in sorted(set(strata.tolist()))]
    every = [itertools.combinations(place.tolist(), int(ours[place].sum())) for place in places]
    found = []
    for chosen in itertools.product(*every):
        drawn = np.zeros(len(values), bool)
        drawn[[i for some in chosen for i in some]] = True
        found.append(abs(weighted_difference(values, drawn, strata)))
    return float(np.mean(np.array(found) >= abs(weighted_difference(values, ours, strata)) - 1e-9))


@pytest.mark.parametrize("sizes", [[(3, 3)], [(2, 3), (1, 4)], [(1, 1), (2, 2), (3, 1)], [(5, 2)]])
@pytest.mark.parametrize("round_to", [9, 1])
def test_exact_p_values_equal_enumeration(sizes: list[tuple[int, int]], round_to: int) -> None:
    for seed in range(3):
        values, ours, strata, names = groups(seed, sizes, shift=0.3, round_to=round_to)
        found = permutation_test.p_value(values, ours, strata, names, times=5, seed=1)
        assert found == (pytest.approx(enumerated(values, ours, strata)), 0.0)
        turned = permutation_test.p_value(values, ~ours, strata, names, times=5, seed=1)
        assert turned.p_value == pytest.approx(found.p_value)


def test_three_against_three_cannot_be_below_a_tenth() -> None:
    values, ours, strata, names = groups(1, [(3, 3)], shift=5.0)
    assert permutation_test.p_value(values, ours, strata, names, times=5, seed=1).p_value == 0.1
    same = permutation_test.p_value(np.full(6, 0.3), ours, strata, names, times=5, seed=1)
    assert same.p_value == 1.0


def test_random_assignments_approximate_all_and_depend_on_seed_and_names_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values, ours, strata, names = groups(4, [(4, 5), (3, 4)], shift=0.25)
    exact = permutation_test.p_value(values, ours, strata, names, times=1, seed=1).p_value
    monkeypatch.setattr(permutation_test, "EXACT", 100)
    found = [
        permutation_test.p_value(values, ours, strata, names, times=20_000, seed=seed) for seed in (1, 1, 2)
    ]
    assert found[0] == found[1] != found[2]
    assert found[0].p_value == pytest.approx(exact, abs=4 * found[0].error) and 0 < found[0].error < 0.01
    order = np.random.default_rng(0).permutation(len(values))
    mixed = [part[order] for part in (values, ours, strata, names)]
    assert permutation_test.p_value(*mixed, times=20_000, seed=1) == found[0]
    far = values + 100.0 * ours
    assert permutation_test.p_value(far, ours, strata, names, times=50, seed=1).p_value == 1 / 51


def test_the_level_is_kept_for_four_against_five_models_in_two_strata() -> None:
    below = []
    for seed in range(600):
        some = groups(seed, [(2, 3), (2, 2)])
        below.append(permutation_test.p_value(*some, times=5, seed=1).p_value <= 0.05)
    assert 0.01 < np.mean(below) <= 0.077  # three standard errors above 0.05
