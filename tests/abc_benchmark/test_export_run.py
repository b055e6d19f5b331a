"""`abc export`: the files of a run, and that they give the run's own metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from attrib_core.abc_benchmark import export_run
from attrib_core.attribution.metrics import measure
from attrib_core.attribution.ranking import rank
from attrib_core.cli.main import main
from attrib_core.features.heads import heads
from attrib_core.storage import tables
from tests.attribution.ranking_fixtures import World, world, write_parts

KEYS = ("exemplar_paths", "exemplar_chunks", "exemplar_tensors", "synth_paths", "synth_ids", "synth_tensors")
KINDS = {"object": ("media", "scene"), "style": ("object", "theme")}
SETS = [
    ("object", 1, "test"),
    ("style", 12, "test"),
    ("object", 1, "train"),
    ("object", 1, "test"),
    ("style", 5, "test"),
]
IMAGE = {"bytes": b"png", "path": "x.png"}


def mapper() -> heads.Heads:
    rng = np.random.default_rng(5)

    def head() -> heads.Linear:
        turned = np.eye(16) + 0.1 * rng.standard_normal((16, 16))
        return heads.Linear(turned.astype(np.float32), (0.05 * rng.standard_normal(16)).astype(np.float32))

    return heads.Heads(head(), head())


def write_run(
    folder: Path, sets: list[tuple[str, int, str]] = SETS
) -> tuple[World, list[dict[str, object]], list[dict[str, object]]]:
    """Write what `export` reads of a run with two kinds of sets; return rows of exemplars and queries."""
    case = world(3, rows=300, dim=16, set_sizes=[size for _, size, _ in sets], queries_each=8, duplicates=30)
    case.excluded = ["p00007", "p00299"]
    exemplars, queries = [], []
    for (name, vectors), (kind, _, split) in zip(case.exemplars.items(), sets, strict=True):
        exemplars += [
            {
                "exemplar_id": f"{name}-e{i}", "exemplar_set": name, "image_id": f"{name}-{i}", "image": IMAGE,
                "caption": "c", "kind": kind, "category": "bird", "subject": None, "style": None, "split": split,
                "seen": True,
            }
            for i in range(len(vectors))
        ]  # fmt: skip
        queries += [
            {
                "query_id": f"{name}-q{i}", "exemplar_set": name, "model_key": "k",
                "condition": "control" if i == 7 else "customized", "prompt_kind": KINDS[kind][i % 2],
                "prompt_index": i // 4, "sample_index": i // 2 % 2, "prompt": "p", "seed": i,
            }
            for i in range(8)
        ]  # fmt: skip
    tables.write(folder / "exemplars.parquet", "exemplars", exemplars)
    tables.write(folder / "synthesized" / "queries-0000.parquet", "queries", queries[:20])
    tables.write(folder / "synthesized" / "queries-0001.parquet", "queries", queries[20:])
    excluded = [{"image_id": name, "reason": "exemplar", "exemplar_id": "s00-e0"} for name in case.excluded]
    tables.write(folder / "excluded.parquet", "excluded", excluded)
    embedded = folder / "embeddings" / "pixel"
    write_parts(embedded / "pool", case.pool_ids, case.pool, 90)
    write_parts(
        embedded / "queries",
        [str(row["query_id"]) for row in queries],
        np.concatenate(list(case.queries.values())),
        17,
    )
    part = write_parts(
        folder,
        [str(row["exemplar_id"]) for row in exemplars],
        np.concatenate(list(case.exemplars.values())),
        999,
    )[0]
    part.rename(embedded / "exemplars.parquet")
    for name in ("linear-both", "linear-style"):
        heads.save(folder / "mappers" / "pixel" / f"{name}.safetensors", mapper(), {})
    return case, exemplars, queries


def own_metrics(
    folder: Path, queries: list[dict[str, object]], found: heads.Heads
) -> dict[tuple[object, ...], float]:
    """Compute the metrics of the run's test split as its stages do."""
    embedded = folder / "embeddings" / "pixel"
    groups = rank.rank(
        encoder="pixel", mapper="m", heads=found, pool=sorted((embedded / "pool").iterdir()),
        queries=sorted((embedded / "queries").iterdir()), exemplars=embedded / "exemplars.parquet",
        excluded=tables.read(folder / "excluded.parquet", "excluded"),
        query_rows=pa.Table.from_pylist(queries).select(rank.QUERY_COLUMNS),
        exemplar_rows=tables.read(folder / "exemplars.parquet", "exemplars"),
    )  # fmt: skip
    ranks = pa.concat_tables([group.ranks for group in groups])
    systems = measure.systems(
        [("ranks", ranks)], tables.read(folder / "exemplars.parquet", "exemplars"), recall_ks=[5, 10, 100]
    )
    return {
        (row["kind"], row["prompt_kind"], row["metric"], row["k"], name): row[name]
        for row in measure.measure(systems)
        if (row["condition"], row["split"], row["seen"]) == ("customized", "test", "all")
        for name in ("value", "ceiling", "chance", "n_queries", "n_models")
    }


