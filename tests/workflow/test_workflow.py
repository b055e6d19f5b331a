"""The workflow itself: a tiny real run, what reruns when, and what a bad config says."""

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
import yaml

from attrib_core.cli.main import main
from attrib_core.config.load import load_config_without_source, plain
from attrib_core.config.planning import expected_jobs, plan, status
from attrib_core.features.embedding import embedding_tables, encoder_protocol
from attrib_core.runtime import job_records, snakemake_metadata
from attrib_core.storage import tables
from tests.workflow_fixtures import ROOT, TINY, config_file, own_lines, planned, snakemake, tail

ENCODERS = 1
HEADS = 2
MAPPERS = HEADS + 1
POOL_PARTS = 2
SET_PARTS = 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"synthesis": {"stepz": 3}}, ["synthesis.stepz", "'steps'"]),
        (
            {"encoders": {"mine": {"family": "fusion", "parts": {"y": {"family": "palete"}}}}},
            ["encoders.mine.parts.y.family", "'palete'", "'palette'"],
        ),
        ({"pool": {"images": 10_000_000}}, ["pool.images", "10000000"]),
    ],
)
def test_a_bad_config_is_one_line_before_anything_starts(
    tmp_path: Path, changes: dict[str, Any], expected: list[str]
) -> None:
    result = snakemake(tmp_path, config_file(tmp_path / "bad.yaml", **changes))
    assert result.returncode == 1
    assert len(own_lines(result)) == 1, tail(result)
    for words in expected:
        assert words in own_lines(result)[0]
    assert "Traceback" not in result.stdout + result.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_a_fusion_has_the_files_and_the_gpu_of_its_parts(tmp_path: Path) -> None:
    network = {"family": "timm", "architecture": "test_efficientnet", "weights": str(tmp_path / "w.pth")}
    encoders = {
        "pixel": {"family": "fusion", "parts": {"a": {"family": "pixel"}, "b": {"family": "palette"}}},
        "both": {"family": "fusion", "parts": {"a": {"family": "pixel"}, "y": network}},
    }
    config = config_file(tmp_path / "fusion.yaml", encoders=encoders)
    missing = snakemake(tmp_path, config, "--dry-run")
    assert missing.returncode == 1
    assert "encoders.both.parts.y: weights: no file" in own_lines(missing)[-1], tail(missing)
    (tmp_path / "w.pth").write_bytes(b"weights")
    told = tail(snakemake(tmp_path, config, "--dry-run"), lines=10_000)
    job = r"rule embed_\w+:\n(?:    .*\n)*?    wildcards: encoder=(\w+).*\n    resources: .*gpu=(\d)"
    assert set(re.findall(job, told)) == {("pixel", "0"), ("both", "1")}, told


@pytest.mark.parametrize("family", ["generated", "folder", "captions"])
@pytest.mark.slow
def test_prior_images_wait_for_what_they_are_taken_from(tmp_path: Path, family: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dog.png").write_bytes(b"an image")
    section = {"family": family} | ({"path": str(tmp_path / "mine")} if family == "folder" else {})
    # not merged with the section of tiny.yaml, whose options are another family's
    config = config_file(tmp_path / "prior.yaml")
    values = yaml.safe_load(config.read_text()) | {"prior": section}
    config.write_text(yaml.safe_dump(values))
    told = tail(snakemake(tmp_path, config, "--dry-run"), lines=10_000)
    job = re.search(r"rule prior:\n    input: (.*)\n(?:    .*\n)*?    resources: .*gpu=(\d)", told)
    assert job is not None, told
    names = [Path(name).stem for name in job[1].split(", ")]
    assert (
        names
        == {
            "generated": ["exemplars", "base_model"],
            "folder": ["exemplars"],
            "captions": ["exemplars", "part-0000", "part-0001", "excluded"],
        }[family]
    )
    assert job[2] == ("1" if family == "generated" else "0")


def test_a_dry_run_counts_the_jobs(tmp_path: Path) -> None:
    result = snakemake(tmp_path, TINY, "--dry-run")
    assert result.returncode == 0, tail(result)
    jobs = planned(result)
    assert jobs["pool_part"] == POOL_PARTS
    assert jobs["customize_part"] == jobs["synthesize_part"] == SET_PARTS
    assert jobs["embed_pool_part"] == POOL_PARTS * ENCODERS
    assert jobs["embed_queries_part"] == SET_PARTS * ENCODERS
    assert jobs["tune"] == ENCODERS * HEADS
    assert jobs["rank"] == jobs["index"] == jobs["calibrate"] == ENCODERS * MAPPERS
    assert jobs["exemplars"] == jobs["base_model"] == jobs["measure"] == jobs["report"] == 1
    assert not list(tmp_path.glob("results/**/*.parquet"))


@pytest.mark.slow
def test_a_run_begins_anew_where_results_were_removed_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / ".snakemake" / "incomplete").mkdir(parents=True)
    (tmp_path / snakemake_metadata.METADATA).symlink_to(Path("..") / snakemake_metadata.IN_RESULTS)
    result = snakemake(tmp_path, TINY, "--dry-run")
    assert result.returncode == 0, tail(result)


