"""The benchmarks run at a small size, and their methods agree."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attrib_core.attribution.metrics.query_groups import System
from attrib_core.common.errors import InputError
from attrib_core.storage import tables

FOLDER = Path(__file__).parents[2] / "benchmarks"


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / f"{name}.py"), run_name="benchmark")


@pytest.mark.slow
def test_ranking_prints_all_methods_at_all_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--pools", "300", "600", "--dim", "16", "--queries", "9", "--repeats", "1"]
    rows = script("ranking")["main"](options)
    methods = ["published", "ours", "ours, all", "product", "FAISS Flat"]
    assert [(row["pool"], row["method"]) for row in rows] == [
        (pool, m) for pool in (300, 600) for m in methods
    ]
    assert all(row["ms"] > 0 and row["peak_mb"] > 1 and row["fraction"] > 0 for row in rows)
    assert "of the product's speed" in capsys.readouterr().out


def test_every_method_of_the_ranking_benchmark_finds_the_same_ranks(tmp_path: Path) -> None:
    made = script("ranking")
    options = made["_options"](["--queries", "9", "--dim", "16", "--published", "9"])
    made["_generate"](tmp_path, 500, options)
    ranks = {
        name: made["METHODS"][name](tmp_path, options)[0]() for name in ("published", "ours", "ours, all")
    }
    assert list(ranks["published"]) == list(ranks["ours"]) == list(ranks["ours, all"])


def test_index_measures_what_it_builds(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--pools", "900", "--dim", "16", "--queries", "20", "--factories", "Flat", "IVF8,SQ8"]
    rows = script("index")["main"](options)
    assert [row["factory"] for row in rows] == ["Flat", "IVF8,SQ8"]
    assert rows[0]["recall"] == 1.0 and rows[0]["megabytes"] > rows[1]["megabytes"] > 0
    assert "IVF8,SQ8" in capsys.readouterr().out


@pytest.mark.slow
def test_customize_prints_stacked_frozen_and_published(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--sets", "1", "2", "--steps", "2", "--repeats", "1", "--published", "1", "--clock", "cpu"]
    rows = script("customize")["main"](options)
    assert [(row["method"], row["sets"]) for row in rows] == [
        ("stacked", 1), ("frozen", 1), ("stacked", 2), ("frozen", 2), ("published", 1), ("published", 2),
    ]  # fmt: skip
    by_name = {(row["method"], row["sets"]): row for row in rows}
    for row in rows:
        assert row["speed"] == pytest.approx(row["sets"] * 2 / row["train"])
        assert 0 < row["speed_all"] < row["speed"] and row["peak_mb"] > 100
        one = by_name[row["method"], 1]
        assert row["times_one"] == pytest.approx(row["speed"] / one["speed"])
    # one process a set: as many times one's time
    assert by_name["published", 2]["whole"] == pytest.approx(2 * by_name["published", 1]["whole"])
    output = capsys.readouterr().out
    assert "threads: " in output and "cpu time" in output and "times one set's speed at 2 sets" in output


def test_calibration_compares_all_calibrators_with_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--pools", "300", "3000", "--fitted", "1000", "--queries", "80"]
    rows = script("calibration")["main"](options)
    names = ["published", "published, softplus", "published, whole pool", "ours", "best possible"]
    assert [(row["pool"], row["method"]) for row in rows] == [(p, m) for p in (300, 3000) for m in names]
    by_place = {(row["pool"], row["method"]): row for row in rows}
    for pool in (300, 3000):
        ours, best = by_place[pool, "ours"], by_place[pool, "best possible"]
        assert best["mixture"] < ours["mixture"] < by_place[pool, "published"]["mixture"]
        assert (
            ours["none"] > 0.5 > ours["wrong"]
            and best["pairs"] > 0.8 > by_place[pool, "published"]["pairs"] == 0.5
        )
        assert ours["displayed"] < 0.5 <= by_place[pool, "published"]["displayed"]
    assert "| synthetic | 3,000 | ours |" in capsys.readouterr().out


@pytest.mark.slow
def test_embedding_prints_all_methods_whose_features_agree(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--images", "12", "--side", "48", "--size", "32", "--batch", "5", "--at-once", "4"]
    rows = script("embedding")["main"](options)
    assert [row["method"] for row in rows] == ["plain loop", "ours", "ours, threads", "decoding", "network"]
    assert all(row["per_second"] > 0 and row["per_cpu_second"] > 0 and row["peak_mb"] > 1 for row in rows)
    assert "the bottleneck is" in capsys.readouterr().out


def gains(folder: Path, by_split: dict[str, float], k: int = 10) -> Path:
    """A run's table of comparisons, with one encoder and an object mapper."""
    rows = [
        {
            "encoder": "pixel", "comparison": comparison, "mapper": mapper, "condition": "customized",
            "against_mapper": "untuned", "against_condition": "customized", "split": split, "kind": kind,
            "seen": "all", "prompt_kind": prompt_kind, "metric": metric, "k": cut, "value": 0.5, "against_value": 0.5,
            "difference": gain * (1 if metric == "recall_at_k" else 0.5), "ci_low": gain - 0.1, "ci_high": gain + 0.1,
            "df": 6.0, "p_value": 0.5, "p_error": 0.0, "n_queries": 56, "n_models": 7,
        }
        for split, gain in by_split.items()
        for metric, cut in (("recall_at_k", k), ("recall_at_k", 100), ("mean_average_precision", None))
        for comparison, mapper, kind, prompt_kind in (
            ("mapper", "linear-object", "object", "all"), ("mapper", "linear-object", "object", "scene"),
            ("mapper", "linear-object", "style", "all"), ("condition", "untuned", "object", "all"),
        )
    ]  # fmt: skip
    tables.write(folder / "comparisons.parquet", "comparisons", rows)
    return folder


