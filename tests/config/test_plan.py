"""Commands `plan` and `status`: rates from runs and from the reference, output, states of jobs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attrib_core.cli.main import main
from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.config.load import load_config_without_source, plain
from attrib_core.config.planning import base_model_facts, counts, expected_jobs, plan, rates
from attrib_core.config.planning.counts import Counts
from attrib_core.storage import tables
from tests.config.planning_fixtures import stable_diffusion
from tests.workflow_fixtures import config_file

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "tiny.yaml"
CONFIGS = ("config.yaml", "tests/tiny.yaml", "config/paper.yaml")


@pytest.fixture
def config() -> dict[str, Any]:
    return plain(load_config_without_source(TINY))


@pytest.fixture
def number(config: dict[str, Any]) -> Counts:
    return counts.count(config)


def rows(name: str, count: int, **values: Any) -> list[dict[str, Any]]:
    """Rows of a table with dummy values in all other columns."""
    blank: dict[str, Any] = {"string": "x", "bool": True}
    found: dict[str, Any] = {}
    for field in tables.schema(name):
        image = {"bytes": b"x", "path": None} if field.type.equals(tables.IMAGE) else 0
        found[field.name] = blank.get(str(field.type), image)
    return [found | values for _ in range(count)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A stopped run of the tiny config: pool, exemplars, prior and the first part of models are done."""
    folder = tmp_path / "results" / "tiny"
    base = families.load("base_models", "bundled", {})
    tables.write_json(folder / "base_model.json", base.as_json())
    tables.write(folder / "pool/part-0000.parquet", "pool", rows("pool", 60))
    tables.write(folder / "pool/part-0001.parquet", "pool", rows("pool", 60))
    tables.write(folder / "exemplars.parquet", "exemplars", rows("exemplars", 12))
    tables.write(folder / "prior/images.parquet", "prior", rows("prior", 8))
    cost = {"threads": 1, "device": "cpu", "device_name": "Plain CPU", "peak_memory": 10**9}
    tables.write(
        folder / "models/part-0000.parquet",
        "models",
        rows("models", 3, steps=2, seconds=1.0, **cost) + rows("models", 1, steps=4, seconds=2.0, **cost),
    )
    vectors = np.ones((12, 192), np.float32)
    with tables.writer(folder / "embeddings/pixel/exemplars.parquet", tables.embedding_schema(192)) as sink:
        sink.write(tables.embedding_table([str(number) for number in range(12)], vectors))
    for name, seconds in {
        "pool_part/0000": "3.0", "pool_part/0001": "9.0", "base_model": "1", "exemplars": "2", "prior": "4.8",
        "customize_part/0000": "99", "customize_part/0001": "50", "embed_exemplars/pixel": "NA",
    }.items():  # fmt: skip
        path = folder / "benchmarks" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t0.0\n")
    logs = {
        "customize_part/0001": "2026-01-02 10:00:00,123 DEBUG attrib_core: job customize_part 0001\n"
        "2026-01-02 10:00:09,123 INFO attrib_core: 40 of 300 steps of 2 sets, 2.8/s, 5.3 s left\n",
        "embed_pool_part/pixel-0000": "2026-01-02 10:00:00,123 INFO attrib_core: 5 of 60 images\n"
        "2026-01-02 10:00:01,123 DEBUG attrib_core: traceback\nTraceback (most recent call last):\n  oh\n"
        "2026-01-02 10:00:01,124 ERROR attrib_core: error: pool/part-0000.parquet: image 'a' has no bytes\n",
        "embed_pool_part/pixel-0001": "",
        "tune/pixel-linear-both": "2026-01-02 10:00:00,123 DEBUG attrib_core: done in 3 s\n",
    }
    for name, text in logs.items():
        path = folder / "logs" / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_rates_of_a_stopped_run(run: Path, config: dict[str, Any], number: Counts) -> None:
    base = base_model_facts.read(config["base_model"])
    found = rates.from_run(run, number, config, base)
    amounts = {stage: rate.amount for stage, rate in found.seconds.items()}
    assert amounts == {
        "pool": pytest.approx(12 / 120),
        "base model": 1,
        "exemplars": 2,
        "prior": pytest.approx(4.8 / (8 * 2)),
        "customize": pytest.approx((3 * 1.0 + 2.0) / ((3 * 2 + 4) * 2)),
    }
    assert found.seconds["customize"].device == "Plain CPU, 1 thread a job"
    assert found.seconds["pool"].device == "that run's machine"
    written = sum(path.stat().st_size for path in run.glob("pool/part-*.parquet"))
    assert found.bytes["pool"].amount == written / 120
    assert found.bytes["image"].amount == (run / "prior/images.parquet").stat().st_size / 8


