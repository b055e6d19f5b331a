"""Soft influence: sums over histograms against sums over the full pool, the fit against SciPy."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from scipy.optimize import minimize

from attrib_core.attribution.calibration import calibrate
from attrib_core.attribution.calibration.calibrate import Calibrator
from attrib_core.attribution.calibration.similarities import of_candidates
from attrib_core.common.errors import InputError
from attrib_core.storage import tables
from tests.attribution.ranking_fixtures import World, ranked, world

WHOLE = "published_whole_pool"
CALIBRATORS = [Calibrator(0.02, 0.0), Calibrator(0.05, 1e-6), Calibrator(0.1, 1e-3), Calibrator(0.3, 0.02)]


class Case(NamedTuple):
    world: World
    ranks: pa.Table
    candidates: Path
    exemplars: pa.Table


def case_of(
    folder: Path,
    made: World,
    *,
    splits: tuple[str, ...] = ("validation", "test"),
    top_k: int = 20,
    bins: int = 2048,
) -> Case:
    """Ranks and candidates of a world; its sets fall in the splits in turn, those of several are styles."""
    found = ranked(made.write(folder), top_k=top_k, bins=bins)
    tables.write(folder / "candidates.parquet", "candidates", found.candidates)
    exemplars = [
        {
            "exemplar_set": name,
            "kind": "style" if len(vectors) > 1 else "object",
            "split": splits[number % len(splits)],
        }
        for number, (name, vectors) in enumerate(made.exemplars.items())
    ]
    return Case(made, found.ranks, folder / "candidates.parquet", pa.Table.from_pylist(exemplars))


def evidence(case: Case, split: str = "validation") -> list[calibrate.Evidence]:
    return list(calibrate.gather(case.ranks, case.candidates, case.exemplars, split))


def dense(case: Case, query: str) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of one query in float64: its exemplars', and all distractors'."""
    name, number = query.rsplit("-q", 1)
    vector = case.world.queries[name][int(number)].astype(np.float64)
    excluded = set(case.world.excluded)
    kept = [i for i, row in enumerate(case.world.pool_ids) if row not in excluded]
    return case.world.exemplars[name].astype(np.float64) @ vector, case.world.pool[kept].astype(
        np.float64
    ) @ vector


def dense_shares(own: np.ndarray, others: np.ndarray, tau: float, bias: float) -> np.ndarray:
    """The published form, written out over everything."""
    similarity = np.concatenate([own, others])
    weight = np.maximum(np.exp((similarity - similarity.max()) / tau) + bias, 0)
    return weight / weight.sum()


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    made = world(
        0, rows=3000, dim=48, set_sizes=[1, 1, 4, 6, 1, 2, 1, 1], queries_each=5, signal=0.3, duplicates=20
    )
    made.excluded = made.pool_ids[::11]
    return case_of(tmp_path_factory.mktemp("case"), made)


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_likelihood_equals_a_float64_sum_over_the_full_pool(case: Case, calibrator: Calibrator) -> None:
    for one in evidence(case):
        found = calibrate.negative_log_likelihood(one, calibrator)
        for query, value in zip(one.queries, found, strict=True):
            own, others = dense(case, query)
            expected = -np.log(dense_shares(own, others, *calibrator)[: len(own)]).mean()
            assert value == pytest.approx(expected, abs=1e-4)


def test_queries_without_known_exemplars_are_those_whose_exemplars_are_taken_away(case: Case) -> None:
    """To the bit, name by name: `gather` and `hold_out` on one side, the candidates alone on the other."""
    (known,) = evidence(case)
    table = tables.read(case.candidates, "candidates")
    places = {name: number for number, name in enumerate(table["query_id"].to_pylist())}
    chosen = table.take(pa.array([places[name] for name in known.queries]))
    alone, expected = of_candidates(chosen, known.kinds), calibrate.hold_out(known)
    assert alone.sets == [""] * len(known.queries)
    for field in fields(alone):
        one, other = (getattr(side, field.name) for side in (alone, expected))
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype and np.array_equal(one, other), field.name
        elif field.name != "sets":
            assert one == other, field.name


@pytest.mark.parametrize("calibrator", [*CALIBRATORS, Calibrator(0.1, -0.05)])
def test_shares_sum_to_one(case: Case, calibrator: Calibrator) -> None:
    for one in evidence(case):
        np.testing.assert_allclose(one.total(one.count * calibrate.shares(one, calibrator)), 1.0)