def test_mapper_gains_over_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        gains(tmp_path / name, {"validation": one, "test": two, "train": 0.9})
        for name, one, two in (("demo", 0.3, 0.2), ("seed-1", 0.4, 0.3), ("seed-2", 0.5, 0.1))
    ]
    rows = script("mapper")["main"]([str(run) for run in runs])
    assert [(row["kind"], row["split"], row["metric"]) for row in rows] == [
        ("object", split, metric)
        for split in ("validation", "test")
        for metric in ("recall_at_k", "mean_average_precision")
    ]
    test = rows[2]
    assert test["runs"]["seed-1"] == (0.3, pytest.approx(0.2), pytest.approx(0.4)) and test["above"] == 3
    half = 4.302652729911275 * 0.1 / 3**0.5  # Student's t of 2 degrees of freedom, from a table
    assert (test["mean"], test["low"], test["high"]) == pytest.approx((0.2, 0.2 - half, 0.2 + half))
    alike = script("mapper")["over_runs"]([0.20, 0.21, 0.22], [0.04, 0.05, float("nan")])
    half = 4.302652729911275 * ((0.04**2 + 0.05**2) / 2 / 3) ** 0.5  # not below the errors within runs
    assert alike == pytest.approx((0.21, 0.21 - half, 0.21 + half))
    output = capsys.readouterr().out
    assert "| object | pixel | linear-object | test | Recall@10 | +20.0 [+10.0, +30.0] | +30.0 " in output
    assert "On test the interval over 3 runs is above 0 in 0 of 2 lines, below 0 in 0." in output
    alone = script("mapper")["main"]([str(runs[0])])
    assert alone[0]["mean"] == 0.3 and alone[0]["low"] != alone[0]["low"]  # NaN: one run is no sample


def test_inference_compares_old_and_new_procedures(capsys: pytest.CaptureFixture[str]) -> None:
    rows = script("inference")["main"](["--models", "3", "6", "--samples", "2"])
    cases = list(dict.fromkeys(row["case"] for row in rows))
    assert [(row["case"], row["models"]) for row in rows] == [(case, n) for case in cases for n in (3, 6)]
    for row in rows:
        by_interval = any(
            words in row["case"] for words in ("control at chance", "influence", "none of these")
        )
        assert np.isnan(row["new"]) == (by_interval and row["models"] == 3)
        assert np.isnan(row["new"]) or 0 <= row["new"] <= 1
    again = script("inference")["main"](["--models", "6", "--samples", "2"])
    assert again == [row for row in rows if row["models"] == 6]
    assert "| interval holds: tuned, 0.68 | " in capsys.readouterr().out


def test_populations_have_the_shares_that_they_are_drawn_with() -> None:
    made = script("populations")
    one = made["Population"]((0.3, 0.6), 0.3, 0.1, 0.2, never=0.1, always=0.2)
    drawn = [made["draw"](np.random.default_rng(seed), 40, one, one, 0.5) for seed in range(60)]
    assert one.mean == pytest.approx(0.2 + 0.7 * 0.45)
    for values in (np.stack([some.ours for some in drawn]), np.stack([some.theirs for some in drawn])):
        assert values.mean() == pytest.approx(one.mean, abs=0.015)
        assert (values.mean(axis=2) == 1).mean() == pytest.approx(0.2, abs=0.03)
    assert (drawn[0].ours != drawn[0].theirs).any() and drawn[0].prompts.shape == (40, 16)
    assert [len(np.unique(row)) for row in drawn[0].prompts] == [8] * 40  # four of each list, twice


def test_the_fit_finds_latent_correlations() -> None:
    made = script("populations")
    truth = made["Population"]((0.3, 0.7), 0.3, 0.15, 0.2)
    rng = np.random.default_rng(4)
    drawn = made["draw"](rng, 300, truth, truth, 0.0)
    n, queries = drawn.ours.shape
    labels = {
        "exemplar_set": np.repeat([f"m{i}" for i in range(n)], queries),
        "prompt": drawn.prompts.ravel().astype(str), "prompt_kind": drawn.lists.ravel().astype(str),
    }  # fmt: skip
    one = System(
        "e", "m", labels, *[np.ones(n * queries, int)] * 2, {("recall_at_k", 10): drawn.ours.ravel()}, {}, {}
    )
    found = made["fit_population"](one, np.arange(n * queries), 10)
    assert found.model == pytest.approx(0.3, abs=0.08)
    assert found.both == pytest.approx(0.2, abs=0.08)
    assert 0 <= found.prompt < 0.4 and found.never < 0.05 and found.always < 0.05


def test_runs_without_what_the_mapper_benchmark_reads_are_named(tmp_path: Path) -> None:
    main = script("mapper")["main"]
    with pytest.raises(InputError, match="no comparisons.parquet, expected the folder of a finished run"):
        main([str(tmp_path)])
    run = str(gains(tmp_path / "demo", {"test": 0.1}))
    with pytest.raises(
        InputError, match=r"--k: 7 is not among the cut-offs of .*demo, choose one of '10', '100'"
    ):
        main([run, "--k", "7"])
    with pytest.raises(InputError, match="RESULTS: 'demo' is there twice"):
        main([run, run])


@pytest.mark.slow
def test_store_prints_its_share_of_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--sets", "2", "--steps", "2", "--prompts", "1", "--denoising", "2", "--pool", "30"]
    rows = script("store")["main"]([*options, "--encoders", "pixel", "--clock", "cpu"])
    stages = ["customize", "synthesize", "embed queries, pixel", "embed pool, pixel"]
    assert [(row["turn"], row["stage"]) for row in rows] == [
        (turn, stage) for turn in ("made", "there already") for stage in stages
    ]
    assert all(0 < row["store"] < row["seconds"] for row in rows)
    assert all(row["seconds"] < rows[number]["seconds"] for number, row in enumerate(rows[4:6]))
    assert "| made | synthesize |" in capsys.readouterr().out


@pytest.mark.slow
def test_store_of_embeddings_is_compared_with_the_part_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--rows", "30", "--encoders", "pixel", "--rounds", "1", "--repeats", "1", "--checkouts"]
    rows = script("store_embedding")["main"]([*options, str(FOLDER.parent), str(FOLDER.parent)])
    assert [(row["part"], row["rows"]) for row in rows] == [("pool", 30), ("queries", 30)]
    assert all(min(*row["without"], *row["made"], *row["there already"], *row["start"]) > 0 for row in rows)
    assert "| pool | pixel | 30 |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("most_jobs", ["0", "100"], ids=["made at once", "run"])
def test_scale_runs_the_workflow_with_sleepers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], most_jobs: str
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("encoders: {pixel: {family: pixel}}\nmapper: {trained_on: [both]}\n")
    options = ["--sets", "24", "--config", str(config), "--most-jobs", most_jobs, "--folder", str(tmp_path)]
    (row,) = script("scale")["main"](options)
    assert row["jobs"] == 23 and row["pool"] == 1200
    for name in ("dry", "again", "again_dry"):
        assert row[name].peak_mb > 50
        assert 0 < sum(row[name].ours.values()) < row[name].processor
        assert {"import", "cover", "load_config", "restore_times"} <= row[name].ours.keys()
    assert row["status"].output.startswith("results/scale: 23 of 23 jobs are done")
    assert ("run" in row) == (most_jobs != "0")
    output = capsys.readouterr().out
    assert "24 sets, pool of 1,200: 23 jobs" in output and "load of the machine" in output
    assert ("a job: " in output) == (most_jobs != "0")


@pytest.mark.slow
def test_fuzz_images_counts_every_file(capsys: pytest.CaptureFixture[str]) -> None:
    rows = script("fuzz_images")["main"](["--mutations", "500", "--formats", "PNG", "TIFF", "EPS"])
    assert [row["format"] for row in rows] == ["PNG", "TIFF", "EPS", "all"] and rows[-1]["files"] == 500
    for row in rows:
        assert row["images"] + row["refused"] + row["other"] == row["files"]
        assert row["other"] == row["crash"] == row["programs"] == row["warnings"] == 0
        assert row["peak_mb"] > 30
    assert rows[-1]["images"] > 50 and "peak_mb" in capsys.readouterr().out
