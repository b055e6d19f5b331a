"""What is wrong with released files is told in one line, with file and key, and status 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attrib_core.abc_benchmark import feature_files, test_cases
from attrib_core.abc_benchmark.mapper_files import read_mapper
from attrib_core.cli.main import main
from attrib_core.common.errors import InputError
from tests.abc_benchmark.abc_fixtures import AbcCase, abc_case, mappers, run_evaluate


class Evil:
    """Something that runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code was run",))


def failing(paths: dict[str, Path], capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The one line of an evaluation that must fail."""
    out = paths["pool"].parent / "out"
    assert run_evaluate(paths, out, *options) == 2
    shown = capsys.readouterr()
    assert "code was run" not in shown.out and not out.exists()
    lines = [line for line in shown.err.splitlines() if not line.startswith("[abc")]
    assert len(lines) == 1 and lines[0].startswith("error: "), shown.err
    return lines[0]


def tensors(case: AbcCase, kind: str, rows: np.ndarray) -> dict[str, Any]:
    return {"synth_tensors": case.content()["synth_tensors"] | {kind: torch.from_numpy(rows)}}


CASE = abc_case(1, rows=20, dim=6, sizes=[1, 3, 2], each=2)
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
    (tensors(CASE, "gpt", np.ones((0, 6), np.float32)), ["synth_tensors['gpt']", "no rows"]),
    (tensors(CASE, "gpt", IMAGE), ["synth_tensors['gpt']", "5 dimensions", "has 6", "one encoder"]),
    (tensors(CASE, "gpt", np.full((6, 6), np.nan, np.float32)), ["synth_tensors['gpt']", "row 0", "NaN"]),
    ({"exemplar_paths": [Evil()] * 6}, ["needs code to unpickle", "print", "refused"]),
]


@pytest.mark.parametrize(("changes", "words"), TEST_CHANGES)
def test_test_features_that_do_not_fit(
    changes: dict[str, Any], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = CASE.write(tmp_path, **changes)
    line = failing(paths, capsys)
    assert all(word in line for word in [str(paths["test"]), *words]), line


def save_evil(path: Path) -> None:
    torch.save({"feats": torch.ones(3, 6), "paths": [Evil()]}, path)


def save_old_evil(path: Path) -> None:
    torch.save({"feats": torch.ones(3, 6), "paths": [Evil()]}, path, _use_new_zipfile_serialization=False)


def save_cut(path: Path) -> None:
    torch.save({"feats": torch.ones(300, 6)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def one_bad_row(value: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        feats = torch.ones(20, 6)
        feats[17] = 0 if value == 0 else feats[17]
        feats[17, 3] = value
        torch.save({"feats": feats, "paths": [f"{i}.jpg" for i in range(20)]}, path)

    return write


POOLS: list[tuple[Callable[[Path], Any], list[str]]] = [
    (save_evil, ["needs code to unpickle", "print", "refused"]),
    (save_old_evil, ["needs code to unpickle", "print", "refused"]),
    (save_cut, ["not a readable file"]),
    (lambda path: path.write_bytes(b"hello"), ["not a readable file"]),
    (lambda path: path.write_bytes(b""), ["not a readable file"]),
    (lambda path: path.mkdir(), ["no Parquet files in this folder"]),
    (lambda path: None, ["no such file"]),
    (lambda path: torch.save(torch.ones(3, 6), path), ["a tensor (3, 6)", "'feats' and 'paths'"]),
    (lambda path: torch.save({"features": 1}, path), ["'features'", "'feats' and 'paths'"]),
    (
        lambda path: torch.save({"feats": torch.ones(3, 6), "paths": ["a"]}, path),
        ["paths", "1 entries", "3 rows"],
    ),
    (
        lambda path: torch.save({"feats": torch.ones(3, 6), "paths": [1, 2, 3]}, path),
        ["paths", "list of strings"],
    ),
    (lambda path: torch.save({"feats": torch.ones(0, 6), "paths": []}, path), ["feats", "no rows"]),
    (lambda path: torch.save({"feats": [1.0, 2.0]}, path), ["feats", "a list of 2", "(rows, dim)"]),
    (one_bad_row(np.nan), ["feats", "row 17 ('17.jpg')", "NaN", "--bad-rows last"]),
    (one_bad_row(np.inf), ["feats", "row 17 ('17.jpg')", "infinite"]),
    (one_bad_row(0), ["feats", "row 17 ('17.jpg')", "only zeros"]),
]


@pytest.mark.parametrize(("write", "words"), POOLS)
def test_pools_that_cannot_be_read(
    write: Callable[[Path], Any], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = CASE.write(tmp_path) | {"pool": tmp_path / "other" / "pool.pth"}
    paths["pool"].parent.mkdir()
    write(paths["pool"])
    line = failing(paths, capsys)
    assert all(word in line for word in [str(paths["pool"]), *words]), line


def test_pools_of_other_kinds_that_cannot_be_read(tmp_path: Path) -> None:
    whole = tmp_path / "a.npy"
    for saved, words in [
        (np.ones(3), ["(3,)", "(rows, dim)"]),
        (np.ones((3, 2), int), ["int64", "floats"]),
        (np.array([{}]), ["not a readable .npy"]),
        (np.ones((0, 4), np.float32), ["no rows"]),
    ]:
        np.save(whole, saved)
        with pytest.raises(InputError) as error:
            feature_files.open_pool(whole)
        assert all(word in str(error.value) for word in [str(whole), *words]), error.value
    for name, words in [
        ("none.npy", ["no such"]),
        ("none.parquet", ["no such"]),
        ("pool.csv", ["'.csv'", ".pth"]),
    ]:
        with pytest.raises(InputError) as error:
            feature_files.open_pool(tmp_path / name)
        assert all(word in str(error.value) for word in [name, *words])


def test_another_dimension_names_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = CASE.write(tmp_path)
    torch.save({"feats": torch.ones(3, 9)}, paths["pool"])
    line = failing(paths, capsys)
    assert all(word in line for word in [str(paths["pool"]), str(paths["test"]), "6 dimensions", "has 9"])


@pytest.mark.parametrize("kind", ["linear", "channel", "mlp"])
def test_a_mapper_of_another_encoder_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = CASE.write(tmp_path)
    _, checkpoint = mappers(kind, 9, tmp_path)
    line = failing(paths, capsys, "--mapper", str(checkpoint))
    assert all(
        word in line for word in [str(checkpoint), "real_mapper", "9 dimensions", "has 6", "this encoder"]
    ), line


LINEAR = {"weight": torch.ones(6, 6), "bias": torch.ones(6)}
NORM = {
    "1.running_mean": torch.ones(4),
    "1.running_var": torch.ones(4),
    "1.num_batches_tracked": torch.tensor(3),
}
FLAWED: list[tuple[dict[str, Any], list[str]]] = [
    ({"synth_mapper": [1]}, ["synth_mapper", "a list of 1"]),
    ({"synth_mapper": {"weight": torch.ones(6, 6)}}, ["synth_mapper", "['weight']", "linear"]),
    ({"synth_mapper": LINEAR | {"bias": torch.ones(5)}}, ["synth_mapper", "(6, 6)", "(5,)"]),
    ({"synth_mapper": LINEAR | {"bias": [1.0]}}, ["synth_mapper.bias", "a list of 1"]),
    ({"real_mapper": LINEAR | {"bias": torch.full((6,), np.nan)}}, ["real_mapper.bias", "not finite"]),
    ({"synth_mapper": {"weight": torch.ones(5, 6), "bias": torch.ones(5)}}, ["6 to 6", "6 to 5", "the same"]),
    ({"real_mapper": {"0.weight": torch.ones(5, 6)} | NORM}, ["real_mapper.1", "batch norm of 4"]),
    (
        {"real_mapper": {"0.weight": torch.ones(4, 6), "3.weight": torch.ones(2, 5)}},
        ["real_mapper.3.weight", "expected 4"],
    ),
    (
        {"real_mapper": {"0.weight": torch.ones(4, 6), "1.running_mean": torch.ones(4)}},
        ["real_mapper", "running_var", "statistics"],
    ),
    (
        {"real_mapper": {"0.weight": torch.ones(4, 6)} | NORM | {"1.running_var": torch.ones(3)}},
        ["real_mapper.1.running_var", "batch norm of 3", "4 outputs"],
    ),
    (
        {"real_mapper": {"0.weight": torch.ones(4, 6)} | NORM | {"1.running_var": -torch.ones(4)}},
        ["real_mapper.1.running_var", "-1", "at least 0"],
    ),
    (
        {"real_mapper": {"0.weight": torch.ones(4, 6), "0.bias": torch.ones(3)}},
        ["real_mapper.0.bias", "(3,)"],
    ),
    (
        {"real_mapper": {"0.weight": torch.ones(4, 6), "2.gain": torch.ones(4)}},
        ["real_mapper", "['2.gain']", "no linear layer"],
    ),
    ({"synth_mapper": {"weights": torch.ones(2, 3)}}, ["synth_mapper.weights", "(2, 3)", "(1, dim)"]),
    ({"real_mapper": torch.nn.Linear(2, 2)}, ["needs code to unpickle", "Linear"]),
]
CHECKPOINTS = [
    ({"real_mapper": LINEAR}, ["real_mapper and synth_mapper"]),
    *(({"real_mapper": LINEAR, "synth_mapper": LINEAR} | changes, words) for changes, words in FLAWED),
]


@pytest.mark.parametrize(("content", "words"), CHECKPOINTS)
def test_checkpoints_that_are_no_mappers(content: Any, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mapper.pth"
    torch.save(content, path)
    with pytest.raises(InputError) as error:
        read_mapper(path)
    assert all(word in str(error.value) for word in [str(path), *words]), error.value
    assert "\n" not in str(error.value)


def test_of_a_networks_weights_a_message_names_a_few(tmp_path: Path) -> None:
    path = tmp_path / "network.pth"
    torch.save({f"layer{number}.weight": torch.ones(1) for number in range(100)}, path)
    with pytest.raises(InputError, match=r"'layer15.weight'\] and 92 more, expected a dict with real_mapper"):
        read_mapper(path)


def edited(entries: list[dict[str, Any]], **changes: Any) -> list[dict[str, Any]]:
    return [entries[0] | changes, *entries[1:]]


def test_json_of_other_models_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = CASE.write(tmp_path)
    entries = json.loads(paths["cases"].read_text())
    for content, words in [
        (entries[:2], ["2 models", "has 3"]),
        (edited(entries, exemplar=["other.png"]), ["entry 0", "other.png"]),
        (edited(entries, exemplar=[]), ["entry 0", "exemplar"]),
        (edited(entries, synth={"gpt": "x"}), ["entry 0", "synth"]),
        (edited(entries, category=3), ["entry 0", "category"]),
        ([{}, *entries[1:]], ["entry 0", "exemplar, synth"]),
        ({}, ["a list with an entry"]),
        ([], ["a list of 0"]),
    ]:
        paths["cases"].write_text(json.dumps(content))
        line = failing(paths, capsys, "--cases", str(paths["cases"]))
        assert all(word in line for word in [str(paths["cases"]), *words]), line
    paths["cases"].write_text("{")
    assert "not readable as JSON" in failing(paths, capsys, "--cases", str(paths["cases"]))
    assert "no such file" in failing(paths, capsys, "--cases", str(tmp_path / "none.json"))


def test_the_clobbered_category_is_mended(tmp_path: Path) -> None:
    paths = CASE.write(tmp_path)
    entries = edited(json.loads(paths["cases"].read_text()), category="exemplar")
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
        (["--bootstrap", "0"], ["--bootstrap", "0"]),
        (["--cases", "a.json", "b.json"], ["--cases", "2 files", "1 of --test"]),
        (["--test", "x/a.pth", "y/a.pth"], ["--test", "'a'"]),
        (["--out", __file__], ["--out", __file__, "expected a folder"]),
        (["--out", f"{__file__}/x"], ["--out", __file__, "expected a folder"]),
        (["--out", "/proc/none/x"], ["--out", "/proc/none/x cannot be written", "expected a folder"]),
    ],
)
def test_options_that_do_not_fit(
    options: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = failing(CASE.write(tmp_path), capsys, *options)
    assert all(word in line for word in words)


def test_what_is_no_run_or_evaluation_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
