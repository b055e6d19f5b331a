"""A real run of the tiny workflow, and the calls that follow it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from attrib_core.cli.main import main
from attrib_core.config.load import load_config_without_source, plain
from attrib_core.config.planning import expected_jobs, plan, status
from attrib_core.features.embedding import embedding_tables, encoder_protocol
from attrib_core.storage import tables
from tests.workflow_fixtures import TINY, config_file, planned, snakemake, tail

POOL_PARTS = SET_PARTS = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.CompletedProcess[str]]]:
    """Run the tiny workflow; its folder, and the result of the call."""
    folder = tmp_path_factory.mktemp("workflow")
    yield folder, snakemake(folder, TINY)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_tiny_run_makes_everything(run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, result = run
    assert result.returncode == 0, tail(result)
    results = folder / "results" / "tiny"
    page = (results / "report" / "index.html").read_text("utf-8")
    assert page.rstrip().endswith("</html>")
    metrics = tables.read(results / "metrics.parquet", "metrics")
    assert set(metrics["mapper"].to_pylist()) == {"untuned", "linear-object", "linear-both"}
    assert set(metrics["kind"].to_pylist()) == {"object", "style"}
    for mapper, kinds in (("untuned", ["object", "style"]), ("linear-object", ["object"])):
        found = tables.read(results / f"ranks/pixel/{mapper}.parquet", "ranks", ["exemplar_set"])
        assert len(found["exemplar_set"].unique()) == 7  # every mapper ranks all queries
        calibrator = json.loads((results / f"calibration/pixel/{mapper}/calibrator.json").read_text())
        assert calibrator["fitted_on"]["kinds"] == kinds
    stages = pd.read_csv(results / "report" / "stages.csv")
    assert stages["jobs"].sum() == len(list(results.glob("benchmarks/**/*.tsv"))) - 1  # all but the report
    assert set(metrics["condition"].to_pylist()) == {"customized", "control"}
    assert len(list(results.glob("../store/deltas/*.token.safetensors"))) == 7
    assert not list(results.parent.rglob("*.tmp"))
    _check_plan(results)


def _check_plan(results: Path) -> None:
    """Check that the plan agrees with the run, to the byte where it is exact, and that rates were measured."""
    config = plain(load_config_without_source(TINY))
    found = plan.estimate(config, run=results)
    assert all(stage.rate and stage.rate.source == f"measured in {results}" for stage in found.stages)
    sizes = {stage.name: stage.size for stage in found.stages}
    deltas = sum(path.stat().st_size for path in results.glob("../store/deltas/*.safetensors"))
    assert sizes["customize"].bytes == (deltas, deltas)
    heads = sum(path.stat().st_size for path in results.glob("mappers/pixel/*.safetensors"))
    assert sizes["tune"].bytes[0] <= heads < sizes["tune"].bytes[0] + 2 * 4096  # headers with metadata
    for name, folder in (("index", "indices"), ("embed pixel", "embeddings/pixel")):
        used = sum(path.stat().st_size for path in results.glob(f"{folder}/**/*") if path.suffix != ".json")
        assert 0 < used < 1.5 * sizes[name].bytes[1]
    models = tables.read_parts(sorted(results.glob("models/part-*")), "models")
    assert sum(models["steps"].to_pylist()) == found.counts.training_steps
    assert models.num_rows == found.counts.models
    drawn = tables.read_parts(sorted(results.glob("synthesized/part-*")), "synthesized", ["condition"])
    conditions = drawn["condition"].to_pylist()
    assert conditions.count("customized") == found.counts.customized
    assert conditions.count("control") == found.counts.control
    exemplars = tables.read(results / "exemplars.parquet", "exemplars", ["exemplar_id"]).num_rows
    assert found.counts.exemplars[0] <= exemplars <= found.counts.exemplars[1]
    prior = tables.read(results / "prior" / "images.parquet", "prior", ["seed"]).num_rows
    assert found.counts.prior[0] <= prior <= found.counts.prior[1]
    shown = list(status.lines(results, config))
    number = len(list(expected_jobs.jobs(found.counts)))
    assert shown[0] == f"{results}: {number} of {number} jobs are done"
    assert not [line for line in shown if line.startswith(("time:", "started:", "failed:", "note:"))]


@pytest.mark.slow
def test_an_image_of_a_finished_run_is_attributed(
    run: tuple[Path, subprocess.CompletedProcess[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    results = run[0] / "results" / "tiny"
    sample = tables.read(next(results.glob("synthesized/sample-*.parquet")), "synthesized", ["image"])
    image = run[0] / "image.png"
    image.write_bytes(sample["image"][0]["bytes"].as_py())
    assert main(["attribute", str(image), "--run", str(results), "--out", str(run[0] / "found.csv")]) == 0
    assert capsys.readouterr().out.count("none of these") >= 2
    assert len(pd.read_csv(run[0] / "found.csv")) == 2 * 10  # kinds, candidates


@pytest.mark.slow
def test_a_second_call_has_nothing_to_do(run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    again = snakemake(run[0], TINY)
    assert again.returncode == 0, tail(again)
    assert "Nothing to be done" in again.stdout + again.stderr


@pytest.mark.slow
def test_snakemake_makes_its_report(
    run: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    result = snakemake(run[0], TINY, "--report", str(tmp_path / "report.html"))
    assert result.returncode == 0, tail(result)
    text = (tmp_path / "report.html").read_text("utf-8")
    for words in ("report/index.html", "recall_curve.svg", "customize_part"):
        assert words in text


@pytest.mark.slow
def test_a_copy_of_the_results_is_finished(
    run: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """A plain copy, with new times and without the folder .snakemake."""
    shutil.copytree(run[0] / "results", tmp_path / "results", copy_function=shutil.copyfile)
    again = snakemake(tmp_path, TINY)
    assert again.returncode == 0, tail(again)
    assert "Nothing to be done" in again.stdout + again.stderr


WORDS = {"family": "text", "base_model": {"family": "bundled"}}


@pytest.mark.slow
def test_an_encoder_and_the_fusion_of_two_are_added_by_config(
    run: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The new encoder reads prompts; only the jobs of both encoders run, and the report shows them."""
    shutil.copytree(run[0] / "results", tmp_path / "results", copy_function=shutil.copy2)
    results = tmp_path / "results" / "tiny"
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.parquet")}
    pixel = {"family": "pixel", "size": 8}
    parts = {"look": pixel, "words": WORDS | {"weight": 0.5}}
    encoders = {"pixel": pixel, "words": WORDS, "both": {"family": "fusion", "parts": parts}}
    changes = {"encoders": encoders, "mapper": {"trained_on": ["both"]}}  # one mapper less, to save time
    result = snakemake(tmp_path, config_file(tmp_path / "more.yaml", **changes))
    assert result.returncode == 0, tail(result)
    each = {
        "embed_pool_part": POOL_PARTS,
        "embed_queries_part": SET_PARTS,
        "embed_exemplars": 1,
        "tune": 1,
    }
    each |= dict.fromkeys(("index", "rank", "calibrate"), 2)
    expected = {rule: 2 * number for rule, number in each.items()} | {"measure": 1, "report": 1}
    assert planned(result) == expected
    changed = {
        path.relative_to(results).parts[0] for path, time in before.items() if path.stat().st_mtime_ns != time
    }
    assert changed <= {f"{name}.parquet" for name in ("metrics", "comparisons", "strata", "matched")}
    metrics = tables.read(results / "metrics.parquet", "metrics")
    assert set(metrics["encoder"].to_pylist()) == set(encoders)
    page = (results / "report" / "index.html").read_text("utf-8")
    assert all(re.search(rf"\b{name}\b", page) for name in encoders)
    _check_text_embeddings(results)


