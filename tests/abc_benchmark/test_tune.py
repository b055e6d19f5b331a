"""`abc tune`: from AbC features to a checkpoint that `abc evaluate` reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from attrib_core.abc_benchmark import feature_files, tuning_data
from attrib_core.abc_benchmark.mapper_files import read_mapper
from attrib_core.cli import abc_tune
from attrib_core.cli.main import main, parser
from attrib_core.config.schema_evaluation import Mapper
from attrib_core.storage import tables
from tests.abc_benchmark.tune_fixtures import HEADS, QUICK, run_tune, tunable_case, write_splits
from tests.features.mapper_fixtures import DIM

FAST = [("linear", False), ("mlp", True)]
REQUIRED = ["abc", "tune", "--pool", "p", "--train", "t", "--validation", "v", "--out", "o.pth"]


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
    [pytest.param(*one, marks=() if one in FAST else pytest.mark.slow) for one in HEADS],
)
def test_a_tuned_mapper_evaluates_as_in_validation_and_improves(
    head: str, shared: bool, tmp_path: Path
) -> None:
    paths, out = write_splits(tmp_path), tmp_path / "weights" / "x_tuned.pth"
    options = ["--head", head, "--shared" if shared else "--no-shared", "--starts", "identity"]
    assert run_tune(paths, out, *options, "--penalties", "0", "0.01") == 0
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
    paths, out = write_splits(tmp_path), tmp_path / "x_tuned.pth"
    alone = tunable_case(1, 2).write(tmp_path, name="alone")["test"]
    assert run_tune(paths | {"validation": alone}, out, "--starts", "identity", "--penalties", "0.01") == 0
    assert (
        "points of mAP, without an interval, since there is one validation model;" in capsys.readouterr().out
    )
    choice = json.loads((tmp_path / "x_tuned.choice.json").read_text())
    assert choice["gain_low"] is None and choice["gain_high"] is None


def test_without_improvement_the_checkpoint_is_the_identity(tmp_path: Path) -> None:
    paths, out = write_splits(tmp_path, noise=0.0), tmp_path / "x_tuned.pth"
    assert run_tune(paths, out, "--starts", "identity", "--learning-rate", "1e-12", "--epochs", "1") == 0
    assert json.loads((tmp_path / "x_tuned.choice.json").read_text())["identity_is_best"]
    saved = torch.load(out, weights_only=True)
    assert list(saved) == ["real_mapper", "synth_mapper"]
    assert all(torch.equal(one["weight"], torch.eye(DIM)) and not one["bias"].any() for one in saved.values())
    assert means(paths, "test", out, tmp_path / "t") == means(paths, "test", None, tmp_path / "u")


def test_whitened_starts_with_negatives_from_an_npy_pool(tmp_path: Path) -> None:
    paths, out = write_splits(tmp_path), tmp_path / "x_tuned.pth"
    np.save(tmp_path / "pool.npy", np.random.default_rng(0).normal(size=(300, DIM)).astype(np.float32))
    paths["pool"] = tmp_path / "pool.npy"
    options = ["--distractors", "5", "--validation-distractors", "100", "--shrinkages", "0.2"]
    assert run_tune(paths, out, *options, "--train-cases", str(paths["train.json"])) == 0
    choice = json.loads((tmp_path / "x_tuned.choice.json").read_text())
    starts = pq.read_table(tmp_path / "x_tuned.curve.parquet")["start"].to_pylist()
    assert set(starts) == {"identity", "whitened", "within"} and choice["validation_distractors"] == 100
    assert read_mapper(out).real.layers[0].dim == DIM


def test_the_result_depends_neither_on_file_order_nor_on_blocks(tmp_path: Path) -> None:
    for name, seed in (("b", 1), ("a", 2), ("v", 3)):
        tunable_case(6, seed).write(tmp_path, name=name)
    files = [str(tmp_path / f"{name}.pth") for name in "ab"]
    for out, order in (("one.pth", files), ("two.pth", files[::-1])):
        options = ["--pool", str(tmp_path / "laion_subset.pth"), "--validation", str(tmp_path / "v.pth")]
        assert main(["abc", "tune", *options, "--train", *order, "--out", str(tmp_path / out), *QUICK]) == 0
    assert (tmp_path / "one.pth").read_bytes() == (tmp_path / "two.pth").read_bytes()
    pool = feature_files.open_pool(tmp_path / "laion_subset.pth")
    sampled = tuning_data.sample(pool, count=50, key=(1,))
    for block in (1, 7, 200):
        assert np.array_equal(tuning_data.sample(pool, count=50, key=(1,), block=block), sampled)
    everything = torch.load(tmp_path / "laion_subset.pth", weights_only=True)["feats"].numpy()
    rows = {row.tobytes() for row in everything}
    assert len({row.tobytes() for row in sampled} & rows) == 50
    assert np.array_equal(
        np.sort(tuning_data.sample(pool, count=999, key=(1,)), axis=0), np.sort(everything, axis=0)
    )


def test_memory_holds_only_the_sampled_rows_of_the_pool(tmp_path: Path) -> None:
    np.save(tmp_path / "pool.npy", np.ones((120_000, 64), np.float32))  # 31 MB
    pool = feature_files.open_pool(tmp_path / "pool.npy")
    tracemalloc.start()
    assert tuning_data.sample(pool, count=500, key=(1,)).shape == (500, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6


def test_options_are_the_keys_of_the_config_with_its_defaults() -> None:
    found = vars(parser().parse_args(REQUIRED))
    defaults = Mapper().model_dump(exclude={"trained_on"})
    assert found.pop("starts") is None  # depends on --head
    assert {name: found[name] for name in defaults if name != "starts"} == {
        name: value for name, value in defaults.items() if name != "starts"
    }


@pytest.mark.parametrize(
    ("head", "starts"), [("linear", Mapper().starts), ("mlp", Mapper().starts), ("channel", ["identity"])]
)
def test_the_default_of_starts_depends_on_the_head(head: str, starts: list[str]) -> None:
    given = [*REQUIRED, "--head", head]
    assert abc_tune._settings(parser().parse_args(given))["starts"] == starts
    explicit = parser().parse_args([*given, "--starts", "identity"])
    assert abc_tune._settings(explicit)["starts"] == ["identity"]


def test_a_channel_head_is_tuned_without_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths, out = write_splits(tmp_path), tmp_path / "x_tuned.pth"
    assert run_tune(paths, out, "--head", "channel", "--epochs", "1") == 0
    choice = json.loads((tmp_path / "x_tuned.choice.json").read_text())
    assert choice["settings"]["starts"] == ["identity"]
    with pytest.raises(SystemExit):
        parser().parse_args(["abc", "tune", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "default: identity whitened within; with --head channel identity" in shown


@pytest.mark.slow
def test_a_killed_run_leaves_no_partial_files(tmp_path: Path) -> None:
    paths, out = write_splits(tmp_path), tmp_path / "out" / "x.pth"
    assert run_tune(paths, out) == 0
    expected = {path.name: path.read_bytes() for path in out.parent.iterdir()}
    folder = tmp_path / "killed"
    files = ["--pool", paths["pool"], "--train", paths["train"], "--validation", paths["validation"]]
    command = [sys.executable, "-m", "attrib_core", "abc", "tune", *map(str, files), *QUICK]
    for line in ("models to train on", "epochs from"):
        process = subprocess.Popen(
            [*command, "--out", str(folder / "x.pth"), "--epochs", "99999", "--patience", "99999"],
            stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert process.stderr is not None
        next(shown for shown in process.stderr if line in shown)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not folder.exists() or not list(folder.iterdir())
    assert run_tune(paths, folder / "x.pth") == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected
