"""Names in AbC files, and of them: any text in UTF-8 is right, other bytes are named before anything is ranked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from attrib_core.abc_benchmark import calibrator_files, feature_files, mapper_files, test_cases
from attrib_core.cli.main import main, parser
from attrib_core.common.errors import InputError
from attrib_core.storage import parquet_files, tables
from tests.abc_benchmark.abc_fixtures import SMALL_CASE, evaluate_error, mappers, run_evaluate

CAFE = os.fsdecode(b"caf\xe9.png")
SAID = r"character 4 is a byte that is not UTF-8 (\xe9)"


def changed(key: str, name: str) -> dict[str, Any]:
    """The test features with one other name: an exemplar's, a synthesized image's, or a prompt kind's."""
    content = SMALL_CASE.content()
    if key == "exemplar_paths":
        return {key: [*content[key][:-1], name]}
    if key == "synth_paths":
        return {key: content[key] | {"object": [*content[key]["object"][:-1], name]}}
    inner = ("synth_paths", "synth_ids", "synth_tensors")
    return {one: {name if kind == "gpt" else kind: v for kind, v in content[one].items()} for one in inner}


@pytest.mark.parametrize(
    ("key", "where"),
    [
        ("exemplar_paths", r"exemplar_paths[5] is 'caf\xe9.png'"),
        ("synth_paths", r"synth_paths['object'][5] is 'caf\xe9.png'"),
        ("kind", r"synth_tensors has the prompt kind 'caf\udce9.png'"),
    ],
)
def test_names_in_test_features(
    key: str, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = SMALL_CASE.write(tmp_path, **changed(key, CAFE))
    assert evaluate_error(paths, capsys).strip() == f"error: {paths['test']}: {where}: {SAID}"
    paths = SMALL_CASE.write(tmp_path, **changed(key, "é\n🐱.png"))
    run_evaluate(paths, tmp_path / "out")
    table = parquet_files.read(tmp_path / "out" / "per_query.parquet")
    kinds = {"é\n🐱.png", "object"} if key == "kind" else {"gpt", "object"}
    assert set(table["prompt_kind"].to_pylist()) == kinds


def test_names_in_a_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = SMALL_CASE.write(tmp_path)
    torch.save({"feats": torch.ones(2, 6), "paths": ["é🐱.png", CAFE]}, paths["pool"])
    assert evaluate_error(paths, capsys).strip() == (
        rf"error: {paths['pool']}: paths[1] is 'caf\xe9.png': {SAID}"
    )


def test_names_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Libraries do not open them, and say that the content is wrong."""
    paths = SMALL_CASE.write(tmp_path)
    out = os.fsdecode(bytes(tmp_path) + b"/o\xe9")
    files = ["--pool", str(paths["pool"]), "--test", str(paths["test"])]
    assert main(["abc", "evaluate", *files, "--out", out]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith(rf"error: --out: {tmp_path}/o\xe9: character ") and "expected a name in UTF-8" in said
    )
    assert not os.path.exists(out)
    _, checkpoint = mappers("linear", 6, tmp_path)
    assert checkpoint is not None
    reads = {
        paths["pool"]: feature_files.open_pool,
        paths["test"]: test_cases.read_test,
        checkpoint: mapper_files.read_mapper,
    }
    for path, read in reads.items():
        read(path.rename(path.with_name("é.pth")))  # type: ignore[operator]
        odd = path.with_name("é.pth").rename(Path(f"{out}.pth"))
        with pytest.raises(InputError, match=r"o\\xe9\.pth: character .* is a byte that is not UTF-8 "):
            read(odd)  # type: ignore[operator]
    with pytest.raises(
        InputError, match=r"--calibrator: .*o\\xe9\.pth: character .* is a byte that is not UTF-8 "
    ):
        calibrator_files.read(odd, 0.5)


def test_a_key_twice_in_a_json_of_test_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = SMALL_CASE.write(tmp_path)
    entries = json.loads(paths["cases"].read_text())
    paths["cases"].write_text(
        json.dumps(entries).replace('"category": ', '"category": "cat", "category": ', 1)
    )
    with pytest.raises(InputError) as caught:
        test_cases.read_descriptions(paths["cases"])
    assert str(caught.value) == f"{paths['cases']}: not a readable JSON file: duplicate key 'category'"


def test_a_folder_of_parts_with_hidden_files_and_names_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    vectors = np.eye(3, dtype=np.float32)
    for name, ids in {"part-0": ["a", "b", "c"], "part-1": ["d", "e", "f"]}.items():
        pq.write_table(tables.embedding_table(ids, vectors), folder / f"{name}.parquet")
    (folder / "._part-0.parquet").write_bytes(b"\0\5\x16\7Mac OS X")
    pool = feature_files.open_pool(folder)
    assert pool.rows == 6 and [name for block in pool.blocks(4) for name in block.names or ()] == [*"abcdef"]
    assert not caplog.messages
    pq.write_table(tables.embedding_table(["a", "e", "e"], vectors), folder / "part-1.parquet")
    assert feature_files.open_pool(folder).rows == 6
    told = "2 of 6 rows have the name of another row; each counts as an image"
    assert caplog.messages == [f"{folder}: image_id: {told}"]
    torch.save({"feats": torch.ones(6, 3), "paths": [*"abcaef"]}, tmp_path / "p.pth")
    assert feature_files.open_pool(tmp_path / "p.pth").rows == 6
    assert caplog.messages[1:] == [f"{tmp_path}/p.pth: paths: {told.replace('2', '1', 1)}"]


@pytest.mark.parametrize(
    ("command", "option"),
    [("evaluate", "--recall-ks"), ("calibrate", "--top-k"), ("calibrate", "--fit-queries")],
)
def test_counts_have_an_upper_bound(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--pool", "p.pth", "--test", "t.pth", "--out", "o"]
    with pytest.raises(SystemExit) as caught:
        main(["abc", command, *files, option, str(1 << 31)])
    assert caught.value.code == 2
    said = f"error: argument {option}: 2147483648, expected a number below 2147483648"
    assert capsys.readouterr().err.splitlines()[-1].endswith(said)
    parsed = parser().parse_args(["abc", command, *files, option, str((1 << 31) - 1)])
    value = getattr(parsed, option.strip("-").replace("-", "_"))
    assert value in ((1 << 31) - 1, [(1 << 31) - 1])