def test_a_negative_bias_cuts_off_and_makes_a_missed_exemplar_impossible(case: Case) -> None:
    calibrator = Calibrator(0.05, -0.3)
    (one,) = evidence(case)
    share = calibrate.shares(one, calibrator)
    kept = np.exp(one.gap / 0.05) > 0.3
    assert np.array_equal(share > 0, kept) and 0 < kept.sum() < len(kept)
    lost = one.total(~kept[: one.exemplars], slice(0, one.exemplars)) > 0
    assert lost.any() and np.array_equal(np.isinf(calibrate.negative_log_likelihood(one, calibrator)), lost)


def test_the_fit_is_the_minimum_that_scipy_finds_on_the_full_pool(case: Case) -> None:
    pieces = [
        (own, others)
        for one in evidence(case)
        for own, others in [dense(case, query) for query in one.queries]
    ]

    def loss(x: np.ndarray) -> float:
        shares = [(dense_shares(own, others, *np.exp(x)), len(own)) for own, others in pieces]
        return float(np.mean([-np.log(share[:n]).mean() for share, n in shares]))

    best = min(
        (minimize(loss, start, method="Nelder-Mead") for start in np.log([(0.03, 1e-6), (0.2, 1e-2)])),
        key=lambda result: result.fun,
    )
    fitted = calibrate.fit(evidence(case))
    assert fitted.negative_log_likelihood == pytest.approx(best.fun, abs=1e-4)
    assert fitted.negative_log_likelihood == pytest.approx(loss(np.log(fitted.calibrator)), abs=1e-4)
    assert fitted.calibrator.tau == pytest.approx(np.exp(best.x[0]), rel=0.02)
    assert fitted.negative_log_likelihood < fitted.uniform_negative_log_likelihood


@pytest.mark.parametrize(("tau", "bias"), [(0.05, 1e-3), (0.15, 0.02), (0.03, 1e-4)])
def test_the_fit_finds_the_values_that_the_data_were_drawn_from(tau: float, bias: float) -> None:
    rng = np.random.default_rng(9)
    queries, candidates = 600, 500
    similarity = np.sort(rng.normal(0.2, 0.15, (queries, candidates)))[:, ::-1]
    drawn = np.array([rng.choice(candidates, p=dense_shares(row, row[:0], tau, bias)) for row in similarity])
    own = np.arange(queries), drawn
    others = np.ones(similarity.shape, bool)
    others[own] = False
    everything = np.concatenate([similarity[own], similarity[others]])
    query = np.concatenate([np.arange(queries), np.repeat(np.arange(queries), candidates - 1)])
    drawn_evidence = calibrate.Evidence(
        queries=[f"q{i}" for i in range(queries)],
        kinds=["object"] * queries,
        sets=[f"s{i}" for i in range(queries)],
        query=query,
        similarity=everything,
        gap=everything - similarity[:, 0][query],
        count=np.ones(len(everything)),
        exemplars=queries,
        top=len(everything) - queries,
        ids=[""] * len(everything),
        ahead=drawn,
        siblings=np.zeros(queries, int),
    )
    fitted = calibrate.fit([drawn_evidence])
    true = calibrate.negative_log_likelihood(drawn_evidence, Calibrator(tau, bias)).mean()
    # Twice the gain over the true values is chi-squared with two degrees of freedom: 99 % below 9.21.
    assert 0 <= 2 * queries * (true - fitted.negative_log_likelihood) <= 9.21
    assert fitted.calibrator.tau == pytest.approx(tau, rel=0.2)
    assert np.log10(fitted.calibrator.bias) == pytest.approx(np.log10(bias), abs=0.3)


def test_coarse_bins_cost_little_and_no_top_costs_little(case: Case, tmp_path: Path) -> None:
    few = case_of(tmp_path, case.world, top_k=1)
    for calibrator in CALIBRATORS:
        for fine, coarse in zip(evidence(case), evidence(few), strict=True):
            np.testing.assert_allclose(
                calibrate.negative_log_likelihood(fine, calibrator),
                calibrate.negative_log_likelihood(coarse, calibrator),
                atol=2e-4,
            )


def fitted_on(done: calibrate.Calibrated) -> tuple[float, float]:
    found = done.calibrator["forms"][WHOLE]
    return found["tau"], found["bias"]


def calibrated(
    case: Case, shown: int = 20, kinds: tuple[str, ...] | None = None, form: str = WHOLE
) -> tuple[calibrate.Calibrated, list[dict[str, Any]]]:
    saved: list[pa.Table] = []
    done = calibrate.calibrate(
        ranks=case.ranks,
        candidates=case.candidates,
        exemplars=case.exemplars,
        save=saved.append,
        shown=shown,
        kinds=kinds,
        forms=[form],
        pool_shares=[0.5],
        bootstrap=50,
    )
    return done, pa.concat_tables(saved).to_pylist()


