"""`abc tune`: from released features to a checkpoint that `abc evaluate`, and torch's own classes, read."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from attrib_core.abc_benchmark import export_run, feature_files, mapper_export, tuning_data
from attrib_core.abc_benchmark.mapper_files import read_mapper
from attrib_core.cli import abc_tune
from attrib_core.cli.main import main, parser
from attrib_core.config.schema import Mapper
from attrib_core.features.heads import heads
from attrib_core.storage import tables, torch_files
from tests.abc_benchmark.abc_fixtures import AbcCase, Channel, abc_case
from tests.features.mapper_fixtures import DIM, made_up, material, tuned

ALL = [(head, shared) for head in ("linear", "mlp", "channel") for shared in (False, True)]
FAST = [("linear", False), ("mlp", True)]
every_head = pytest.mark.parametrize(("head", "shared"), ALL)
QUICK = ["--epochs", "12", "--learning-rate", "0.02", "--rank", "12", "--batch-sets", "6", "--hidden", "16"]
LOUD = 4
"""Directions that say nothing of a model and drown what does."""


def features(count: int, seed: int, *, loud: float = 4.0) -> AbcCase:
    """Models whose synthesized images are their exemplars, blurred; tuning must turn the loud directions down."""
    sets, random = made_up(count, seed=seed, bend=0.0), np.random.default_rng(seed + 1000)

    def spoilt(rows: np.ndarray) -> np.ndarray:
        return (rows + loud * random.normal(size=rows.shape) * (np.arange(DIM) < LOUD)).astype(np.float32)

    kinds = {
        kind: np.flatnonzero(np.arange(len(sets.synth)) % 2 == n) for n, kind in enumerate(("gpt", "media"))
    }
    return AbcCase(
        spoilt(np.random.default_rng(7).normal(size=(200, DIM))),
        spoilt(sets.real),
        np.bincount(sets.real_set).tolist(),
        {kind: spoilt(sets.synth[rows]) for kind, rows in kinds.items()},
        {kind: sets.synth_set[rows].tolist() for kind, rows in kinds.items()},
    )


def written(folder: Path, *, loud: float = 4.0) -> dict[str, Path]:
    """The pool and the features of three splits."""
    found: dict[str, Path] = {}
    for name, (count, seed) in {"train": (14, 1), "validation": (8, 2), "test": (10, 3)}.items():
        paths = features(count, seed, loud=loud).write(folder, name=name)
        found |= {name: paths["test"], f"{name}.json": paths["cases"], "pool": paths["pool"]}
    return found


def run(paths: dict[str, Path], out: Path, *options: str) -> int:
    files = ["--pool", str(paths["pool"]), "--out", str(out)]
    splits = [f"--{split}={paths[split]}" for split in ("train", "validation")]
    return main(["abc", "tune", *files, *splits, *QUICK, *options])


def means(paths: dict[str, Path], split: str, mapper: Path | None, out: Path) -> float:
    """Mean average precision by `abc evaluate`, over prompt kinds."""
    options = ["--mapper", str(mapper)] if mapper else []
    files = ["--pool", str(paths["pool"]), "--test", str(paths[split])]
    assert main(["abc", "evaluate", *files, *options, "--bootstrap", "2", "--out", str(out)]) == 0
    rows = pq.read_table(out / "metrics.parquet").to_pylist()
    values = [
        row["value"] for row in rows if row["metric"] == "mean_average_precision" and row["group_by"] == "all"
    ]
    assert len(values) == 2
    return float(np.mean(values))


@pytest.mark.parametrize(
    ("head", "shared"),
    [pytest.param(*one, marks=() if one in FAST else pytest.mark.slow) for one in ALL],
)
def test_a_tuned_mapper_evaluates_to_what_was_chosen_and_gains(
    head: str, shared: bool, tmp_path: Path
) -> None:
    paths, out = written(tmp_path), tmp_path / "weights" / "x_tuned.pth"
    form = ["--head", head, "--shared" if shared else "--no-shared", "--starts", "identity"]
    assert run(paths, out, *form, "--penalties", "0", "0.01") == 0
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "x_tuned.choice.json", "x_tuned.curve.parquet", "x_tuned.pth",
    ]  # fmt: skip
    choice = json.loads((tmp_path / "weights" / "x_tuned.choice.json").read_text())
    assert choice["settings"]["head"] == head and choice["settings"]["shared"] is shared
    tables.read(tmp_path / "weights" / "x_tuned.curve.parquet", "mapper_curve")
    chosen, plain = (means(paths, "validation", mapper, tmp_path / "v") for mapper in (out, None))
    assert chosen == pytest.approx(choice["validation_mean_average_precision"], abs=1e-3)
    assert plain == pytest.approx(choice["untuned_validation_mean_average_precision"], abs=1e-3)
    assert choice["gain"] > 0.05
    assert means(paths, "test", out, tmp_path / "t") > means(paths, "test", None, tmp_path / "u") + 0.03


def test_one_validation_model_gives_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths, out = written(tmp_path), tmp_path / "x_tuned.pth"
    alone = features(1, 2).write(tmp_path, name="alone")["test"]
    assert run(paths | {"validation": alone}, out, "--starts", "identity", "--penalties", "0.01") == 0
    assert (
        "points of mAP, without an interval, since there is one validation model;" in capsys.readouterr().out
    )
    choice = json.loads((tmp_path / "x_tuned.choice.json").read_text())
    assert choice["gain_low"] is None and choice["gain_high"] is None


def test_where_nothing_helps_the_checkpoint_leaves_features_as_they_are(tmp_path: Path) -> None:
    paths, out = written(tmp_path, loud=0.0), tmp_path / "x_tuned.pth"
    assert run(paths, out, "--starts", "identity", "--learning-rate", "1e-12", "--epochs", "1") == 0
    assert json.loads((tmp_path / "x_tuned.choice.json").read_text())["identity_is_best"]
    saved = torch.load(out, weights_only=True)
    assert list(saved) == ["real_mapper", "synth_mapper"]
    assert all(torch.equal(one["weight"], torch.eye(DIM)) and not one["bias"].any() for one in saved.values())
    assert means(paths, "test", out, tmp_path / "t") == means(paths, "test", None, tmp_path / "u")


def test_whitened_starts_and_negatives_from_a_folder_of_parts(tmp_path: Path) -> None:
    paths, out = written(tmp_path), tmp_path / "x_tuned.pth"
    np.save(tmp_path / "pool.npy", np.random.default_rng(0).normal(size=(300, DIM)).astype(np.float32))
    paths["pool"] = tmp_path / "pool.npy"
    options = ["--distractors", "5", "--validation-distractors", "100", "--shrinkages", "0.2"]
    assert run(paths, out, *options, "--train-cases", str(paths["train.json"])) == 0
    choice = json.loads((tmp_path / "x_tuned.choice.json").read_text())
    starts = pq.read_table(tmp_path / "x_tuned.curve.parquet")["start"].to_pylist()
    assert set(starts) == {"identity", "whitened", "within"} and choice["validation_distractors"] == 100
    assert read_mapper(out).real.layers[0].dim == DIM


# --- the layout, as torch's classes have it


@every_head
@pytest.mark.parametrize("start", ["identity", "whitened"])
def test_a_checkpoint_maps_as_the_heads_do(head: str, shared: bool, start: str, tmp_path: Path) -> None:
    starts = ("identity",) if head == "channel" else (start,)
    options = {
        "epochs": 3,
        "learning_rate": 0.02,
        "starts": starts,
        "head": head,
        "shared": shared,
        "hidden": 7,
    }
    made = tuned(material(), **options).heads
    torch_files.save(mapper_export.checkpoint(made), tmp_path / "m.pth")
    read, rows = read_mapper(tmp_path / "m.pth"), material().distractors
    state = torch.load(tmp_path / "m.pth", weights_only=True)
    for side, one, name in ((made.real, read.real, "real_mapper"), (made.synth, read.synth, "synth_mapper")):
        again = one(rows)
        again /= np.linalg.norm(again, axis=1, keepdims=True)
        assert np.allclose(again, side(rows), atol=2e-6)
        module = of_torch(head, hidden=2 * DIM + 7)
        shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        assert {key: tuple(value.shape) for key, value in state[name].items()} == shapes
        module.load_state_dict(state[name])  # strict
        with torch.no_grad():
            by_torch = torch.nn.functional.normalize(module.eval()(torch.from_numpy(rows)), dim=1).numpy()
        assert np.allclose(by_torch, side(rows), atol=2e-5)


def of_torch(head: str, hidden: int) -> torch.nn.Module:
    """The classes that the published code loads."""
    if head == "linear":
        return torch.nn.Linear(DIM, DIM)
    if head == "channel":
        return Channel(np.random.default_rng(0), DIM)
    return torch.nn.Sequential(
        torch.nn.Linear(DIM, hidden, bias=False), torch.nn.BatchNorm1d(hidden), torch.nn.ReLU(), torch.nn.Dropout(0.0),
        torch.nn.Linear(hidden, DIM, bias=False), torch.nn.BatchNorm1d(DIM, affine=False),
    )  # fmt: skip


def test_an_export_writes_every_form_under_the_kind_that_it_was_trained_on(tmp_path: Path) -> None:
    from tests.abc_benchmark.test_export_run import write_run

    write_run(tmp_path / "run")
    folder = tmp_path / "run" / "mappers" / "pixel"
    for path in folder.iterdir():
        path.unlink()
    factors = heads.Channel(np.arange(1, 17, dtype=np.float32))
    heads.save(folder / "channel-shared-object.safetensors", heads.Heads(factors, factors), {})
    list(export_run.export(tmp_path / "run", encoder="pixel", out=tmp_path / "out"))
    saved = torch.load(tmp_path / "out/weights/mapper/pixel_tuned-object.pth", weights_only=True)
    assert all(torch.equal(one["weights"], torch.arange(1, 17.0)[None]) for one in saved.values())


# --- what it may not hang on


def test_neither_order_nor_blocks_matter(tmp_path: Path) -> None:
    for name, seed in (("b", 1), ("a", 2), ("v", 3)):
        features(6, seed).write(tmp_path, name=name)
    files = [str(tmp_path / f"{name}.pth") for name in "ab"]
    for out, order in (("one.pth", files), ("two.pth", files[::-1])):
        options = ["--pool", str(tmp_path / "laion_subset.pth"), "--validation", str(tmp_path / "v.pth")]
        assert main(["abc", "tune", *options, "--train", *order, "--out", str(tmp_path / out), *QUICK]) == 0
    assert (tmp_path / "one.pth").read_bytes() == (tmp_path / "two.pth").read_bytes()
    pool = feature_files.open_pool(tmp_path / "laion_subset.pth")
    whole = tuning_data.sample(pool, count=50, key=(1,))
    for block in (1, 7, 200):
        assert np.array_equal(tuning_data.sample(pool, count=50, key=(1,), block=block), whole)
    everything = torch.load(tmp_path / "laion_subset.pth", weights_only=True)["feats"].numpy()
    rows = {row.tobytes() for row in everything}
    assert len({row.tobytes() for row in whole} & rows) == 50
    assert np.array_equal(
        np.sort(tuning_data.sample(pool, count=999, key=(1,)), axis=0), np.sort(everything, axis=0)
    )


def test_of_the_pool_no_more_is_held_than_was_drawn(tmp_path: Path) -> None:
    np.save(tmp_path / "pool.npy", np.ones((120_000, 64), np.float32))  # 31 MB
    pool = feature_files.open_pool(tmp_path / "pool.npy")
    tracemalloc.start()
    assert tuning_data.sample(pool, count=500, key=(1,)).shape == (500, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6


def test_options_are_the_keys_of_the_config_with_its_defaults() -> None:
    given = ["abc", "tune", "--pool", "p", "--train", "t", "--validation", "v", "--out", "o.pth"]
    found = vars(parser().parse_args(given))
    defaults = Mapper().model_dump(exclude={"trained_on"})
    assert found.pop("starts") is None  # which hangs on --head
    assert {name: found[name] for name in defaults if name != "starts"} == {
        name: value for name, value in defaults.items() if name != "starts"
    }


@pytest.mark.parametrize(
    ("head", "starts"), [("linear", Mapper().starts), ("mlp", Mapper().starts), ("channel", ["identity"])]
)
def test_where_training_may_begin_hangs_on_the_head_unless_it_is_said(head: str, starts: list[str]) -> None:
    given = [
        "abc",
        "tune",
        "--pool",
        "p",
        "--train",
        "t",
        "--validation",
        "v",
        "--out",
        "o.pth",
        "--head",
        head,
    ]
    assert abc_tune._settings(parser().parse_args(given))["starts"] == starts
    said = parser().parse_args([*given, "--starts", "identity"])
    assert abc_tune._settings(said)["starts"] == ["identity"]


def test_a_channel_head_is_tuned_with_nothing_said_of_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, out = written(tmp_path), tmp_path / "x_tuned.pth"
    assert run(paths, out, "--head", "channel", "--epochs", "1") == 0
    choice = json.loads((tmp_path / "x_tuned.choice.json").read_text())
    assert choice["settings"]["starts"] == ["identity"]
    with pytest.raises(SystemExit):
        parser().parse_args(["abc", "tune", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "default: identity whitened within; with --head channel identity" in told


# --- bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--learning-rate", "3"], "--learning-rate: 3.0 is wrong, it should be less than or equal to 1"),
        (
            ["--head", "channel", "--starts", "identity", "within"],
            "--starts: identity, within, but a channel head",
        ),
        (["--learning-rate", "1", "--penalties", "1e38"], "--learning-rate: training diverged"),
        (["--distractors", "4"], "--distractors: 4 negatives a step.*lower --validation-distractors"),
        (["--seed", "-1"], "--seed: -1, expected at least 0"),
        (
            ["--train-cases", "a.json", "b.json"],
            "--train-cases: 2 files, expected one for each of 1 of --train",
        ),
        (["--out", "x.safetensors"], "--out: x.safetensors, expected a file NAME.pth"),
    ],
)
def test_what_an_option_gets_wrong_is_one_line(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(written(tmp_path), tmp_path / "x.pth", *options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and re.search(said, error), error
    assert not list(tmp_path.glob("x.*"))


def one_model(paths: dict[str, Path]) -> None:
    features(1, 1).write(paths["train"].parent, name="train")


def no_positives(paths: dict[str, Path]) -> None:
    content = torch.load(paths["validation"], weights_only=True)
    for kind in content["synth_ids"]:
        content["synth_ids"][kind], content["synth_paths"][kind] = [], []
        content["synth_tensors"][kind] = content["synth_tensors"][kind][:0]
    torch.save(content, paths["validation"])


def other_dimension(paths: dict[str, Path]) -> None:
    abc_case(1, rows=20, dim=9).write(paths["train"].parent, name="validation")
    features(4, 1).write(paths["train"].parent, name="train")


def the_same_models(paths: dict[str, Path]) -> None:
    features(14, 1).write(paths["train"].parent, name="validation")


def a_bad_row(paths: dict[str, Path]) -> None:
    content = torch.load(paths["train"], weights_only=True)
    content["exemplar_tensors"][3] = float("nan")
    torch.save(content, paths["train"])


def other_json(paths: dict[str, Path]) -> None:
    paths["train.json"].write_text(paths["test.json"].read_text())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (one_model, "--train: 1 model with synthesized images in .*train.pth; contrastive training needs 2"),
        (
            no_positives,
            "validation.pth: synth_tensors.'gpt'.: no rows, expected at least one synthesized image",
        ),
        (
            other_dimension,
            "validation.pth: exemplar_tensors: 9 dimensions, but .* has 12; expected features of one",
        ),
        (the_same_models, "--validation: model validation/0 has the exemplars of train/0 in --train"),
        (a_bad_row, "train.pth: exemplar_tensors: row 3 is zero or not finite"),
        (other_json, "train.json: 10 models, but .*train.pth has 14; expected its JSON"),
    ],
)
def test_files_that_do_not_fit_are_named(
    change: Callable[[dict[str, Path]], None], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = written(tmp_path)
    change(paths)
    assert run(paths, tmp_path / "x.pth", "--train-cases", str(paths["train.json"])) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(said, error), error
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_half_written(tmp_path: Path) -> None:
    paths, out = written(tmp_path), tmp_path / "out" / "x.pth"
    assert run(paths, out) == 0
    whole = {path.name: path.read_bytes() for path in out.parent.iterdir()}
    folder = tmp_path / "killed"
    files = ["--pool", paths["pool"], "--train", paths["train"], "--validation", paths["validation"]]
    command = [sys.executable, "-m", "attrib_core", "abc", "tune", *map(str, files), *QUICK]
    for line in ("models to train on", "epochs from"):
        process = subprocess.Popen(
            [*command, "--out", str(folder / "x.pth"), "--epochs", "99999", "--patience", "99999"],
            stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert process.stderr is not None
        next(said for said in process.stderr if line in said)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not folder.exists() or not list(folder.iterdir())
    assert run(paths, folder / "x.pth") == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