def _check_text_embeddings(results: Path) -> None:
    """Check that an image, its control and all samples of a prompt have the same embedding: that of its text."""
    drawn = tables.read_parts(sorted(results.glob("synthesized/part-*")), "synthesized").to_pylist()
    vectors = {}
    for path in sorted(results.glob("embeddings/words/queries/part-*")):
        names, values = embedding_tables.read(path)
        vectors |= dict(zip(names, values, strict=True))
    by_prompt: dict[tuple[Any, ...], list[str]] = {}
    for row in drawn:
        key = (row["exemplar_set"], row["prompt_kind"], row["prompt_index"])
        by_prompt.setdefault(key, []).append(row["query_id"])
    assert all(len(names) == 2 for names in by_prompt.values())
    assert all((vectors[one] == vectors[other]).all() for one, other in by_prompt.values())
    exemplars = tables.read(results / "exemplars.parquet", "exemplars").to_pylist()
    encoder = encoder_protocol.load(WORDS, "encoders.words", device="cpu")
    names, values = embedding_tables.read(results / "embeddings" / "words" / "exemplars.parquet")
    assert names == [row["exemplar_id"] for row in exemplars]
    assert (values == encoder.encode([row["caption"] for row in exemplars])).all()
    pool = tables.read_parts(sorted(results.glob("pool/part-*")), "pool", ["image_id", "caption"]).to_pylist()
    captions = {row["image_id"]: row["caption"] for row in pool}
    assert all(row["caption"] == captions[row["image_id"]] for row in exemplars)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "rerun", "kept"),
    [
        (
            {"encoders": {"coarse": {"family": "pixel", "size": 4}}},
            {"embed_pool_part": 2, "embed_queries_part": 2, "embed_exemplars": 1, "rank": 3, "measure": 1},
            {"pool_part", "exemplars", "base_model", "prior", "customize_part", "synthesize_part"},
        ),
        (
            {"synthesis": {"steps": 3}},
            {"synthesize_part": 2, "embed_queries_part": 2, "rank": 3},
            {"pool_part", "exemplars", "prior", "customize_part", "embed_pool_part", "embed_exemplars"},
        ),
    ],
)
def test_a_change_runs_what_uses_it_and_nothing_else(
    run: tuple[Path, subprocess.CompletedProcess[str]],
    tmp_path: Path,
    changes: dict[str, Any],
    rerun: dict[str, int],
    kept: set[str],
) -> None:
    """On a real run; tests/workflow/test_reruns.py tests the change of every key."""
    jobs = planned(snakemake(run[0], config_file(tmp_path / "changed.yaml", **changes), "--dry-run"))
    assert {rule: jobs.get(rule) for rule in rerun} == rerun
    assert not kept & jobs.keys()