def test_soft_scores_are_the_full_ranking_cut_off(case: Case) -> None:
    done, rows = calibrated(case, shown=7)
    kept = [row for row in case.world.pool_ids if row not in set(case.world.excluded)]
    by_query: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_query.setdefault(row["query_id"], []).append(row)
    test_sets = {row["exemplar_set"] for row in case.exemplars.to_pylist() if row["split"] == "test"}
    assert {query.split("-")[0] for query in by_query} == test_sets
    tails = []
    for query, own_rows in by_query.items():
        own, others = dense(case, query)
        n = len(own)
        names = [f"{query.split('-')[0]}-e{i}" for i in range(n)] + kept
        similarity = np.concatenate([own, others])
        share = dense_shares(own, others, *fitted_on(done))
        assert len(own_rows) == n + 7 and sum(row["is_exemplar"] for row in own_rows) == n
        assert [row["rank"] for row in own_rows] == sorted({row["rank"] for row in own_rows})
        rank = {
            name: place
            for place, name in enumerate(np.array(names)[np.argsort(-similarity)].tolist(), start=1)
        }
        for row in own_rows:
            place = names.index(row["candidate_id"])
            assert row["similarity"] == pytest.approx(similarity[place], abs=1e-6)
            assert row["influence"] == pytest.approx(share[place], rel=1e-3)
            if (np.abs(similarity - similarity[place]) < 1e-7).sum() == 1:  # the place of equal ones is open
                assert row["rank"] == rank[row["candidate_id"]]
        tails.append(1 - sum(row["influence"] for row in own_rows))
    (tail,) = [
        row["value"]
        for row in done.calibration
        if row["metric"] == "tail_mass"
        and (row["split"], row["kind"], row["pool_share"]) == ("test", "all", 1.0)
    ]
    assert tail == pytest.approx(np.mean(tails), abs=1e-9) and tail > 0


def test_an_exemplar_that_ties_stands_in_the_middle(tmp_path: Path) -> None:
    made = world(2, rows=30, dim=6, set_sizes=[1, 1], queries_each=1)
    made.pool[:4] = made.exemplars["s01"][0]  # four copies of the exemplar: it stands third of five
    _, rows = calibrated(case_of(tmp_path, made))
    first = sorted(rows, key=lambda row: row["rank"])[0]["rank"]
    best = [row for row in rows if row["similarity"] == max(r["similarity"] for r in rows)]
    assert [row["is_exemplar"] for row in sorted(best, key=lambda row: row["rank"])] == [
        False,
        False,
        True,
        False,
        False,
    ]
    assert first == 1 and [row["rank"] for row in best] == [1, 2, 3, 4, 5]


