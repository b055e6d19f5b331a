"""Metrics from counts: against scikit-learn, explicit rankings and simulated random ones."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score

from attrib_core.attribution.metrics import bootstrap, ceiling_and_chance, measure, per_query
from attrib_core.attribution.metrics.query_groups import System
from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.storage import tables

KS = [1, 5, 10, 100]


def count(scores: np.ndarray, own: np.ndarray) -> list[dict[str, int]]:
    """Counts as ranking leaves them, for one query's distractors and exemplars."""
    return [
        {
            "n_above": int((scores > s).sum()),
            "n_tied": int((scores == s).sum()),
            "n_siblings_above": int((own > s).sum()),
            "n_siblings_tied": int((own == s).sum()) - 1,
            "n_distractors": len(scores),
        }
        for s in own
    ]


def ranks_of(cases: list[tuple[np.ndarray, np.ndarray]], **labels: Any) -> pa.Table:
    """A table `ranks` of one query for each pair of distractor and exemplar scores."""
    rows = [
        {
            "encoder": "e",
            "mapper": "untuned",
            "query_id": f"q{number:03d}",
            "exemplar_set": f"s{number:03d}",
            "condition": "customized",
            "prompt_kind": "scene",
            "exemplar_id": f"e{i}",
            "similarity": float(own[i]),
            **row,
            **labels,
        }
        for number, (scores, own) in enumerate(cases)
        for i, row in enumerate(count(scores, own))
    ]
    return tables.from_rows(rows, tables.schema("ranks"))


