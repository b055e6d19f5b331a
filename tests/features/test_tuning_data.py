"""Tuning data is read from the tables of a run, without the test split; and the script of the stage `tune`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attrib_core.common.errors import InputError
from attrib_core.features.heads import heads
from attrib_core.features.mapper.tuning_data import TuningData, gather
from attrib_core.storage import tables
from tests.features.embedding_fixtures import write_embeddings, write_parts
from tests.features.mapper_fixtures import DIM, SETTINGS


class Run:
    """Tables of a tiny run: sets of three splits, with controls, and their embeddings."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        exemplars, queries = [], []
        for number in range(10):
            name = f"set-{number}"
            split = ("train", "train", "validation", "test", "train")[number % 5]
            exemplars += [
                {
                    "exemplar_id": f"{name}.{place}",
                    "exemplar_set": name,
                    "kind": ("object", "style")[number % 2],
                    "split": split,
                }
                for place in range(1 + number % 2)
            ]
            queries += [
                {"query_id": f"{name}.{condition}.{place}", "exemplar_set": name, "condition": condition}
                for condition in ("customized", "control")
                for place in range(3)
            ]
        self.exemplars, self.queries = pa.Table.from_pylist(exemplars), pa.Table.from_pylist(queries)
        self.exemplar_ids = self.exemplars["exemplar_id"].to_pylist()
        self.query_ids = self.queries["query_id"].to_pylist()
        self.exemplar_vectors = random.normal(size=(len(exemplars), DIM)).astype(np.float32)
        self.query_vectors = random.normal(size=(len(queries), DIM)).astype(np.float32)
        self.pool_ids = [f"pool-{number}" for number in range(50)]
        self.pool_vectors = random.normal(size=(50, DIM)).astype(np.float32)
        self.folder = folder

    def write(self, size: int = 7) -> dict[str, Any]:
        folder = self.folder / str(size)
        return {
            "exemplars": self.exemplars,
            "queries": self.queries,
            "exemplar_embeddings": write_embeddings(
                folder / "exemplars.parquet", self.exemplar_ids, self.exemplar_vectors
            ),
            "query_embeddings": write_parts(folder / "queries", self.query_ids, self.query_vectors, size),
            "pool": write_parts(folder / "pool", self.pool_ids, self.pool_vectors, size),
        }

    def gather(self, size: int = 7, **changes: Any) -> TuningData:
        options: dict[str, Any] = {
            "excluded": ["pool-3"],
            "kind": None,
            "validation_distractors": 20,
            "distractors": 1,
            "seed": 4,
        }
        return gather(**(self.write(size) | options | changes))


def same(first: TuningData, second: TuningData) -> bool:
    arrays = [
        (one.train.real, one.train.synth, one.train.real_set, one.train.synth_set, one.validation.real,
         one.validation.synth, one.distractors, one.negatives)
        for one in (first, second)
    ]  # fmt: skip
    return all(np.array_equal(left, right) for left, right in zip(*arrays, strict=True))


def test_gathered_data_is_of_its_split_and_of_customized_models(tmp_path):
    run = Run(tmp_path)
    got = run.gather()
    assert got.train.names == ("set-0", "set-1", "set-4", "set-5", "set-6", "set-9")
    assert got.validation.names == ("set-2", "set-7")
    assert got.validation.real.shape == (3, DIM) and got.validation.synth.shape == (6, DIM)
    wanted = [run.query_ids.index(f"set-7.customized.{place}") for place in range(3)]
    assert np.array_equal(got.validation.synth[got.validation.synth_set == 1], run.query_vectors[wanted])
    assert len(got.distractors) == 20 and len(got.negatives) == 16
    rows = {row.tobytes() for row in np.concatenate([got.distractors, got.negatives])}
    assert len(rows) == 36 and run.pool_vectors[3].tobytes() not in rows


def test_a_mapper_for_one_kind_sees_sets_of_that_kind_alone(tmp_path):
    run = Run(tmp_path)
    got = run.gather(kind="style")
    assert got.train.names == ("set-1", "set-5", "set-9") and got.validation.names == ("set-7",)
    both = run.gather()
    where = np.flatnonzero(np.isin(both.train.synth_set, [1, 3, 5]))
    assert np.array_equal(got.train.synth, both.train.synth[where])
    assert np.array_equal(got.distractors, both.distractors)
    for row, name in enumerate(run.exemplar_ids):
        if int(name[4]) % 2 == 0:
            run.exemplar_vectors[row] = np.nan  # objects: never used
    assert same(run.gather(kind="style"), got)


def test_gathered_data_does_not_depend_on_parts_or_order(tmp_path):
    run = Run(tmp_path)
    expected = run.gather(7)
    assert same(run.gather(100), expected)
    order = np.random.default_rng(0).permutation(len(run.queries))
    run.queries = run.queries.take(order[::-1])
    run.query_ids, run.query_vectors = [run.query_ids[row] for row in order], run.query_vectors[order]
    assert same(run.gather(5), expected)


def test_the_test_split_and_the_controls_are_never_used(tmp_path):
    run = Run(tmp_path)
    expected = run.gather()
    for row, name in enumerate(run.exemplar_ids):
        if name.startswith(("set-3.", "set-8.")):
            run.exemplar_vectors[row] = np.nan
    for row, name in enumerate(run.query_ids):
        if name.startswith(("set-3.", "set-8.")) or ".control." in name:
            run.query_vectors[row] = np.nan
    assert same(run.gather(), expected)


def test_missing_sets_queries_and_embeddings_are_named(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(
        InputError, match="mapper.distractors: 3 negatives .* lower mapper.validation_distractors"
    ):
        run.gather(validation_distractors=49, distractors=3)
    no_validation = run.exemplars.filter(pa.compute.not_equal(run.exemplars["split"], "validation"))
    with pytest.raises(InputError, match="no set has the split 'validation'"):
        run.gather(**{"exemplars": no_validation})
    no_style = run.exemplars.filter(pa.compute.not_equal(run.exemplars["exemplar_set"], "set-7"))
    with pytest.raises(
        InputError,
        match=r"mapper.trained_on: no style set has the split 'validation'.* exemplars.style_sets, or take 'style'",
    ):
        run.gather(**{"exemplars": no_style, "kind": "style"})
    without_queries = run.queries.filter(pa.compute.not_equal(run.queries["exemplar_set"], "set-2"))
    with pytest.raises(
        InputError, match="1 sets of split 'validation' have no customized queries, such as 'set-2'"
    ):
        run.gather(**{"queries": without_queries})
    run.query_ids = [name.replace("set-4", "other") for name in run.query_ids]
    with pytest.raises(InputError, match="3 images have none, such as query 'set-4.customized.0'"):
        run.gather()


def test_a_zero_embedding_is_named(tmp_path):
    run = Run(tmp_path)
    run.exemplar_vectors[0] = 0
    with pytest.raises(InputError, match="exemplar 'set-0.0' is zero or not finite"):
        run.gather()


def test_the_script_writes_heads_curve_and_choice(run_script, tmp_path):
    run = Run(tmp_path)
    files = run.write()
    defaults = {"category": "fruit", "subject": "apple", "style": None, "caption": "", "seen": True}
    image = {"bytes": b"", "path": ""}
    rows = [row | defaults | {"image_id": "p", "image": image} for row in run.exemplars.to_pylist()]
    tables.write(tmp_path / "exemplars.parquet", "exemplars", rows)
    query_columns = {
        "model_key": "m",
        "prompt_kind": "scene",
        "prompt_index": 0,
        "sample_index": 0,
        "prompt": "",
        "seed": 1,
    }
    rows = [row | query_columns for row in run.queries.to_pylist()]
    tables.write(tmp_path / "queries.parquet", "queries", rows)
    tables.write(
        tmp_path / "excluded.parquet",
        "excluded",
        [{"image_id": "pool-3", "reason": "exemplar", "exemplar_id": "x"}],
    )
    out = {name: str(tmp_path / "out" / name) for name in ("mapper", "curve", "choice")}
    run_script(
        "tune",
        input={
            "exemplars": str(tmp_path / "exemplars.parquet"),
            "exemplar_embeddings": str(files["exemplar_embeddings"]),
            "query_rows": [str(tmp_path / "queries.parquet")],
            "queries": [str(path) for path in files["query_embeddings"]],
            "pool": [str(path) for path in files["pool"]],
            "excluded": str(tmp_path / "excluded.parquet"),
        },
        output=out,
        params={
            "kind": "object",
            "settings": {**SETTINGS.__dict__, "epochs": 2},
            "choices": {"penalties": [0.1], "starts": ["identity", "within"], "shrinkages": [0.1]},
            "validation": {"distractors": 20},
            "seed": 4,
            "code": "x",
        },
        wildcards={"encoder": "e", "mapper": "linear-object"},
    )
    choice = json.loads(Path(out["choice"]).read_text())
    assert heads.metadata(Path(out["mapper"])) == choice
    assert heads.load(Path(out["mapper"])).real(run.pool_vectors).shape == (50, DIM)
    assert len(tables.read(Path(out["curve"]), "mapper_curve")) == 2 + 3