def test_rates_of_another_base_model_are_left_out(
    run: Path, config: dict[str, Any], number: Counts, tmp_path: Path
) -> None:
    other = base_model_facts.read({"family": "folder", "path": str(stable_diffusion(tmp_path / "sd"))})
    for base in (other, None):
        found = rates.from_run(run, number, config, base)
        assert set(found.seconds) == {"pool", "base model", "exemplars"} and set(found.bytes) == {"pool"}
        assert "may have another base model" in found.note
    with pytest.raises(InputError, match="no run with measured times"):
        rates.from_run(tmp_path, number, config, None)


def test_reference_rates_apply_only_to_their_settings() -> None:
    def known(**changes: Any) -> set[str]:
        given = plain(load_config_without_source(changes))
        base, _ = base_model_facts.try_read(given["base_model"])
        return set(rates.reference(given, base).seconds)

    assert known() == {
        "pool",
        "prior",
        "customize",
        "synthesize",
        "embed pixel",
        "embed layout",
        "embed look",
    }
    source = {"family": "openmoji", "size": 128, "media_each": 3, "style_objects": 12}
    assert "pool" not in known(pool={"source": source})
    assert "customize" not in known(customizer={"family": "lora"})
    lite = {"family": "timm", "architecture": "tf_efficientnet_lite0", "weights": "efficientnet-lite0"}
    assert "embed one" in known(encoders={"one": lite})
    assert "embed one" not in known(encoders={"one": lite | {"size": 224}})
    parts = {"a": {"family": "palette"}, "b": lite | {"stages": [0]}}
    assert "embed one" not in known(encoders={"one": {"family": "fusion", "parts": parts}})


def test_every_reference_rate_has_a_source() -> None:
    import tomllib

    for entry in tomllib.loads(rates.REFERENCE.read_text("utf-8"))["rates"]:
        assert ("seconds" in entry) != ("bytes" in entry) and entry["source"] and entry["when"]
        assert ("seconds" in entry) == ("device" in entry)
        if "docs/benchmarks.md" in entry["source"]:
            assert not entry.get("published", False)


def test_figures_of_the_publication_are_marked(tmp_path: Path) -> None:
    folder = str(stable_diffusion(tmp_path))
    settings = {
        "base_model": {"family": "folder", "path": folder},
        "customizer": {"family": "custom_diffusion", "steps": 250, "style_steps": 250, "exemplar_batch": 4,
                       "prior_batch": 4},
    }  # fmt: skip
    seen = plan.estimate(plain(load_config_without_source(settings)))
    (stage,) = (stage for stage in seen.stages if stage.name == "customize")
    # 6 minutes of 2 A100 a model
    assert stage.seconds == (pytest.approx(64 * 720), pytest.approx(64 * 720))
    assert stage.rate is not None and stage.rate.device == "an A100"
    output = "\n".join(plan.lines(seen))
    assert "figure of the publication, not measured by us" in output and "could not be checked" not in output
    assert "time in all on an A100, of what is known: 12.8 h" in output
    settings["base_model"] = {"family": "folder", "path": "/nowhere"}
    output = "\n".join(plan.lines(plan.estimate(plain(load_config_without_source(settings)))))
    assert (
        "valid if the base model is Stable Diffusion v1 at 512 pixels, which could not be checked" in output
    )
    assert (
        "not known: shapes of the base model: base_model: /nowhere/model_index.json: no such file" in output
    )


