"""`abc calibrate`, compared with plain float64 sums over the whole pool."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from attrib_core.abc_benchmark import calibrate
from attrib_core.abc_benchmark.feature_files import open_pool
from attrib_core.abc_benchmark.mapper_files import UNTUNED
from attrib_core.abc_benchmark.test_cases import read_test
from attrib_core.attribution.calibration import calibrators
from attrib_core.attribution.calibration.pool_aware import Parameters
from attrib_core.cli import abc_calibrate
from attrib_core.storage import tables
from tests.abc_benchmark.abc_fixtures import KINDS, AbcCase, abc_case, mappers, unit
from tests.abc_benchmark.calibrate_fixtures import DIM, ROWS, SIZES, run_calibrate, write_cases
from tests.attribution.calibration_fixtures import pool_aware_shares, published_shares, single_query_batch


def cosines(case: AbcCase, kind: str, heads: list[Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each query the cosines to its exemplars, and those to the pool."""
    pool, exemplars = unit(case.pool, heads[0]), unit(case.exemplars, heads[0])
    queries = zip(unit(case.queries[kind], heads[1]), case.models[kind], strict=True)
    return [(exemplars[slice(*case.chunks[model])] @ query, pool @ query) for query, model in queries]


@pytest.mark.parametrize("mapper", ["untuned", "linear", "mlp"])
def test_metrics_agree_with_sums_over_the_whole_pool(mapper: str, tmp_path: Path) -> None:
    _, test, files = write_cases(tmp_path)
    heads, checkpoint = mappers(mapper, DIM, tmp_path)
    options = ["--bins", "65536", *(["--mapper", str(checkpoint)] if checkpoint else [])]
    assert run_calibrate(files, tmp_path / "out", *options) == 0
    forms = json.loads((tmp_path / "out" / "calibrator.json").read_text())["forms"]
    rows = tables.read(tmp_path / "out" / "calibration.parquet", "abc_calibration").to_pylist()
    found = {
        (r["prompt_kind"], r["form"], r["metric"]): r
        for r in rows
        if (r["kind"], r["pool_share"]) == ("all", 1.0)
    }
    for kind in KINDS:
        for form, about in forms.items():
            sums: dict[str, list[float]] = {name: [] for name in ("nll", "brier", "mass", "none")}
            for own, others in cosines(test, kind, heads):
                if form == "pool_aware":
                    share, none = pool_aware_shares(
                        own, others, Parameters(**about["parameters"]["style"]), 0.5
                    )
                else:
                    share, none = published_shares(own, others, about["tau"], about["bias"]), 0.0
                truth = np.repeat([1 / len(own), 0], [len(own), len(others)])
                with np.errstate(divide="ignore"):
                    sums["nll"].append(-np.log(share[: len(own)]).mean())
                sums["brier"].append(((share - truth) ** 2).sum())
                sums["mass"].append(share[: len(own)].sum())
                sums["none"].append(none)
            names = ("negative_log_likelihood", "brier", "exemplar_mass", "none_mass")
            for metric, values in zip(names, sums.values(), strict=True):
                row = found[kind, form, metric]
                assert row["value"] == pytest.approx(np.mean(values), rel=2e-3, abs=1e-6)
                assert (row["n_queries"], row["n_models"]) == (3 * len(SIZES), len(SIZES))


def test_the_fit_agrees_with_one_on_plain_cosines(tmp_path: Path) -> None:
    fitted, _, files = write_cases(tmp_path)
    assert run_calibrate(files, tmp_path / "out", "--bins", "65536") == 0
    batches = [
        replace(single_query_batch(own, others, bins=65536), sets=[f"{model}"], kinds=["style"])
        for kind in KINDS
        for (own, others), model in zip(cosines(fitted, kind, [None, None]), fitted.models[kind], strict=True)
    ]
    forms = json.loads((tmp_path / "out" / "calibrator.json").read_text())
    assert forms["fitted_on"]["queries"] == len(batches) and forms["fitted_on"]["distractors"] == ROWS
    assert (forms["encoder"], forms["mapper"]) == ("clip", "untuned")
    for form in calibrators.CALIBRATORS:
        expected = calibrators.fit_calibrator(form, batches, 0.5).description
        mine = forms["forms"][form]
        if form == "pool_aware":
            expected, mine = expected["parameters"]["style"], mine["parameters"]["style"]
            assert mine == pytest.approx(expected, rel=1e-3)
        else:
            assert (mine["tau"], mine["bias"]) == pytest.approx(
                (expected["tau"], expected["bias"]), rel=1e-2, abs=1e-6
            )