@pytest.mark.slow
def test_the_size_of_parts_changes_no_result(
    run: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """One large part instead of two: the same rows, metrics and images, bit for bit."""
    config = config_file(tmp_path / "one_part.yaml", parts={"pool_images": 120, "exemplar_sets": 8})
    result = snakemake(tmp_path, config, "measure")
    assert result.returncode == 0, tail(result)
    two, one = run[0] / "results" / "tiny", tmp_path / "results" / "tiny"
    for name in ("pool", "synthesized"):
        ours = tables.read_parts(sorted((two / name).glob("part-*.parquet")), name)
        theirs = tables.read_parts(sorted((one / name).glob("part-*.parquet")), name)
        assert ours.sort_by(ours.column_names[0]).equals(theirs.sort_by(theirs.column_names[0])), name
    for mapper in ("untuned", "linear-object", "linear-both"):
        where = Path("ranks") / "pixel" / f"{mapper}.parquet"
        order = [("query_id", "ascending"), ("exemplar_id", "ascending")]
        ours, theirs = (tables.read(results / where, "ranks").sort_by(order) for results in (two, one))
        assert ours.equals(theirs), where
    # by pandas, where NaN equals NaN: a single model has no interval
    pd.testing.assert_frame_equal(
        *(tables.read(results / "metrics.parquet", "metrics").to_pandas() for results in (two, one)),
        check_exact=True,
    )
