"""Compare two evaluations: on the same models, and on different models within categories."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from attrib_core.abc_benchmark import compare
from attrib_core.cli.main import main
from attrib_core.common.errors import InputError
from attrib_core.storage import tables
from tests.abc_benchmark.abc_fixtures import abc_case, mappers, run_evaluate


@pytest.fixture
def evaluated(tmp_path: Path) -> tuple[Path, Path]:
    case = abc_case(1, rows=300, dim=16, sizes=[1, 4, 12, 5, 1, 2])
    paths = case.write(tmp_path)
    _, checkpoint = mappers("linear", 16, tmp_path)
    cases = ["--cases", str(paths["cases"])]
    run_evaluate(paths, tmp_path / "a", *cases)
    run_evaluate(paths, tmp_path / "b", *cases, "--mapper", str(checkpoint), "--recall-ks", "5", "10")
    return tmp_path / "a", tmp_path / "b"


def test_two_evaluations_are_compared_on_the_same_models(
    evaluated: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["abc", "compare", *map(str, evaluated), "--out", str(tmp_path / "c")]) == 0
    output = capsys.readouterr().out
    assert output.startswith(
        f"first: {evaluated[0]}, mapper untuned\nsecond: {evaluated[1]}, mapper {tmp_path / 'linear_tuned.pth'}\n"
    )
    assert "\ntest_case, gpt: 6 models\n" in output and "against" not in output
    rows = tables.read(tmp_path / "c" / "comparisons.parquet", "abc_comparisons").to_pylist()
    assert {(row["metric"], row["k"]) for row in rows} == {
        ("recall_at_k", 5), ("recall_at_k", 10), ("capped_recall_at_k", 5), ("capped_recall_at_k", 10),
        ("success_at_k", 5), ("success_at_k", 10), ("mean_average_precision", None), ("median_rank", None),
    }  # fmt: skip
    named = {(row["mapper"], row["against_mapper"]) for row in rows}
    assert named == {("untuned", str(tmp_path / "linear_tuned.pth"))}
    a, b = (pd.read_parquet(folder / "per_query.parquet") for folder in evaluated)
    for row in rows:
        if row["metric"] == "mean_average_precision":
            mine, other = (
                side[side["prompt_kind"] == row["prompt_kind"]]["average_precision"] for side in (a, b)
            )
            assert row["difference"] == pytest.approx(mine.mean() - other.mean())
            assert row["ci_low"] <= row["difference"] <= row["ci_high"]
    same: list[dict[str, Any]] = list(compare.compare(a, a, resamples=50, seed=1))
    assert all(row["difference"] == 0 and row["p_value"] == 1 for row in same)
    assert {(row["mapper"], row["against_mapper"]) for row in same} == {(None, None)}  # of tables alone


def test_evaluations_with_other_settings_or_exemplars_are_not_compared(
    evaluated: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "ties"
    shutil.copytree(evaluated[1], other)
    metrics_of = pd.read_parquet(other / "metrics.parquet")
    metrics_of.assign(ties="above").to_parquet(other / "metrics.parquet")
    capsys.readouterr()
    assert main(["abc", "compare", str(evaluated[0]), str(other)]) == 2
    assert "counts ties as 'half', the second as 'above'" in capsys.readouterr().err
    a, b = (compare.read(folder) for folder in evaluated)
    wrong = b.assign(n_exemplars=b["n_exemplars"].where(b["model_index"] != 3, 9))
    with pytest.raises(
        InputError, match=r"model 3 of test_case \(gpt\) has 5 exemplars in the first .* 9 in"
    ):
        list(compare.compare(a, wrong, resamples=5, seed=1))


def test_evaluations_are_named_by_their_folders_and_known_mappers(
    evaluated: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    table = pd.read_parquet(evaluated[1] / "per_query.parquet").assign(test="other")
    table.to_parquet(bare / "per_query.parquet")
    capsys.readouterr()
    assert main(["abc", "compare", str(evaluated[0]), str(bare), "--match", "category"]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[:2] == [f"first: {evaluated[0]}, mapper untuned", f"second: {bare}"]
    assert output[2] == "test_case against other, gpt: 4 and 4 models"  # the others have no category


def test_other_models_are_compared_within_categories(evaluated: tuple[Path, Path]) -> None:
    table = compare.read(evaluated[0])
    ours, theirs = table[table["model_index"] < 3], table[table["model_index"] >= 3].assign(test="other")
    rows = list(compare.compare(ours, theirs, match="category", resamples=50, seed=1))
    assert {(row["test"], row["against_test"], row["n_models"]) for row in rows} == {
        ("test_case", "other", 2)
    }
    for match, words in (("model", "in common"), ("category", r"second evaluation \(other\) .* --cases")):
        with pytest.raises(InputError, match=words):
            list(compare.compare(ours, theirs.assign(category=None), match=match, resamples=50, seed=1))


def test_each_query_counts_once_and_is_in_both(
    evaluated: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_parquet(evaluated[1] / "per_query.parquet")
    odd = tmp_path / "odd"
    odd.mkdir()

    def said(changed: pd.DataFrame) -> str:
        changed.to_parquet(odd / "per_query.parquet")
        capsys.readouterr()
        assert main(["abc", "compare", str(evaluated[0]), str(odd)]) == 2
        return capsys.readouterr().err

    assert said(pd.concat([table, table])) == (
        f"error: {odd}/per_query.parquet: 48 of 96 rows are of a query that has another row, the first: query 0 of"
        " 'test_case', 'gpt'; expected each query once\n"
    )
    assert "1 of 49 rows are of a query that has another row, the first: query 7 of" in said(
        pd.concat([table, table.iloc[7:8]])
    )
    half = table[table["query_index"] % 2 == 0]
    assert "queries in the first evaluation and" in said(half)
    of_0 = table[(table["model_index"] == 0) & (table["prompt_kind"] == "gpt")]
    assert said(table.drop(of_0.index[:1])).startswith(
        "error: model 0 of test_case (gpt) has 4 queries in the first evaluation and 3 in the second, of which 3 are"
    )
    # other models are left out, as ever, and the order of rows may differ between models
    table[table["model_index"] != 0].to_parquet(odd / "per_query.parquet")
    assert main(["abc", "compare", str(evaluated[0]), str(odd)]) == 0
    assert "test_case, gpt: 5 models" in capsys.readouterr().out