def test_ranking_does_not_depend_on_blocks(tmp_path: Path) -> None:
    _, case, files = write_cases(tmp_path)
    pool, test = open_pool(Path(files[1])), read_test(Path(files[5]))

    def ranked(name: str, **options: Any) -> list[calibrate.Ranked]:
        (tmp_path / name).mkdir()
        labels = {"encoder": "e", "mapper": "m"}
        return list(
            calibrate.rank(
                pool, test, ["style"] * len(SIZES), tmp_path / name, mapper=UNTUNED, labels=labels, top_k=7,
                bins=64, **options,
            )
        )  # fmt: skip

    uncut, cut = ranked("uncut"), ranked("cut", query_group=4, pool_block=37)
    for one, other, kind in zip(uncut, cut, KINDS, strict=True):
        assert one.ranks.equals(other.ranks)
        assert pq.read_table(one.candidates).equals(pq.read_table(other.candidates))
        above = [
            int(np.count_nonzero(others > value + 1e-9))
            for own, others in cosines(case, kind, [None, None])
            for value in own
        ]
        assert one.ranks["n_above"].to_pylist() == above


def test_the_pool_is_streamed(tmp_path: Path) -> None:
    """Ranking against a file of 32 MB, read 1 MB at a time, needs little memory in Python and NumPy."""
    case = abc_case(1, rows=1, dim=256, sizes=[1], each=1)
    case.write(tmp_path)
    np.save(tmp_path / "pool.npy", np.random.default_rng(0).standard_normal((32768, 256), np.float32))
    pool, test = open_pool(tmp_path / "pool.npy"), read_test(tmp_path / "test_case.pth")
    options: dict[str, Any] = {"mapper": UNTUNED, "labels": {"encoder": "e", "mapper": "m"}}
    tracemalloc.start()
    list(calibrate.rank(pool, test, ["style"], tmp_path, top_k=9, bins=64, pool_block=1024, **options))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 14 * 2**20


def test_a_published_checkpoint_is_written_and_read_back(tmp_path: Path) -> None:
    _, _, files = write_cases(tmp_path)
    assert run_calibrate(files, tmp_path / "out") == 0
    checkpoint = tmp_path / "out" / "calibrator.pth"
    content = torch.load(checkpoint, weights_only=True)
    assert {key: tuple(value.shape) for key, value in content.items()} == {"inv_tau": (), "bias": ()}
    assert run_calibrate([*files[:2], *files[4:]], tmp_path / "again", "--calibrator", str(checkpoint)) == 0
    values = []
    for name, form in (("out", "published"), ("again", "released")):
        rows = tables.read(tmp_path / name / "calibration.parquet", "abc_calibration").to_pylist()
        values.append([r["value"] for r in rows if r["form"] == form])
    np.testing.assert_allclose(*values, rtol=1e-4)
    assert not (tmp_path / "again" / "calibrator.json").exists()
    torch.save({"inv_tau": torch.tensor([20.0]), "bias": torch.tensor([-50.0])}, tmp_path / "theirs.pth")
    assert run_calibrate(files, tmp_path / "both", "--calibrator", str(tmp_path / "theirs.pth")) == 0
    rows = tables.read(tmp_path / "both" / "calibration.parquet", "abc_calibration").to_pylist()
    assert {r["form"] for r in rows} == {*calibrators.CALIBRATORS, "released"}