def test_metrics_equal_those_of_the_written_out_shares(case: Case) -> None:
    done, _ = calibrated(case, shown=7)
    tables.from_rows(done.calibration, tables.schema("calibration"))
    tables.from_rows(done.reliability, tables.schema("reliability"))
    edges = [0, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    for split in ("validation", "test"):
        for kind in ("object", "style", "all"):
            sets = {
                row["exemplar_set"]
                for row in case.exemplars.to_pylist()
                if row["split"] == split and kind in ("all", row["kind"])
            }
            briers, masses, shares, truths = [], [], [], []
            for name in sets:
                for number in range(5):
                    own, others = dense(case, f"{name}-q{number}")
                    share = dense_shares(own, others, *fitted_on(done))
                    truth = np.repeat([1 / len(own), 0], [len(own), len(others)])
                    briers.append(((share - truth) ** 2).sum())
                    masses.append(share[: len(own)].sum())
                    shares.append(share)
                    truths.append(truth)
            place = np.digitize(np.concatenate(shares), edges[1:-1])
            predicted = np.bincount(place, np.concatenate(shares), 14)
            true = np.bincount(place, np.concatenate(truths), 14)
            expected = {
                "brier": np.mean(briers),
                "exemplar_mass": np.mean(masses),
                "expected_calibration_error": np.abs(predicted - true).sum() / 2 / len(briers),
            }
            found = {
                r["metric"]: r
                for r in done.calibration
                if (r["split"], r["kind"], r["pool_share"]) == (split, kind, 1.0)
            }
            for metric, value in expected.items():
                assert found[metric]["value"] == pytest.approx(
                    value, abs=5e-3 if metric.startswith("exp") else 1e-4
                )
                assert found[metric]["n_queries"] == 5 * len(sets)
        rows = [row for row in done.reliability if (row["split"], row["judged"]) == (split, "shares")]
        assert [row["bin_low"] for row in rows] == pytest.approx(edges[:-1])
        pool = len(case.world.pool) - len(case.world.excluded)
        own_queries = {n: len(v) for n, v in case.world.exemplars.items()}
        sets = {r["exemplar_set"] for r in case.exemplars.to_pylist() if r["split"] == split}
        assert sum(row["n_candidates"] for row in rows) == sum(
            5 * (pool + own_queries[name]) for name in sets
        )
        mass = sum(row["n_candidates"] * (row["mean_influence"] or 0) for row in rows)
        assert (
            mass
            == pytest.approx(5 * len(sets))
            == sum(row["n_candidates"] * (row["exemplar_share"] or 0) for row in rows)
        )


def test_calibration_repeats_whatever_the_blocks_of_ranking(case: Case, tmp_path: Path) -> None:
    again = ranked(
        case.world.write(tmp_path, pool_part=700), top_k=20, pool_block=100, query_block=7, query_group=9
    )
    tables.write(tmp_path / "candidates.parquet", "candidates", again.candidates)
    other = case._replace(ranks=again.ranks, candidates=tmp_path / "candidates.parquet")
    assert str(calibrated(other)) == str(calibrated(case))  # NaN: intervals of one model


def test_the_calibrator_says_what_it_was_fitted_on(case: Case) -> None:
    done, _ = calibrated(case)
    pool = len(case.world.pool) - len(case.world.excluded)
    assert done.calibrator["fitted_on"] == {
        "split": "validation", "condition": "customized", "kinds": ["object", "style"],
        "queries": 20, "exemplar_sets": 4, "distractors": pool,
    }  # fmt: skip
    assert 0 <= done.calibrator["forms"][WHOLE]["uniform_share"] <= 1


def test_controls_are_not_calibrated_on(case: Case) -> None:
    position = case.ranks.column_names.index("condition")
    control = case.ranks.set_column(position, "condition", pa.array(["control"] * len(case.ranks)))
    with pytest.raises(InputError, match="no customized query in the split 'validation'"):
        calibrated(case._replace(ranks=control))


def test_a_calibrator_for_one_kind_is_that_of_a_run_with_this_kind_alone(case: Case) -> None:
    about = {row["exemplar_set"]: row for row in case.exemplars.to_pylist()}
    styles = [name for name, row in about.items() if row["kind"] == "style"]
    assert {about[name]["split"] for name in styles} == {"validation", "test"}
    alone = case._replace(
        ranks=case.ranks.filter(pa.compute.is_in(case.ranks["exemplar_set"], pa.array(styles)))
    )
    done, scores = calibrated(case, kinds=("style",))
    assert str((done, scores)) == str(calibrated(alone))
    assert done.calibrator["fitted_on"]["kinds"] == ["style"]
    assert {row["kind"] for row in done.calibration} == {"style", "all"}
    assert {row["query_id"].split("-")[0] for row in scores} <= set(styles)
    assert str(calibrated(case, kinds=("object", "style"))) == str(calibrated(case))
    objects = pa.Table.from_pylist([row | {"kind": "object"} for row in about.values()])
    with pytest.raises(InputError, match=r"no customized query of style sets .* exemplars.splits.validation"):
        calibrated(case._replace(exemplars=objects), kinds=("style",))


def test_what_does_not_fit_is_named(case: Case, tmp_path: Path) -> None:
    few = tmp_path / "few.parquet"
    whole = tables.read(case.candidates, "candidates")
    tables.write(few, "candidates", whole.slice(3))
    short = tmp_path / "short.parquet"
    ids = pa.array([names[1:] for names in whole.column("candidate_ids").to_pylist()], pa.list_(pa.string()))
    similarities = pa.array(
        [values[1:] for values in whole.column("similarities").to_pylist()], pa.list_(pa.float32())
    )
    cut = whole.set_column(3, "candidate_ids", ids).set_column(4, "similarities", similarities)
    tables.write(short, "candidates", tables.conform(cut, tables.schema("candidates"), "short"))
    cases = [
        (case._replace(candidates=few), ["few.parquet", "'s00-q0'"]),
        (case._replace(candidates=short), ["short.parquet", "'s00-q0'", "were ranked"]),
        (case._replace(exemplars=case.exemplars.slice(1)), ["'s00'", "not in the table"]),
    ]
    for broken, words in cases:
        with pytest.raises(InputError) as error:
            calibrated(broken)
        assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="calibration.shown: -1"):
        calibrated(case, shown=-1)