@pytest.mark.parametrize("path", CONFIGS)
def test_plan_prints_for_every_config_of_the_repository(path: str) -> None:
    """In a separate process: without slow imports, even if weights and images are missing."""
    words = (
        f"import sys; from attrib_core.cli.main import main; code = main(['plan', '--config', {path!r}]); "
    )
    words += "assert not {'torch', 'timm', 'snakemake'} & set(sys.modules), 'heavy'; sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.startswith(f"{path}\n  run: results/")
    for words in ("training steps: ", "device-hours", "bytes in all", "customize"):
        assert words in done.stdout


def test_plan_of_the_demo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["plan"]) == 0
    output = capsys.readouterr().out
    for words in (
        "exemplar sets: 64 (48 of objects, 16 of styles), of 112 to 176 exemplars",
        "training steps: 12,480 (160 each of objects, 300 each of styles)",
        "images: 1,536 (1,024 customized, 512 of the control)",
        "64 models, 12,480 steps of 4 images  25.3 MB",
        "not known: time of base model, exemplars, sample, tune, index",
        "images: png, all are kept",
    ):
        assert words in output, output


def test_plan_uses_the_rates_of_a_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(config_file(tmp_path / "long.yaml", customizer={"style_steps": 300}))
    assert main(["plan", "--config", config, "--rates", str(run)]) == 0
    output = capsys.readouterr().out
    # 908 steps of 2 images at a quarter of a second
    assert "7 models, 908 steps of 2 images" in output and "0.126 h" in output
    assert f"rate: measured in {run}" in output and "Plain CPU, 1 thread a job" in output
    assert main(["plan", "--config", config, "--rates", str(run / "nowhere")]) == 2
    assert "no run with measured times" in capsys.readouterr().err


def test_status_of_a_stopped_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(config_file(tmp_path / "long.yaml", customizer={"style_steps": 300}))
    assert main(["status", str(run), "--config", config]) == 0
    output = capsys.readouterr().out
    lines = {line.split("  ")[1].strip(): line for line in output.splitlines() if line.startswith("  ")}
    assert "2 of 2" in lines["pool"] and "1 of 2" in lines["customize"] and "0 of 2" in lines["synthesize"]
    assert "1 of 5" in lines["embed pixel"] and "0 of 2" in lines["tune"]
    planned = list(expected_jobs.jobs(counts.count(plain(load_config_without_source(TINY)))))
    assert output.startswith(f"{run}: 7 of {len(planned)} jobs are done\n")
    # half of 908 steps of 2 images at a quarter of a second, and nothing else has a rate
    assert (
        "time: 0.0631 h of one job at a time to come, without synthesize, sample, embed pixel, tune" in output
    )
    assert "started: customize_part/0001: 40 of 300 steps of 2 sets, 2.8/s, 5.3 s left (" in output
    assert "started: embed_pool_part/pixel-0001: no message yet" in output
    failed = "failed: embed_pool_part/pixel-0000: error: pool/part-0000.parquet: image 'a' has no bytes"
    assert failed in output.splitlines()
    assert "tune/" not in output, "a finished job whose output was removed is waiting"
    used = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    assert f"bytes: {plan.megabytes(used)} so far" in output


def test_status_of_a_folder_that_is_no_run_of_the_config(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(run / "nowhere"), "--config", str(TINY)]) == 2
    assert "no such folder; expected that of a run, like results/tiny" in capsys.readouterr().err
    assert main(["status", str(run), "--config", str(ROOT / "config.yaml")]) == 2
    assert "the config is of run 'demo'; name the config of this run" in capsys.readouterr().err


def test_status_before_the_first_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    assert main(["status", str(folder), "--config", str(TINY)]) == 0
    output = capsys.readouterr().out
    assert ": 0 of " in output and "bytes: 0 B so far" in output and "not measured yet" in output


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_600, "1 MB"),
        (25_261_568, "25.3 MB"),
        (2.4e12, "2.4 TB"),
    ],
)
def test_format_of_bytes(amount: float, words: str) -> None:
    assert plan.megabytes(int(amount)) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "<0.001 h"), (3.6, "0.001 h"), (493, "0.137 h"), (3600 * 23.46, "23.5 h"), (3600 * 1487, "1,490 h")],
)
def test_format_of_hours(seconds: float, words: str) -> None:
    assert plan.hours(seconds) == words