def random_cases(seed: int, *, levels: int | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores, tied often where there are few levels; sets of 1 to 67 exemplars."""
    rng = np.random.default_rng(seed)

    def scores(size: int) -> np.ndarray:
        return rng.random(size) if levels is None else rng.integers(levels, size=size) / levels

    sizes = [1, 1, 2, 5, 12, 67]
    return [(scores(int(rng.integers(1, 400))), scores(n) ** 0.5) for n in sizes for _ in range(5)]


def sorted_out(scores: np.ndarray, own: np.ndarray, ties: str) -> np.ndarray:
    """The full ranking, written out: True where an exemplar stands; tied distractors below or above."""
    everything = np.concatenate([scores, own])
    exemplar = np.arange(len(everything)) >= len(scores)
    return exemplar[np.lexsort((exemplar if ties == "above" else ~exemplar, -everything))]


@pytest.mark.parametrize("levels", [None, 7, 40, 1])
@pytest.mark.parametrize("ties", ["above", "below"])
def test_every_metric_equals_that_of_the_written_out_ranking(levels: int | None, ties: str) -> None:
    cases = random_cases(1, levels=levels)
    found = per_query.per_query(per_query.positions(ranks_of(cases), ties), KS)
    for number, (scores, own) in enumerate(cases):
        hits = sorted_out(scores, own, ties)
        places = np.flatnonzero(hits) + 1
        n = len(own)
        for k in KS:
            assert found["recall_at_k", k][number] == pytest.approx(hits[:k].sum() / n)
            assert found["capped_recall_at_k", k][number] == pytest.approx(hits[:k].sum() / min(k, n))
            assert found["success_at_k", k][number] == hits[:k].any()
        assert found["mean_average_precision", None][number] == pytest.approx(
            np.mean(np.arange(1, n + 1) / places)
        )
        assert found["median_rank", None][number] == places[0]


def test_average_precision_equals_scikit_learn_where_nothing_is_tied() -> None:
    cases = random_cases(2, levels=None)
    found = per_query.per_query(per_query.positions(ranks_of(cases)), KS)["mean_average_precision", None]
    for value, (scores, own) in zip(found, cases, strict=True):
        truth = np.repeat([0, 1], [len(scores), len(own)])
        assert value == pytest.approx(
            average_precision_score(truth, np.concatenate([scores, own])), abs=1e-12
        )


def test_a_tie_counts_as_half() -> None:
    ranking = per_query.positions(ranks_of([(np.array([0.9, 0.5, 0.5, 0.1]), np.array([0.5]))]))
    assert ranking.position.tolist() == [3.0]  # above it one and half of two
    cases = random_cases(3, levels=9)
    best, half, worst = (
        per_query.positions(ranks_of(cases), ties).position for ties in ("below", "half", "above")
    )
    np.testing.assert_allclose(half, (best + worst) / 2)
    assert (worst > best).sum() > 50


def test_positions_follow_the_rows_whatever_their_order() -> None:
    table = ranks_of(random_cases(4, levels=9))
    order = np.random.default_rng(0).permutation(len(table))
    straight, mixed = per_query.positions(table), per_query.positions(table.take(order))
    assert np.array_equal(mixed.position, straight.position[order])
    assert np.array_equal(mixed.queries, straight.queries)


def test_recall_curve_is_the_mean_recall() -> None:
    table = ranks_of(random_cases(5, levels=20))
    curve = per_query.recall_curve(table, KS)
    values = per_query.per_query(per_query.positions(table), KS)
    np.testing.assert_allclose(curve, [values["recall_at_k", k].mean() for k in KS])
    assert per_query.recall_curve(table, [10**6])[0] == pytest.approx(1.0)


@pytest.mark.parametrize(("n", "distractors"), [(1, 1), (1, 40), (3, 6), (12, 200), (67, 33)])
def test_chance_equals_simulated_random_rankings(n: int, distractors: int) -> None:
    generator = hashing.generator("chance", n, distractors)
    cases = [(generator.random(distractors), generator.random(n)) for _ in range(400)]
    values = per_query.per_query(per_query.positions(ranks_of(cases)), KS)
    ns, candidates = np.array([n]), np.array([n + distractors])
    for key, expected in ceiling_and_chance.chances(list(values), ns, candidates).items():
        error = values[key].std() / np.sqrt(len(cases))
        assert abs(values[key].mean() - expected[0]) <= 4 * error + 2e-3, key
    found = np.mean(values["median_rank", None] <= ceiling_and_chance.median_rank(ns, candidates))
    assert found >= 0.5 - 0.08
    assert np.mean(values["median_rank", None] < ceiling_and_chance.median_rank(ns, candidates)) <= 0.5 + 0.08


def test_chance_is_exact_where_every_ranking_can_be_listed() -> None:
    from itertools import combinations

    n, candidates = 3, 7
    places = [np.array(chosen) + 1 for chosen in combinations(range(candidates), n)]
    expected = np.mean([np.mean(np.arange(1, n + 1) / place) for place in places])
    assert ceiling_and_chance.average_precision(np.array([n]), np.array([candidates]))[0] == pytest.approx(
        expected
    )
    none = np.mean([place[0] > 2 for place in places])
    assert ceiling_and_chance.none_within(2, np.array([n]), np.array([candidates]))[0] == pytest.approx(none)


def test_ceilings_are_reached_by_the_perfect_ranking() -> None:
    cases = [(np.zeros(50), np.full(n, 1.0) + np.arange(n)) for n in (1, 4, 12, 67)]
    values = per_query.per_query(per_query.positions(ranks_of(cases)), KS)
    ceilings = ceiling_and_chance.ceilings(list(values), np.array([1, 4, 12, 67]))
    for key, value in values.items():
        np.testing.assert_allclose(value, ceilings[key])
    assert ceilings["recall_at_k", 5][2] == pytest.approx(5 / 12)


def test_the_bootstrap_is_that_of_a_plain_loop_over_models() -> None:
    """Models of one to sixty-seven queries, equal values among them: every resample written out."""
    rng = np.random.default_rng(8)
    sizes = [1, 67, 5, 5, 12, 1]
    sets = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    values = rng.integers(4, size=len(sets)) / 3
    draws = bootstrap.resamples([f"m{i}" for i in range(len(sizes))], 300, 2)
    assert (draws.sum(axis=1) == len(sizes)).all()
    expected = []
    for counts in draws:
        chosen = [
            value
            for model, times in enumerate(counts)
            for _ in range(times)
            for value in values[sets == model]
        ]
        expected.append(sum(chosen) / len(chosen))
    means = bootstrap.means(bootstrap.Sample(values, sets), draws)
    np.testing.assert_allclose(means, expected, atol=1e-13)
    ordered = sorted(expected)
    for found, share in zip(bootstrap.interval(means), (0.025, 0.975), strict=True):
        place = share * (len(ordered) - 1)
        low, part = int(place), place - int(place)
        assert found == pytest.approx(ordered[low] + part * (ordered[low + 1] - ordered[low]), abs=1e-12)
    shifted = means - float(np.median(means)) - 0.01
    below, above = sum(value <= 0 for value in shifted), sum(value >= 0 for value in shifted)
    assert bootstrap.p_value(shifted) == pytest.approx(min(1, 2 * (min(below, above) + 1) / 301))


def test_medians_of_resamples_equal_numpy() -> None:
    rng = np.random.default_rng(8)
    sample = bootstrap.Sample(rng.integers(1, 50, size=60).astype(float), rng.integers(6, size=60))
    draws = bootstrap.resamples(list("abcdef"), 200, 1)
    for draw, median, mean in zip(
        draws, bootstrap.medians(sample, draws), bootstrap.means(sample, draws), strict=True
    ):
        repeated = np.repeat(sample.values, draw[sample.sets])
        assert median == np.median(repeated) and mean == pytest.approx(repeated.mean())


def test_the_interval_covers_the_truth_nineteen_times_in_twenty() -> None:
    """Queries of one model share its ease, so an interval over queries would be far too narrow."""
    covered = 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        values = (rng.random(40)[:, None] + 0.1 * rng.standard_normal((40, 8))).ravel()
        sample = bootstrap.Sample(values, np.repeat(np.arange(40), 8))
        low, high = bootstrap.interval(
            bootstrap.means(sample, bootstrap.resamples([f"{i}" for i in range(40)], 300, trial))
        )
        covered += low <= 0.5 <= high
    assert 0.87 <= covered / 100 <= 1.0


@cache
def world_of_systems(gain: float) -> tuple[list[tuple[str, pa.Table]], pa.Table]:
    """Two mappers and two conditions, of which 'linear' and 'customized' are better by `gain`."""
    exemplars, queries = [], []
    for number in range(12):
        exemplars += [
            {
                "exemplar_set": f"s{number:03d}",
                "kind": "style" if number % 3 == 0 else "object",
                "split": "test" if number % 4 else "validation",
                "seen": number % 12 < 6,
            }
        ] * (2 if number % 3 == 0 else 1)
        for condition in ("customized", "control"):
            for prompt_kind in ("scene", "media"):
                queries += [(number, condition, prompt_kind, sample) for sample in range(3)]
    named = []
    for mapper in ("untuned", "linear"):
        rows = []
        for number, condition, prompt_kind, sample in queries:
            rng = np.random.default_rng([number, condition == "control", prompt_kind == "media", sample])
            lift = gain * ((mapper == "linear") + (condition == "customized"))
            own = rng.random(2 if number % 3 == 0 else 1) + lift
            for i, counts in enumerate(count(rng.random(60), own)):
                rows.append(
                    {
                        "encoder": "e",
                        "mapper": mapper,
                        "query_id": f"s{number:03d}/{condition}/{prompt_kind}/{sample}",
                        "exemplar_set": f"s{number:03d}",
                        "condition": condition,
                        "prompt_kind": prompt_kind,
                        "exemplar_id": f"s{number:03d}.{i}",
                        "similarity": float(own[i]),
                        **counts,
                    }
                )
        named.append((f"{mapper}.parquet", tables.from_rows(rows, tables.schema("ranks"))))
    return named, pa.Table.from_pylist(exemplars)


def measured(gain: float, **options: Any) -> list[System]:
    named, exemplars = world_of_systems(gain)
    return measure.systems(named, exemplars, recall_ks=[5, 10], **options)


def test_rows_average_the_queries_of_their_group() -> None:
    named, exemplars = world_of_systems(0.1)
    found = list(measure.measure(measured(0.1), resamples=50, seed=3))
    tables.from_rows(found, tables.schema("metrics"))
    about = {row["exemplar_set"]: row for row in exemplars.to_pylist()}
    table = named[1][1]
    for row in found:
        if row["mapper"] != "linear" or row["metric"] != "recall_at_k" or row["k"] != 5:
            continue
        hits: dict[str, list[float]] = {}
        for rank in table.to_pylist():
            its = about[rank["exemplar_set"]]
            if (
                rank["condition"] == row["condition"]
                and its["split"] == row["split"]
                and its["kind"] == row["kind"]
                and row["prompt_kind"] in ("all", rank["prompt_kind"])
                and (row["seen"] == "all" or its["seen"] == (row["seen"] == "seen"))
            ):
                position = 1 + rank["n_above"] + rank["n_siblings_above"] + rank["n_tied"] / 2
                hits.setdefault(rank["query_id"], []).append(position <= 5)
        assert row["value"] == pytest.approx(np.mean([np.mean(one) for one in hits.values()]))
        assert row["n_queries"] == len(hits)
        assert row["n_models"] == len({query.split("/")[0] for query in hits})
        assert row["n_models"] == 1 or row["ci_low"] <= row["value"] <= row["ci_high"]
    groups = {
        tuple(row[name] for name in ("mapper", "condition", "split", "kind", "seen", "prompt_kind"))
        for row in found
    }
    assert len(groups) == 2 * 2 * (3 * 3 + 2) * 3  # the one style set of validation is of a seen category
    assert len(found) == len(groups) * 8


def test_measuring_repeats_and_hangs_on_the_seed() -> None:
    first, again, other = (
        list(measure.measure(measured(0.1), resamples=40, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert [row["value"] for row in first] == [row["value"] for row in other]
    assert [row["ci_low"] for row in first] != [row["ci_low"] for row in other]


def test_order_of_rows_does_not_matter() -> None:
    named, exemplars = world_of_systems(0.1)
    shuffled = [(name, table.take(np.random.default_rng(1).permutation(len(table)))) for name, table in named]
    straight, mixed = (
        list(measure.measure(measure.systems(which, exemplars, recall_ks=[5]), resamples=20, seed=1))
        for which in (named, shuffled)
    )
    assert straight == mixed


@pytest.mark.parametrize("gain", [0.3, 0.0])
def test_a_difference_is_found_where_there_is_one(gain: float) -> None:
    rows = list(measure.compare(measured(gain), resamples=300, seed=5))
    tables.from_rows(rows, tables.schema("comparisons"))
    whole = ("test", "object", "all", "all", "mean_average_precision")
    found = {
        row["comparison"]: row
        for row in rows
        if tuple(row[name] for name in ("split", "kind", "seen", "prompt_kind", "metric")) == whole
        and (row["mapper"], row["condition"]) == ("linear", "customized")
    }
    assert (
        found["mapper"]["against_mapper"] == "untuned"
        and found["mapper"]["against_condition"] == "customized"
    )
    assert (
        found["condition"]["against_mapper"] == "linear"
        and found["condition"]["against_condition"] == "control"
    )
    for row in found.values():
        assert row["difference"] == pytest.approx(row["value"] - row["against_value"])
        assert row["n_models"] == 6
    if gain:
        assert all(row["p_value"] < 0.05 and row["ci_low"] > 0 for row in found.values())
    else:  # the same queries rank alike under both mappers
        assert found["mapper"]["difference"] == 0 and found["mapper"]["p_value"] == 1


def test_p_values_of_no_difference_are_spread_evenly() -> None:
    values = []
    for trial in range(200):
        differences = np.random.default_rng(trial).standard_normal(30)
        draws = bootstrap.resamples([f"{i:02d}" for i in range(30)], 300, trial)
        values.append(bootstrap.p_value(bootstrap.means(bootstrap.Sample(differences, np.arange(30)), draws)))
    assert 0.01 <= np.mean(np.array(values) < 0.05) <= 0.12
    assert 0.4 <= np.mean(np.array(values) < 0.5) <= 0.6


def test_one_model_has_no_interval() -> None:
    table = ranks_of([(np.random.default_rng(0).random(9), np.array([0.5]))])
    about = pa.Table.from_pylist([{"exemplar_set": "s000", "kind": "object", "split": "test", "seen": True}])
    rows = list(measure.measure(measure.systems([("x", table)], about, recall_ks=[5]), resamples=10, seed=1))
    assert rows and all(np.isnan(row["ci_low"]) and np.isnan(row["ci_high"]) for row in rows)


def test_what_does_not_fit_is_named() -> None:
    named, exemplars = world_of_systems(0.1)
    table = named[0][1]
    cases: list[tuple[Any, list[str]]] = [
        (lambda: measure.systems(named, exemplars, recall_ks=[0]), ["metrics.recall_ks", "[0]"]),
        (
            lambda: measure.systems(named, exemplars, recall_ks=[5], ties="harf"),
            ["metrics.ties", "'harf'", "'half'"],
        ),
        (lambda: measure.systems(named, exemplars.slice(3), recall_ks=[5]), ["untuned.parquet", "'s000'"]),
        (lambda: measure.systems([("x", table.slice(0, 0))], exemplars, recall_ks=[5]), ["x", "no rows"]),
        (
            lambda: measure.systems(
                [("x", pa.concat_tables([table, named[1][1]]))], exemplars, recall_ks=[5]
            ),
            ["x", "'mapper'", "linear"],
        ),
        (lambda: list(measure.measure(measured(0.1), resamples=0, seed=1)), ["metrics.bootstrap", "0"]),
    ]
    for call, words in cases:
        with pytest.raises(InputError) as error:
            call()
        assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