def test_the_number_of_parts_follows_from_the_config_and_seen_exemplars_are_a_warning(tmp_path: Path) -> None:
    changes = {"parts": {"pool_images": 50, "exemplar_sets": 2}, "exemplars": {"held_out_only": False}}
    result = snakemake(tmp_path, config_file(tmp_path / "changed.yaml", **changes), "--dry-run")
    assert result.returncode == 0, tail(result)
    jobs = planned(result)
    assert jobs["pool_part"] == 3
    assert jobs["customize_part"] == 4
    warnings = [line for line in own_lines(result) if line.startswith("Warning:")]
    assert len(warnings) == 1 and "exemplars.held_out_only" in warnings[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.CompletedProcess[str]]]:
    """A finished tiny run: its folder, and what the call printed."""
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
    assert stages["jobs"].sum() == len(list(results.glob("benchmarks/**/*.tsv"))) - 1  # but the report
    assert set(metrics["condition"].to_pylist()) == {"customized", "control"}
    assert len(list(results.glob("../store/deltas/*.token.safetensors"))) == 7
    assert not list(results.parent.rglob("*.tmp"))
    _what_was_planned_was_made(results)


def _what_was_planned_was_made(results: Path) -> None:
    """The plan of the config, to the byte where it claims that, and every stage has a rate afterwards."""
    config = plain(load_config_without_source(TINY))
    found = plan.estimate(config, run=results)
    assert all(stage.rate and stage.rate.source == f"measured in {results}" for stage in found.stages)
    sizes = {stage.name: stage.size for stage in found.stages}
    deltas = sum(path.stat().st_size for path in results.glob("../store/deltas/*.safetensors"))
    assert sizes["customize"].bytes == (deltas, deltas)
    heads = sum(path.stat().st_size for path in results.glob("mappers/pixel/*.safetensors"))
    assert sizes["tune"].bytes[0] <= heads < sizes["tune"].bytes[0] + 2 * 4096  # headers, with notes
    for name, folder in (("index", "indices"), ("embed pixel", "embeddings/pixel")):
        used = sum(path.stat().st_size for path in results.glob(f"{folder}/**/*") if path.suffix != ".json")
        assert 0 < used < 1.5 * sizes[name].bytes[1]
    made = tables.read_parts(sorted(results.glob("models/part-*")), "models")
    assert sum(made["steps"].to_pylist()) == found.counts.training_steps
    assert made.num_rows == found.counts.models
    drawn = tables.read_parts(sorted(results.glob("synthesized/part-*")), "synthesized", ["condition"])
    conditions = drawn["condition"].to_pylist()
    assert conditions.count("customized") == found.counts.customized
    assert conditions.count("control") == found.counts.control
    exemplars = tables.read(results / "exemplars.parquet", "exemplars", ["exemplar_id"]).num_rows
    assert found.counts.exemplars[0] <= exemplars <= found.counts.exemplars[1]
    prior = tables.read(results / "prior" / "images.parquet", "prior", ["seed"]).num_rows
    assert found.counts.prior[0] <= prior <= found.counts.prior[1]
    said = list(status.lines(results, config))
    number = len(list(expected_jobs.jobs(found.counts)))
    assert said[0] == f"{results}: {number} of {number} jobs are done"
    assert not [line for line in said if line.startswith(("time:", "started:", "failed:", "note:"))]


@pytest.mark.slow
def test_a_image_of_a_finished_run_is_attributed(
    run: tuple[Path, subprocess.CompletedProcess[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    results = run[0] / "results" / "tiny"
    sample = tables.read(next(results.glob("synthesized/sample-*.parquet")), "synthesized", ["image"])
    image = run[0] / "asked.png"
    image.write_bytes(sample["image"][0]["bytes"].as_py())
    assert main(["attribute", str(image), "--run", str(results), "--out", str(run[0] / "found.csv")]) == 0
    assert capsys.readouterr().out.count("none of these") >= 2
    assert len(pd.read_csv(run[0] / "found.csv")) == 2 * 10  # kinds, candidates


@pytest.mark.slow
def test_a_second_call_has_nothing_to_do(run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    again = snakemake(run[0], TINY)
    assert again.returncode == 0, tail(again)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_memory_and_minutes_of_every_rule_grow_with_each_attempt() -> None:
    text = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "rules").glob("*.smk")))
    rules = {part.partition(":")[0]: part for part in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]}
    assert {"pool_part", "sample_part", "report"} <= set(rules)
    for resource in ("mem_mb", "runtime"):
        assert [name for name, part in rules.items() if f" {resource}=growing(" not in part] == []


@pytest.mark.slow
def test_the_linter_of_snakemake_finds_nothing(tmp_path: Path) -> None:
    result = snakemake(tmp_path, TINY, "--lint")
    assert result.returncode == 0, tail(result)
    assert "good condition" in result.stdout + result.stderr


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
def test_a_run_that_came_without_the_notes_of_snakemake_is_told_about(tmp_path: Path) -> None:
    """One finished job of which the records know and Snakemake does not."""
    made = tmp_path / "results/tiny/base_model.json"
    made.parent.mkdir(parents=True)
    made.write_text("{}")
    written = {"size": 2, "modified": made.stat().st_mtime_ns, "checksum": "x"}
    record = {"rule": "base_model", "wildcards": {}, "params": {}, "inputs": []}
    place = job_records.record_path(made.parent, "base_model", {})
    tables.write_json(place, record | {"outputs": {"results/tiny/base_model.json": written}})
    said = snakemake(tmp_path, TINY, "base_model", "--dry-run", "--quiet", "rules")
    assert said.returncode == 0, tail(said)
    (line,) = [line for line in own_lines(said) if line.startswith("Warning: ")]
    assert line.startswith("Warning: results/tiny: Snakemake has no metadata of 1 of 1 finished jobs")
    assert "copy results/.metadata too" in line


