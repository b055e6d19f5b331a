"""`abc tune`: options and files that do not fit together."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.abc_benchmark.abc_fixtures import abc_case
from tests.abc_benchmark.tune_fixtures import run_tune, tunable_case, write_splits

# --- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--learning-rate", "3"], "--learning-rate: 3.0 is wrong, it should be less than or equal to 1"),
        (
            ["--head", "channel", "--starts", "identity", "within"],
            "--starts: identity, within, but a channel head",
        ),
        (["--learning-rate", "1", "--penalties", "1e38"], "--learning-rate: training diverged"),
        (["--hidden", "1" + "0" * 20], "--hidden: 1" + "0" * 20 + " is wrong, it should be below 2147483648"),
        (["--distractors", "4"], "--distractors: 4 negatives a step.*lower --validation-distractors"),
        (["--seed", "-1"], "--seed: -1, expected at least 0"),
        (
            ["--train-cases", "a.json", "b.json"],
            "--train-cases: 2 files, expected one for each of 1 of --train",
        ),
        (["--out", "x.safetensors"], "--out: x.safetensors, expected a file NAME.pth"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tune(write_splits(tmp_path), tmp_path / "x.pth", *options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and re.search(message, error), error
    assert not list(tmp_path.glob("x.*"))


def one_model(paths: dict[str, Path]) -> None:
    tunable_case(1, 1).write(paths["train"].parent, name="train")


def no_synthesized(paths: dict[str, Path]) -> None:
    content = torch.load(paths["validation"], weights_only=True)
    for kind in content["synth_ids"]:
        content["synth_ids"][kind], content["synth_paths"][kind] = [], []
        content["synth_tensors"][kind] = content["synth_tensors"][kind][:0]
    torch.save(content, paths["validation"])


def other_dimension(paths: dict[str, Path]) -> None:
    abc_case(1, rows=20, dim=9).write(paths["train"].parent, name="validation")
    tunable_case(4, 1).write(paths["train"].parent, name="train")


def the_same_models(paths: dict[str, Path]) -> None:
    tunable_case(14, 1).write(paths["train"].parent, name="validation")


def a_bad_row(paths: dict[str, Path]) -> None:
    content = torch.load(paths["train"], weights_only=True)
    content["exemplar_tensors"][3] = float("nan")
    torch.save(content, paths["train"])


def one_row(paths: dict[str, Path]) -> None:
    torch.save({"feats": torch.ones(1, 12)}, paths["pool"])


def equal_rows(paths: dict[str, Path]) -> None:
    row = torch.rand(12, generator=torch.Generator().manual_seed(1))
    torch.save({"feats": row.repeat(30, 1)}, paths["pool"])


def other_json(paths: dict[str, Path]) -> None:
    paths["train.json"].write_text(paths["test.json"].read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (one_model, "--train: 1 model with synthesized images in .*train.pth; contrastive training needs 2"),
        (
            no_synthesized,
            "validation.pth: synth_tensors.'gpt'.: no rows, expected at least one synthesized image",
        ),
        (
            other_dimension,
            "validation.pth: exemplar_tensors: 9 dimensions, but .* has 12; expected features of one",
        ),
        (the_same_models, "--validation: model validation/0 has the exemplars of train/0 in --train"),
        (a_bad_row, "train.pth: exemplar_tensors: row 3 is zero or not finite"),
        (one_row, "--starts: whitening needs a pool of different vectors, and its 1 sampled ones are equal"),
        (equal_rows, "--starts: .* its 30 sampled ones are equal; expected identity alone, or another pool"),
        (other_json, "train.json: 10 models, but .*train.pth has 14; expected its JSON"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    change: Callable[[dict[str, Path]], None],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = write_splits(tmp_path)
    change(paths)
    assert run_tune(paths, tmp_path / "x.pth", "--train-cases", str(paths["train.json"])) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(message, error), error
    assert not list(tmp_path.glob("x.*"))


def test_a_pool_of_equal_vectors_is_enough_without_whitening(tmp_path: Path) -> None:
    paths = write_splits(tmp_path)
    equal_rows(paths)
    options = ["--starts", "identity", "--epochs", "1", "--penalties", "1"]
    assert run_tune(paths, tmp_path / "x.pth", *options) == 0
    assert torch.load(tmp_path / "x.pth")["real_mapper"]["weight"].isfinite().all()
