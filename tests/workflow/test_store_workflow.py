"""Two runs of the workflow with one store: what they share, what is kept, and the cost of more sets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from attrib_core.cli.main import main
from attrib_core.storage.store import garbage_collection, pieces
from tests.workflow_fixtures import config_file, planned, snakemake, tail

pytestmark = pytest.mark.slow
QUICK: dict[str, Any] = {
    "mapper": {"trained_on": ["both"]},
    "synthesis": {"image_format": "jpeg", "quality": 80},
}
SAMPLE: dict[str, Any] = QUICK | {"synthesis": QUICK["synthesis"] | {"keep": "sample"}}
MORE: dict[str, Any] = QUICK | {"exemplars": {"style_sets": 4}}


def kept(results: Path) -> dict[str, int]:
    """Return when each result in the store was written, by kind and key; for a delta the time of its file."""
    found = {}
    for record in (results / "store").glob("*/*.json"):
        piece = None if record.parent.name == "deltas" else pieces.lookup(record.parent, record.stem)
        written = piece.written if piece else record.stat().st_mtime_ns
        found[f"{record.parent.name}/{record.stem}"] = written
    return found


def contents(run: Path) -> dict[str, Any]:
    """Return tables and JSON of a run, without synthesized images and records of how it was run."""
    found: dict[str, Any] = {}
    for path in sorted([*run.rglob("*.parquet"), *run.rglob("*.json")]):
        name = path.relative_to(run).as_posix()
        if not name.startswith(("records/", "refers/", "synthesized/part-")):
            found[name] = pq.read_table(path) if path.suffix == ".parquet" else json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a finished run, `all`, that keeps all images."""
    folder = tmp_path_factory.mktemp("store")
    call(folder, "all", **QUICK)
    yield folder
    shutil.rmtree(folder)


def call(folder: Path, run: str, *arguments: str, **changes: Any) -> dict[str, int]:
    """Call Snakemake for a run, which must succeed; return the number of jobs by rule."""
    result = snakemake(folder, config_file(folder / f"{run}.yaml", run=run, **changes), *arguments)
    assert result.returncode == 0, tail(result)
    return planned(result)


def test_keeping_a_sample_changes_no_result_and_a_second_run_reuses_the_store(folder: Path) -> None:
    results = folder / "results"
    before = kept(results)
    call(folder, "sample", **SAMPLE)
    assert kept(results) == before, "nothing was trained, synthesized or embedded for the second run"
    own, other = contents(results / "all"), contents(results / "sample")
    assert own.keys() == other.keys()
    for name, value in own.items():
        if isinstance(value, dict) or value.equals(other[name]):
            assert value == other[name], name
        else:  # NaN, the interval of a single model, equals NaN only in pandas
            pd.testing.assert_frame_equal(value.to_pandas(), other[name].to_pandas(), check_exact=True)
    assert list(results.glob("all/synthesized/part-*")) and not list(
        results.glob("sample/synthesized/part-*")
    )
    assert (results / "sample/report/gallery.csv").read_text() == (
        results / "all/report/gallery.csv"
    ).read_text()
    assert call(folder, "sample", "--dry-run", **SAMPLE) == {}, "removed images are not missing"
    encoders = {"pixel": {"family": "pixel", "size": 8}, "coarse": {"family": "pixel", "size": 4}}
    assert call(folder, "sample", "--dry-run", **SAMPLE, encoders=encoders)["synthesize_part"] == 2


def test_an_additional_set_costs_one_set(folder: Path) -> None:
    results = folder / "results"
    before = kept(results)
    call(folder, "all", **MORE)
    after = kept(results)
    assert {name: after.get(name) for name in before} == before, "stored results are unchanged"
    new = sorted(name.partition("/")[0] for name in after.keys() - before.keys())
    assert new == ["deltas", "embeddings", "embeddings", "synthesized"]  # embeddings: queries and exemplars
    assert main(["store", "verify", "--results", str(results)]) == 0
    # one file contains the images of a part, and is that part
    store = [path for path in (results / "store/synthesized").glob("*.parquet") if path.stat().st_nlink == 2]
    parts = {path.stat().st_ino for path in results.glob("all/synthesized/part-*.parquet")}
    assert {path.stat().st_ino for path in store} == parts


def test_nothing_that_a_run_needs_is_removed(folder: Path) -> None:
    results = folder / "results"
    call(folder, "sample", **SAMPLE)  # finished already if the tests above ran
    call(folder, "all", **MORE)
    for name in ("all", "sample"):
        needed = garbage_collection.files_of_run(results / name)
        assert main(["store", "gc", "--run", name, "--delete", "--results", str(results)]) == 0
        assert needed == garbage_collection.files_of_run(results / name)
    assert main(["store", "verify", "--results", str(results)]) == 0
    assert call(folder, "all", "--dry-run", **MORE) == {}
    shutil.rmtree(results / "all")
    assert main(["store", "gc", "--delete", "--results", str(results)]) == 0
    assert (
        garbage_collection.files_of_run(results / "sample")
        and not garbage_collection.find_garbage(results)[0]
    )