@pytest.mark.slow
def test_a_copy_of_the_results_is_finished_too(
    run: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Copied as it comes, with new times and without the folder that Snakemake keeps."""
    shutil.copytree(run[0] / "results", tmp_path / "results", copy_function=shutil.copyfile)
    again = snakemake(tmp_path, TINY)
    assert again.returncode == 0, tail(again)
    assert "Nothing to be done" in again.stdout + again.stderr


WORDS = {"family": "text", "base_model": {"family": "bundled"}}


@pytest.mark.slow
def test_an_encoder_and_the_fusion_of_two_are_added_by_config(
    run: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The new one reads the prompt's text; only its own jobs and the fusion's run, and the report shows both."""
    shutil.copytree(run[0] / "results", tmp_path / "results", copy_function=shutil.copy2)
    results = tmp_path / "results" / "tiny"
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.parquet")}
    pixel = {"family": "pixel", "size": 8}
    parts = {"look": pixel, "words": WORDS | {"weight": 0.5}}
    encoders = {"pixel": pixel, "words": WORDS, "both": {"family": "fusion", "parts": parts}}
    result = snakemake(tmp_path, config_file(tmp_path / "more.yaml", encoders=encoders))
    assert result.returncode == 0, tail(result)
    each = {
        "embed_pool_part": POOL_PARTS,
        "embed_queries_part": SET_PARTS,
        "embed_exemplars": 1,
        "tune": HEADS,
    }
    each |= dict.fromkeys(("index", "rank", "calibrate"), MAPPERS)
    expected = {rule: 2 * number for rule, number in each.items()} | {"measure": 1, "report": 1}
    assert planned(result) == expected
    made = {
        path.relative_to(results).parts[0] for path, time in before.items() if path.stat().st_mtime_ns != time
    }
    assert made <= {f"{name}.parquet" for name in ("metrics", "comparisons", "strata", "matched")}
    metrics = tables.read(results / "metrics.parquet", "metrics")
    assert set(metrics["encoder"].to_pylist()) == set(encoders)
    page = (results / "report" / "index.html").read_text("utf-8")
    assert all(re.search(rf"\b{name}\b", page) for name in encoders)
    _what_is_said_is_the_prompt_without_the_token(results)


def _what_is_said_is_the_prompt_without_the_token(results: Path) -> None:
    """By words alone an image and its control are the same, and so are the samples of a prompt."""
    drawn = tables.read_parts(sorted(results.glob("synthesized/part-*")), "synthesized").to_pylist()
    vectors = {}
    for path in sorted(results.glob("embeddings/words/queries/part-*")):
        names, values = embedding_tables.read(path)
        vectors |= dict(zip(names, values, strict=True))
    said: dict[tuple[Any, ...], list[str]] = {}
    for row in drawn:
        key = (row["exemplar_set"], row["prompt_kind"], row["prompt_index"])
        said.setdefault(key, []).append(row["query_id"])
    assert all(len(names) == 2 for names in said.values())
    assert all((vectors[one] == vectors[other]).all() for one, other in said.values())
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
            {"metrics": {"recall_ks": [1, 2]}},
            {"measure": 1, "report": 1},
            {"rank", "calibrate", "tune", "embed_pool_part", "customize_part", "synthesize_part"},
        ),
        (
            {"calibration": {"shown": 9}},
            {"calibrate": 3, "report": 1},
            {"measure", "rank", "tune", "embed_pool_part", "customize_part", "synthesize_part"},
        ),
        (
            {"ranking": {"top_k": 11}},
            {"rank": 3, "calibrate": 3, "measure": 1},
            {"tune", "index", "embed_pool_part", "customize_part", "synthesize_part"},
        ),
        (
            {"mapper": {"trained_on": ["both"], "epochs": 5}},
            {"measure": 1, "report": 1},
            {"tune", "rank", "index", "calibrate", "embed_pool_part", "customize_part", "synthesize_part"},
        ),
        (
            {"synthesis": {"steps": 3}},
            {"synthesize_part": 2, "embed_queries_part": 2, "rank": 3},
            {"pool_part", "exemplars", "prior", "customize_part", "embed_pool_part", "embed_exemplars"},
        ),
    ],
)
def test_a_change_reruns_what_uses_it_and_nothing_else(
    run: tuple[Path, subprocess.CompletedProcess[str]],
    tmp_path: Path,
    changes: dict[str, Any],
    rerun: dict[str, int],
    kept: set[str],
) -> None:
    jobs = planned(snakemake(run[0], config_file(tmp_path / "changed.yaml", **changes), "--dry-run"))
    assert {rule: jobs.get(rule) for rule in rerun} == rerun
    assert not kept & jobs.keys()


@pytest.mark.slow
def test_the_size_of_parts_changes_no_result(
    run: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """One large part each in place of two: same rows, same numbers, same images, bit for bit."""
    config = config_file(tmp_path / "whole.yaml", parts={"pool_images": 120, "exemplar_sets": 8})
    result = snakemake(tmp_path, config)
    assert result.returncode == 0, tail(result)
    cut, whole = run[0] / "results" / "tiny", tmp_path / "results" / "tiny"
    for name in ("pool", "synthesized"):
        ours = tables.read_parts(sorted((cut / name).glob("part-*.parquet")), name)
        theirs = tables.read_parts(sorted((whole / name).glob("part-*.parquet")), name)
        assert ours.sort_by(ours.column_names[0]).equals(theirs.sort_by(theirs.column_names[0])), name
    for mapper in ("untuned", "linear-object", "linear-both"):
        where = Path("ranks") / "pixel" / f"{mapper}.parquet"
        order = [("query_id", "ascending"), ("exemplar_id", "ascending")]
        ours, theirs = (tables.read(results / where, "ranks").sort_by(order) for results in (cut, whole))
        assert ours.equals(theirs), where
    # by pandas, to which NaN equals NaN: a single model has no interval
    pd.testing.assert_frame_equal(
        *(tables.read(results / "metrics.parquet", "metrics").to_pandas() for results in (cut, whole)),
        check_exact=True,
    )