def export(folder: Path, out: Path, *more: str) -> None:
    files = ["--run", str(folder), "--encoder", "pixel", "--out", str(out)]
    assert main(["abc", "export", *files, *more]) == 0


def test_files_have_the_published_keys_types_and_shapes(tmp_path: Path) -> None:
    case, _, _ = write_run(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    feats = tmp_path / "out" / "feats" / "pixel"
    assert sorted(path.name for path in feats.iterdir()) == [
        "laion_subset.pth",
        "test_object.pth",
        "test_style.pth",
    ]
    pool = torch.load(feats / "laion_subset.pth", weights_only=True)
    assert set(pool) == {"feats", "paths"} and pool["feats"].dtype == torch.float32
    kept = [row for row, name in enumerate(case.pool_ids) if name not in case.excluded]
    assert np.array_equal(pool["feats"].numpy(), case.pool[kept]) and len(pool["paths"]) == 298
    assert pool["feats"].untyped_storage().nbytes() == 298 * 16 * 4
    test = torch.load(feats / "test_style.pth", weights_only=True)
    assert list(test) == list(KEYS)
    assert test["exemplar_chunks"] == [(0, 12), (12, 17)] and all(
        type(chunk) is tuple for chunk in test["exemplar_chunks"]
    )
    assert np.array_equal(
        test["exemplar_tensors"].numpy(), np.concatenate([case.exemplars["s01"], case.exemplars["s04"]])
    )
    assert test["synth_ids"] == {
        "object": [0] * 4 + [1] * 4,
        "theme": [0] * 3 + [1] * 3,
    }  # the control is left out
    assert np.array_equal(test["synth_tensors"]["theme"][3:].numpy(), case.queries["s04"][[1, 3, 5]])
    assert {kind: len(paths) for kind, paths in test["synth_paths"].items()} == {"object": 8, "theme": 6}
    entries = json.loads((tmp_path / "out" / "dataset" / "json" / "test_style.json").read_text())
    assert [set(entry) for entry in entries] == [{"exemplar", "synth", "class_id", "category"}] * 2
    assert [path for entry in entries for path in entry["exemplar"]] == test["exemplar_paths"]
    assert [path for entry in entries for path in entry["synth"]["theme"]] == test["synth_paths"]["theme"]
    assert [(entry["class_id"], entry["category"]) for entry in entries] == [("s01", None), ("s04", None)]
    weights = tmp_path / "out" / "weights" / "mapper"
    assert sorted(path.name for path in weights.iterdir()) == ["pixel_tuned-style.pth", "pixel_tuned.pth"]
    saved = torch.load(weights / "pixel_tuned.pth", weights_only=True)
    assert {
        side: {name: tuple(value.shape) for name, value in state.items()} for side, state in saved.items()
    } == {side: {"weight": (16, 16), "bias": (16,)} for side in ("real_mapper", "synth_mapper")}


def test_several_splits_are_exported_in_one_call_under_their_names(tmp_path: Path) -> None:
    case, _, _ = write_run(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out", "--split", "train", "test")
    feats = tmp_path / "out" / "feats" / "pixel"
    assert sorted(path.name for path in feats.iterdir()) == [
        "laion_subset.pth", "test_object.pth", "test_style.pth", "train_object.pth",
    ]  # fmt: skip
    train = torch.load(feats / "train_object.pth", weights_only=True)
    assert np.array_equal(train["exemplar_tensors"].numpy(), case.exemplars["s02"])
    (entry,) = json.loads((tmp_path / "out" / "dataset" / "json" / "train_object.json").read_text())
    assert entry["class_id"] == "s02" and entry["exemplar"] == train["exemplar_paths"]
    export(tmp_path / "run", tmp_path / "alone", "--split", "test")
    for path in (tmp_path / "alone" / "dataset" / "json").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / "dataset" / "json" / path.name).read_bytes()


def test_a_split_without_models_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run")
    files = ["--run", str(tmp_path / "run"), "--encoder", "pixel", "--out", str(tmp_path / "out")]
    assert main(["abc", "export", *files, "--split", "test", "validation"]) == 2
    assert "no exemplar sets of the split 'validation'" in capsys.readouterr().err
    for path in (tmp_path / "run" / "synthesized").iterdir():
        path.unlink()
    assert main(["abc", "export", *files]) == 2
    assert f"--run: {tmp_path / 'run'} has no synthesized/queries-*.parquet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_is_exported_tuned_on_calibrated_and_evaluated(tmp_path: Path) -> None:
    """The documented sequence of commands, each on the files of the previous ones."""
    splits = ("train", "validation", "test")
    write_run(tmp_path / "run", [(kind, 4, split) for split in splits for kind in KINDS for _ in range(2)])
    out, mapper = tmp_path / "out", str(tmp_path / "own_tuned.pth")
    export(tmp_path / "run", out, "--split", *splits)
    feats = out / "feats" / "pixel"
    files = {split: [str(feats / f"{split}_{kind}.pth") for kind in KINDS] for split in splits}
    cases = {
        split: [str(out / "dataset/json" / f"{split}_{kind}.json") for kind in KINDS] for split in splits
    }
    pool = ["--pool", str(feats / "laion_subset.pth")]
    trained = ["--train", *files["train"], "--validation", *files["validation"]]
    checked = ["--train-cases", *cases["train"], "--validation-cases", *cases["validation"]]
    little = ["--epochs", "1", "--distractors", "8", "--validation-distractors", "40", "--penalties", "1"]
    assert main(["abc", "tune", *pool, *trained, *checked, *little, "--out", mapper]) == 0
    tested = ["--test", *files["test"], "--cases", *cases["test"], "--mapper", mapper]
    fitted = ["--fit", *files["validation"], "--fit-cases", *cases["validation"]]
    assert main(["abc", "calibrate", *pool, *fitted, *tested, "--out", str(tmp_path / "soft")]) == 0
    assert main(["abc", "evaluate", *pool, *tested, "--out", str(tmp_path / "found")]) == 0
    rows = pq.read_table(tmp_path / "found" / "metrics.parquet").to_pylist()
    assert {row["test"] for row in rows} == {"test_object", "test_style"}
    assert {row["n_models"] for row in rows if row["group_by"] == "all"} == {2}


@pytest.mark.parametrize("tuned", [False, True])
def test_evaluating_an_export_gives_the_metrics_of_the_run(tuned: bool, tmp_path: Path) -> None:
    _, _, queries = write_run(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    feats = tmp_path / "out" / "feats" / "pixel"
    options = ["--mapper", str(tmp_path / "out" / "weights" / "mapper" / "pixel_tuned.pth")] if tuned else []
    tests = [str(feats / f"test_{kind}.pth") for kind in KINDS]
    found = tmp_path / "evaluated"
    files = ["--pool", str(feats / "laion_subset.pth"), "--test", *tests]
    assert main(["abc", "evaluate", *files, "--out", str(found), *options]) == 0
    own = own_metrics(tmp_path / "run", queries, mapper() if tuned else heads.load(None))
    rows = [row for row in pq.read_table(found / "metrics.parquet").to_pylist() if row["group_by"] == "all"]
    assert len(rows) == 4 * 11
    for row in rows:
        for name in ("value", "ceiling", "chance", "n_queries", "n_models"):
            key = (row["test"].removeprefix("test_"), row["prompt_kind"], row["metric"], row["k"], name)
            assert row[name] == pytest.approx(own[key], abs=1e-12), key


def test_the_pool_of_a_run_serves_without_export(tmp_path: Path) -> None:
    """A folder of Parquet parts is a pool; excluded rows are then among the distractors."""
    write_run(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    parts = tmp_path / "run" / "embeddings" / "pixel" / "pool"
    test = tmp_path / "out" / "feats" / "pixel" / "test_object.pth"
    assert (
        main(["abc", "evaluate", "--pool", str(parts), "--test", str(test), "--out", str(tmp_path / "x")])
        == 0
    )
    assert pq.read_table(tmp_path / "x" / "per_query.parquet").num_rows == 2 * 7


def test_an_exported_mapper_is_named_after_the_kind_it_was_trained_on(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    folder = tmp_path / "run" / "mappers" / "pixel"
    for path in folder.iterdir():
        path.unlink()
    factors = heads.Channel(np.arange(1, 17, dtype=np.float32))
    heads.save(folder / "channel-shared-object.safetensors", heads.Heads(factors, factors), {})
    list(export_run.export(tmp_path / "run", encoder="pixel", out=tmp_path / "out"))
    saved = torch.load(tmp_path / "out/weights/mapper/pixel_tuned-object.pth", weights_only=True)
    assert all(torch.equal(one["weights"], torch.arange(1, 17.0)[None]) for one in saved.values())