def test_a_calibrator_file_gives_the_metrics_of_the_fit_and_takes_another_absent_share(
    tmp_path: Path,
) -> None:
    _, _, files = write_cases(tmp_path)
    assert run_calibrate(files, tmp_path / "out") == 0
    given = [*files[:2], *files[4:], "--calibrator", str(tmp_path / "out" / "calibrator.json")]
    assert run_calibrate(given, tmp_path / "again") == 0
    one, other = (pq.read_table(tmp_path / name / "calibration.parquet") for name in ("out", "again"))
    pd.testing.assert_frame_equal(one.to_pandas(), other.to_pandas())  # NaN where there is no interval
    assert run_calibrate(given, tmp_path / "rare", "--absent-share", "0.01") == 0
    rows = [pq.read_table(tmp_path / name / "calibration.parquet").to_pylist() for name in ("out", "rare")]
    masses = [
        [r["value"] for r in some if (r["form"], r["metric"]) == ("pool_aware", "none_mass")] for some in rows
    ]
    assert all(rare < even for even, rare in zip(*masses, strict=True))


def test_soft_scores_are_the_top_of_the_ranking(tmp_path: Path) -> None:
    _, test, files = write_cases(tmp_path)
    assert (
        run_calibrate(
            files, tmp_path / "out", "--soft-scores", "--top-k", "9", "--forms", "published", "pool_aware"
        )
        == 0
    )
    table = tables.read(tmp_path / "out" / "soft_scores.parquet", "soft_scores")
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        rows.setdefault(row["query_id"], []).append(row)
    assert len(rows) == 2 * 3 * len(SIZES) and {r["encoder"] for r in table.to_pylist()} == {"clip"}
    about = json.loads((tmp_path / "out" / "calibrator.json").read_text())["forms"]["published"]
    for kind in KINDS:
        for number, (own, others) in enumerate(cosines(test, kind, [None, None])):
            found = rows[f"test_x/{kind}/{number}"]
            start = test.chunks[test.models[kind][number]][0]
            names = [*(f"dataset/exemplar/{start + i}.png" for i in range(len(own)))]
            names += [f"laion/{i}.jpg" for i in range(ROWS)]
            order = np.argsort(-np.concatenate([own, others]))
            share = published_shares(own, others, about["tau"], about["bias"])
            best = {names[i]: share[i] for i in order if i < len(own)}
            best |= {names[i]: share[i] for i in [j for j in order if j >= len(own)][:9]}
            assert {row["candidate_id"] for row in found} == set(best)
            for row in found:
                assert row["influence"] == pytest.approx(best[row["candidate_id"]], rel=5e-2, abs=1e-6)
                assert row["is_exemplar"] == row["candidate_id"].startswith("dataset")


def test_queries_to_fit_on_are_sampled_by_model(tmp_path: Path) -> None:
    _, _, files = write_cases(tmp_path)
    assert run_calibrate(files, tmp_path / "out", "--fit-queries", "2", "--forms", "published") == 0
    about = json.loads((tmp_path / "out" / "calibrator.json").read_text())["fitted_on"]
    assert (about["queries"], about["exemplar_sets"]) == (2 * 2 * len(SIZES), len(SIZES))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "calibration.parquet", "calibrator.json", "calibrator.pth", "reliability.parquet",
    ]  # fmt: skip


def test_kinds_come_from_the_json_where_there_is_one(tmp_path: Path) -> None:
    _, _, files = write_cases(tmp_path)
    folder = tmp_path / "clip"
    options = ["--fit-cases", str(folder / "val_x.json"), "--cases", str(folder / "test_x.json")]
    assert run_calibrate(files, tmp_path / "out", *options) == 0
    about = json.loads((tmp_path / "out" / "calibrator.json").read_text())
    assert (
        about["fitted_on"]["kinds"]
        == ["object", "style"]
        == sorted(about["forms"]["pool_aware"]["parameters"])
    )
    rows = tables.read(tmp_path / "out" / "calibration.parquet", "abc_calibration").to_pylist()
    assert {row["kind"] for row in rows} == {"object", "style", "all"}
    bins = tables.read(tmp_path / "out" / "reliability.parquet", "abc_reliability").to_pylist()
    assert {row["judged"] for row in bins} == {"shares", "displayed"}


def test_the_choices_of_the_command_line_are_those_of_the_library() -> None:
    assert abc_calibrate.FORMS == calibrators.CALIBRATORS
    assert abc_calibrate.BAD_ROWS == calibrate.BAD_ROWS
