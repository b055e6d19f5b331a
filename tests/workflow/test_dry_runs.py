"""Dry runs of the workflow: invalid configs, the jobs of a config, and warnings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from attrib_core.common.errors import InputError
from attrib_core.config.load import load_config
from attrib_core.runtime import job_records, snakemake_metadata
from attrib_core.storage import tables
from tests.workflow_fixtures import ROOT, TINY, config_file, own_lines, planned, snakemake, tail


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


def test_a_mistake_in_yaml_is_the_line_that_check_prints(tmp_path: Path) -> None:
    """Snakemake itself would take the last of two equal keys."""
    config = tmp_path / "twice.yaml"
    config.write_text(TINY.read_text("utf-8") + "seed: 8\n", "utf-8")
    result = snakemake(tmp_path, config)
    with pytest.raises(InputError) as caught:
        load_config(config)
    assert result.returncode == 1 and "line 25: duplicate key 'seed'" in str(caught.value)
    assert own_lines(result) == [f"Error in the config: {caught.value}"], tail(result)


@pytest.mark.slow
def test_a_fusion_has_the_data_files_and_the_gpu_of_its_parts(tmp_path: Path) -> None:
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
    output = tail(snakemake(tmp_path, config, "--dry-run"), lines=10_000)
    job = r"rule embed_\w+:\n(?:    .*\n)*?    wildcards: encoder=(\w+).*\n    resources: .*gpu=(\d)"
    assert set(re.findall(job, output)) == {("pixel", "0"), ("both", "1")}, output


@pytest.mark.parametrize("family", ["generated", "folder", "captions"])
@pytest.mark.slow
def test_the_inputs_of_prior_images_depend_on_their_family(tmp_path: Path, family: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dog.png").write_bytes(b"an image")
    section = {"family": family} | ({"path": str(tmp_path / "mine")} if family == "folder" else {})
    # not merged with the section of tiny.yaml, which has options of another family
    config = config_file(tmp_path / "prior.yaml")
    values = yaml.safe_load(config.read_text()) | {"prior": section}
    config.write_text(yaml.safe_dump(values))
    output = tail(snakemake(tmp_path, config, "--dry-run"), lines=10_000)
    job = re.search(r"rule prior:\n    input: (.*)\n(?:    .*\n)*?    resources: .*gpu=(\d)", output)
    assert job is not None, output
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
    assert jobs["pool_part"] == jobs["embed_pool_part"] == 2
    assert jobs["customize_part"] == jobs["synthesize_part"] == jobs["embed_queries_part"] == 2
    assert jobs["tune"] == 2
    assert jobs["rank"] == jobs["index"] == jobs["calibrate"] == 3
    assert jobs["exemplars"] == jobs["base_model"] == jobs["measure"] == jobs["report"] == 1
    assert not list(tmp_path.glob("results/**/*.parquet"))


@pytest.mark.slow
def test_a_broken_link_to_removed_results_is_no_error(tmp_path: Path) -> None:
    (tmp_path / ".snakemake" / "incomplete").mkdir(parents=True)
    (tmp_path / snakemake_metadata.METADATA).symlink_to(Path("..") / snakemake_metadata.IN_RESULTS)
    result = snakemake(tmp_path, TINY, "--dry-run")
    assert result.returncode == 0, tail(result)


def test_the_config_sets_the_number_of_parts_and_seen_exemplars_are_a_warning(tmp_path: Path) -> None:
    changes = {"parts": {"pool_images": 50, "exemplar_sets": 2}, "exemplars": {"held_out_only": False}}
    result = snakemake(tmp_path, config_file(tmp_path / "changed.yaml", **changes), "--dry-run")
    assert result.returncode == 0, tail(result)
    jobs = planned(result)
    assert jobs["pool_part"] == 3
    assert jobs["customize_part"] == 4
    warnings = [line for line in own_lines(result) if line.startswith("Warning:")]
    assert len(warnings) == 1 and "exemplars.held_out_only" in warnings[0]


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
def test_runs_without_metadata_of_snakemake_or_by_an_earlier_version_are_warnings(tmp_path: Path) -> None:
    """A finished job that is recorded but unknown to Snakemake, by code whose modules have moved."""
    description = tmp_path / "results/tiny/base_model.json"
    description.parent.mkdir(parents=True)
    description.write_text("{}")
    written = {"size": 2, "modified": description.stat().st_mtime_ns, "checksum": "x"}
    record = {"rule": "base_model", "wildcards": {}, "params": {"code": "abc"}, "inputs": []}
    path = job_records.record_path(description.parent, "base_model", {})
    tables.write_json(path, record | {"outputs": {"results/tiny/base_model.json": written}})
    moved = {"code": {"attrib_core.base_models.bundled.load": "1"}, "files": {}, "packages": {}}
    job_records.save_coverage(description.parent, "abc", moved)
    result = snakemake(tmp_path, TINY, "base_model", "--dry-run", "--quiet", "rules")
    assert result.returncode == 0, tail(result)
    line, other = [line for line in own_lines(result) if line.startswith("Warning: ")]
    assert line.startswith("Warning: results/tiny: Snakemake has no metadata of 1 of 1 finished jobs")
    assert "copy results/.metadata too" in line
    assert other.startswith("Warning: results/tiny was written by an earlier version of attrib_core")
