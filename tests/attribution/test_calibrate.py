"""The stage calibrate: soft scores and metrics against shares over whole pools, settings and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attrib_core.attribution.calibration import calibrate
from attrib_core.attribution.calibration.calibrators import CALIBRATORS
from attrib_core.common.errors import InputError
from attrib_core.storage import tables
from tests.attribution.calibration_fixtures import (
    WHOLE_POOL,
    Case,
    all_cosines,
    batches,
    calibrated,
    case_of,
    fitted_parameters,
    published_shares,
)
from tests.attribution.ranking_fixtures import ranked, world

Done = tuple[calibrate.Calibrated, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def done_and_rows(case: Case) -> Done:
    return calibrated(case, shown=7)


def test_soft_scores_are_the_top_of_the_full_ranking(case: Case, done_and_rows: Done) -> None:
    done, rows = done_and_rows
    kept = [row for row in case.world.pool_ids if row not in set(case.world.excluded)]
    by_query: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_query.setdefault(row["query_id"], []).append(row)
    test_sets = {row["exemplar_set"] for row in case.exemplars.to_pylist() if row["split"] == "test"}
    assert {query.split("-")[0] for query in by_query} == test_sets
    tails = []
    for query, own_rows in by_query.items():
        own, others = all_cosines(case, query)
        n = len(own)
        names = [f"{query.split('-')[0]}-e{i}" for i in range(n)] + kept
        similarity = np.concatenate([own, others])
        share = published_shares(own, others, *fitted_parameters(done))
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
            if (np.abs(similarity - similarity[place]) < 1e-7).sum() == 1:  # the order of ties is open
                assert row["rank"] == rank[row["candidate_id"]]
        tails.append(1 - sum(row["influence"] for row in own_rows))
    (tail,) = [
        row["value"]
        for row in done.calibration
        if row["metric"] == "tail_mass"
        and (row["split"], row["kind"], row["pool_share"]) == ("test", "all", 1.0)
    ]
    assert tail == pytest.approx(np.mean(tails), abs=1e-9) and tail > 0


def test_an_exemplar_ranks_in_the_middle_of_its_ties(tmp_path: Path) -> None:
    generated = world(2, rows=30, dim=6, set_sizes=[1, 1], queries_each=1)
    # four copies of the exemplar, so it ranks third of five
    generated.pool[:4] = generated.exemplars["s01"][0]
    _, rows = calibrated(case_of(tmp_path, generated))
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


def test_metrics_equal_those_of_shares_over_the_whole_pool(case: Case, done_and_rows: Done) -> None:
    done, _ = done_and_rows
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
                    own, others = all_cosines(case, f"{name}-q{number}")
                    share = published_shares(own, others, *fitted_parameters(done))
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


def test_calibration_does_not_depend_on_the_blocks_of_ranking(
    case: Case, tmp_path: Path, done_and_rows: Done
) -> None:
    again = ranked(
        case.world.write(tmp_path, pool_part=700), top_k=20, pool_block=100, query_block=7, query_group=9
    )
    tables.write(tmp_path / "candidates.parquet", "candidates", again.candidates)
    other = case._replace(ranks=again.ranks, candidates=tmp_path / "candidates.parquet")
    assert str(calibrated(other, shown=7)) == str(done_and_rows)  # NaN: intervals of one model


def test_the_calibrator_says_what_it_was_fitted_on(case: Case, done_and_rows: Done) -> None:
    done, _ = done_and_rows
    pool = len(case.world.pool) - len(case.world.excluded)
    assert done.calibrator["fitted_on"] == {
        "split": "validation", "condition": "customized", "kinds": ["object", "style"],
        "queries": 20, "exemplar_sets": 4, "distractors": pool,
    }  # fmt: skip
    assert 0 <= done.calibrator["forms"][WHOLE_POOL]["uniform_share"] <= 1


def test_controls_are_not_calibrated_on(case: Case) -> None:
    position = case.ranks.column_names.index("condition")
    control = case.ranks.set_column(position, "condition", pa.array(["control"] * len(case.ranks)))
    with pytest.raises(InputError, match="no customized query in the split 'validation'"):
        calibrated(case._replace(ranks=control))


def test_a_calibrator_for_one_kind_equals_that_of_a_run_with_only_this_kind(
    case: Case, done_and_rows: Done
) -> None:
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
    assert str(calibrated(case, shown=7, kinds=("object", "style"))) == str(done_and_rows)
    objects = pa.Table.from_pylist([row | {"kind": "object"} for row in about.values()])
    with pytest.raises(InputError, match=r"no customized query of style sets .* exemplars.splits.validation"):
        calibrated(case._replace(exemplars=objects), kinds=("style",))


def test_soft_scores_and_none_sum_to_at_most_one_and_intervals_contain_values(second_case: Case) -> None:
    done, rows = calibrated(second_case, shown=1500, form="pool_aware")
    by_query: dict[str, list[float]] = {}
    for row in rows:
        by_query.setdefault(row["query_id"], []).append(row["influence"])
        assert 0 < row["none"] < 1
    none = {row["query_id"]: row["none"] for row in rows}
    tail = {query: 1 - none[query] - sum(values) for query, values in by_query.items()}
    assert all(-1e-9 < value < 1 - none[query] for query, value in tail.items())
    found = {
        (r["metric"], r["pool_share"]): r
        for r in done.calibration
        if (r["split"], r["kind"]) == ("test", "all")
    }
    assert found["none_mass", 1.0]["value"] == pytest.approx(np.mean(list(none.values())))
    assert found["none_mass_held_out", 1.0]["value"] > found["none_mass", 1.0]["value"]
    for row in done.calibration:
        if row["n_models"] == 1:  # only one has a candidate above the level
            assert row["metric"].startswith("displayed_excess") and np.isnan(row["ci_low"])
        elif "expected_calibration_error" not in row["metric"]:
            assert row["ci_low"] <= row["value"] <= row["ci_high"]
    smaller, whole = (found["negative_log_likelihood", share]["value"] for share in (0.5, 1.0))
    assert smaller < whole  # fewer distractors, easier


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"forms": ["softmax"]}, "calibration.forms: 'softmax', expected one of pool_aware"),
        ({"forms": []}, "calibration.forms"),
        ({"absent_share": 1.0}, "calibration.absent_share: 1.0"),
        ({"pool_shares": [0.5, 0.5]}, "calibration.pool_shares"),
        ({"pool_shares": [1.5]}, "calibration.pool_shares"),
        ({"shown": -1}, "calibration.shown: -1"),
    ],
)
def test_settings_out_of_range(second_case: Case, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        calibrate.calibrate(
            ranks=second_case.ranks,
            candidates=second_case.candidates,
            exemplars=second_case.exemplars,
            save=print,
            **options,
        )


def test_a_validation_split_without_queries_is_an_error_that_names_the_split(second_case: Case) -> None:
    position = second_case.exemplars.column_names.index("split")
    none = second_case.exemplars.set_column(
        position, "split", pa.array(["test"] * len(second_case.exemplars))
    )
    for form in CALIBRATORS:
        with pytest.raises(InputError, match="no customized query .* 'validation'"):
            calibrated(second_case._replace(exemplars=none), form=form)


def test_a_single_model_gives_a_warning_and_no_interval(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generated = world(4, rows=200, dim=8, set_sizes=[1, 1], queries_each=3)
    done, _ = calibrated(case_of(tmp_path, generated), form="pool_aware")
    assert "a single model, s00" in caplog.text
    assert all(np.isnan(row["ci_low"]) and row["n_models"] == 1 for row in done.calibration)


def test_a_kind_without_validation_sets_has_the_parameters_of_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generated = world(4, rows=200, dim=8, set_sizes=[1, 1, 1, 3], queries_each=3)
    case = case_of(tmp_path, generated)  # objects in both splits, the one style set in the test split
    assert {one for e in batches(case) for one in e.kinds} == {"object"}
    done, scores = calibrated(case, form="pool_aware")
    assert "no style set among those that calibrators were fitted on" in caplog.text
    assert done.calibrator["fitted_on"]["kinds"] == ["object"]
    renamed = case.exemplars.set_column(
        case.exemplars.column_names.index("kind"), "kind", pa.array(["object"] * len(case.exemplars))
    )
    assert calibrated(case._replace(exemplars=renamed), form="pool_aware")[1] == scores
