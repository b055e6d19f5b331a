"""`abc evaluate`, `export` and `compare`: bad input gives one line with file and key, and status 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attrib_core.abc_benchmark import test_cases
from attrib_core.cli.main import main
from tests.abc_benchmark.abc_fixtures import SMALL_CASE, AbcCase, evaluate_error, mappers
from tests.files_fixtures import NeedsCode


def tensors(case: AbcCase, kind: str, rows: np.ndarray) -> dict[str, Any]:
    return {"synth_tensors": case.content()["synth_tensors"] | {kind: torch.from_numpy(rows)}}


IMAGE = np.ones((6, 5), np.float32)
TEST_CHANGES: list[tuple[dict[str, Any], list[str]]] = [
    ({"exemplar_chunks": [(0, 1), (1, 4), (4, 7)]}, ["exemplar_chunks[2]", "(4, 7)", "past the end of 6"]),
    ({"exemplar_chunks": [(0, 1), (1, 5), (4, 6)]}, ["exemplar_chunks", "[1]", "(4, 6)", "overlap"]),
    ({"exemplar_chunks": [(0, 1), (4, 4), (4, 6)]}, ["exemplar_chunks[1]", "(4, 4)", "at least one"]),
    ({"exemplar_chunks": [(-1, 1), (1, 4), (4, 6)]}, ["exemplar_chunks[0]", "(-1, 1)"]),
    ({"exemplar_chunks": [(0, 1, 2)]}, ["exemplar_chunks", "(start, end)"]),
    ({"exemplar_chunks": []}, ["exemplar_chunks", "(start, end)"]),
    ({"exemplar_chunks": "all"}, ["exemplar_chunks", "a str"]),
    ({"exemplar_chunks": [(0, 1), (1,)]}, ["exemplar_chunks", "(start, end)"]),
    ({"exemplar_tensors": torch.ones(6)}, ["exemplar_tensors", "a tensor (6,)", "(rows, dim)"]),
    ({"exemplar_tensors": torch.ones(6, 6, dtype=torch.int64)}, ["exemplar_tensors", "int64", "floats"]),
    ({"exemplar_tensors": torch.ones(0, 6)}, ["exemplar_tensors", "no rows"]),
    ({"exemplar_tensors": torch.ones(6, 0)}, ["exemplar_tensors", "at least one dimension"]),
    ({"exemplar_tensors": torch.zeros(6, 6)}, ["exemplar_tensors", "row 0", "only zeros", "--bad-rows last"]),
    ({"exemplar_paths": ["a.png"]}, ["exemplar_paths", "1 entries", "6 rows"]),
    ({"synth_ids": {"gpt": [0] * 6}}, ["synth_ids", "'object'"]),
    ({"synth_ids": {"gpt": [0, 1], "object": [0] * 6}}, ["synth_ids['gpt']", "2 entries", "6 rows"]),
    (
        {"synth_ids": {"gpt": [0, 1, 2, 3, 0, 0], "object": [0] * 6}},
        ["synth_ids['gpt'][3]", "is 3", "from 0 to 2"],
    ),
    ({"synth_ids": {"gpt": [0.5] * 6, "object": [0] * 6}}, ["synth_ids['gpt']", "whole numbers"]),
    ({"synth_ids": {"gpt": None, "object": [0] * 6}}, ["synth_ids['gpt']", "missing"]),
    ({"synth_tensors": {}}, ["synth_tensors", "prompt kind"]),
    ({"synth_tensors": torch.ones(3, 6)}, ["synth_tensors", "a tensor (3, 6)"]),
    (tensors(SMALL_CASE, "gpt", np.ones((0, 6), np.float32)), ["synth_tensors['gpt']", "no rows"]),
    (tensors(SMALL_CASE, "gpt", IMAGE), ["synth_tensors['gpt']", "5 dimensions", "has 6", "one encoder"]),
    (
        tensors(SMALL_CASE, "gpt", np.full((6, 6), np.nan, np.float32)),
        ["synth_tensors['gpt']", "row 0", "NaN"],
    ),
    ({"exemplar_paths": [NeedsCode()] * 6}, ["needs code to unpickle", "print", "refused"]),
]


@pytest.mark.parametrize(("changes", "words"), TEST_CHANGES)
def test_inconsistent_test_features_are_refused(
    changes: dict[str, Any], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = SMALL_CASE.write(tmp_path, **changes)
    line = evaluate_error(paths, capsys)
    assert all(word in line for word in [str(paths["test"]), *words]), line


def test_another_dimension_names_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = SMALL_CASE.write(tmp_path)
    torch.save({"feats": torch.ones(3, 9)}, paths["pool"])
    line = evaluate_error(paths, capsys)
    assert all(word in line for word in [str(paths["pool"]), str(paths["test"]), "6 dimensions", "has 9"])


@pytest.mark.parametrize("kind", ["linear", "channel", "mlp"])
def test_a_mapper_of_another_encoder_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = SMALL_CASE.write(tmp_path)
    _, checkpoint = mappers(kind, 9, tmp_path)
    line = evaluate_error(paths, capsys, "--mapper", str(checkpoint))
    assert all(
        word in line for word in [str(checkpoint), "real_mapper", "9 dimensions", "has 6", "this encoder"]
    ), line


def change_first(entries: list[dict[str, Any]], **changes: Any) -> list[dict[str, Any]]:
    return [entries[0] | changes, *entries[1:]]


def test_a_json_of_other_models_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = SMALL_CASE.write(tmp_path)
    entries = json.loads(paths["cases"].read_text())
    for content, words in [
        (entries[:2], ["2 models", "has 3"]),
        (change_first(entries, exemplar=["other.png"]), ["entry 0", "other.png"]),
        (change_first(entries, exemplar=[]), ["entry 0", "exemplar"]),
        (change_first(entries, synth={"gpt": "x"}), ["entry 0", "synth"]),
        (change_first(entries, category=3), ["entry 0", "category"]),
        ([{}, *entries[1:]], ["entry 0", "exemplar, synth"]),
        ({}, ["a list with an entry"]),
        ([], ["a list of 0"]),
    ]:
        paths["cases"].write_text(json.dumps(content))
        line = evaluate_error(paths, capsys, "--cases", str(paths["cases"]))
        assert all(word in line for word in [str(paths["cases"]), *words]), line
    paths["cases"].write_text("{")
    assert "not a readable JSON file" in evaluate_error(paths, capsys, "--cases", str(paths["cases"]))
    assert "no such JSON file" in evaluate_error(paths, capsys, "--cases", str(tmp_path / "none.json"))


def test_a_wrong_published_category_is_corrected(tmp_path: Path) -> None:
    paths = SMALL_CASE.write(tmp_path)
    entries = change_first(json.loads(paths["cases"].read_text()), category="exemplar")
    paths["cases"].write_text(json.dumps(entries))
    assert test_cases.categories(test_cases.read_test(paths["test"]), paths["cases"]) == [
        "train",
        "bird",
        None,
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--recall-ks", "0"], ["--recall-ks", "0"]),
        (["--cases", "a.json", "b.json"], ["--cases", "2 files", "1 of --test"]),
        (["--test", "x/a.pth", "y/a.pth"], ["--test", "'a'"]),
        (["--out", __file__], ["--out", __file__, "expected a folder"]),
        (["--out", f"{__file__}/x"], ["--out", __file__, "expected a folder"]),
        (["--out", "/proc/none/x"], ["--out", "/proc/none/x cannot be written", "expected a folder"]),
    ],
)
def test_bad_options_are_refused(
    options: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = evaluate_error(SMALL_CASE.write(tmp_path), capsys, *options)
    assert all(word in line for word in words)


def test_a_folder_that_is_no_run_or_evaluation_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / "embeddings" / "pixel").mkdir(parents=True)
    for options, words in [
        (["export", "--run", str(tmp_path), "--encoder", "pixel", "--out", "x"], ["--run", "results/NAME"]),
        (
            ["export", "--run", str(tmp_path / "run"), "--encoder", "pixxel", "--out", "x"],
            ["--encoder", "'pixel'"],
        ),
        (["compare", str(tmp_path / "a"), str(tmp_path / "b")], ["per_query.parquet", "no such file"]),
        (["compare", "a", "b", "--bootstrap", "0"], ["--bootstrap: 0", "at least 1"]),
    ]:
        assert main(["abc", *options]) == 2
        line = capsys.readouterr().err
        assert all(word in line for word in words) and line.count("\n") == 1, line
