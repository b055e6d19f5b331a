"""Synthesized images in the store: kept, shared between runs, and sampled for the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attrib_core.diffusion.pipeline.components import Components
from attrib_core.diffusion.synthesis import generate, report_sample, requests
from attrib_core.storage import tables
from attrib_core.storage.store import claims, pieces, references
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.synthesis_fixtures import OPTIONS, SETS
from tests.storage.claims_fixtures import Holder


def test_finished_sets_are_kept_and_a_damaged_one_is_made_again(
    models: list[dict[str, Any]],
    synthesize: Callable[..., pa.Table],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = synthesize(models)
    made_batches: list[int] = []
    real = generate._batch

    def counted(*given: Any, **options: Any) -> np.ndarray:
        if len(made_batches) == 2:
            raise KeyboardInterrupt
        made_batches.append(1)
        return real(*given, **options)

    monkeypatch.setattr(generate, "_batch", counted)
    with pytest.raises(KeyboardInterrupt):
        synthesize(models, keep=True)
    kept = sorted(tmp_path.glob("store/synthesized/*.parquet"))
    assert len(kept) == 1
    monkeypatch.setattr(
        generate, "_batch", lambda *given, **options: made_batches.append(1) or real(*given, **options)
    )
    assert synthesize(models, keep=True).equals(expected)
    assert len(made_batches) == 2 + 4
    assert synthesize(models, keep=True).equals(expected)
    assert len(made_batches) == 2 + 4
    kept[0].write_bytes(b"damaged")
    assert synthesize(models, keep=True).equals(expected)
    assert len(made_batches) == 2 + 4 + 2
    assert not synthesize(models[:1], keep=True, guidance=2.0).equals(expected.slice(0, 8))


def test_another_run_with_the_same_settings_generates_nothing(
    models: list[dict[str, Any]],
    synthesize: Callable[..., pa.Table],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = synthesize(models, keep=True)
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(generate, "_batch", None)
    assert synthesize(models, keep=True, run=tmp_path / "other").equals(first)
    assert set(references.by_job(tmp_path / "other")) == {"synthesize_part/whole"}


def test_what_another_job_generates_is_left_for_last_and_not_generated(
    models: list[dict[str, Any]],
    synthesize: Callable[..., pa.Table],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = synthesize(models, keep=True)
    folder = tmp_path / "store" / "synthesized"
    own = {
        pieces.read(folder, record.stem)["exemplar_set"][0].as_py(): record.stem
        for record in folder.glob("*.json")
    }
    first = own[models[0]["exemplar_set"]]
    for path in folder.iterdir():
        if path.stem == first:
            path.rename(tmp_path / path.name)
        else:
            path.unlink()
    other, drawn = Holder(folder, first), list[int]()
    real = generate._batch
    monkeypatch.setattr(
        generate, "_batch", lambda *given, **options: drawn.append(1) or real(*given, **options)
    )

    def slept(_: float) -> None:
        assert sum(1 for _ in folder.glob("*.json")) == len(SETS) - 1, "all others are drawn before"
        for suffix in (".parquet", ".json"):
            (tmp_path / f"{first}{suffix}").rename(folder / f"{first}{suffix}")
        other.end()

    monkeypatch.setattr(claims.time, "sleep", slept)
    assert synthesize(models, keep=True).equals(expected)
    assert len(drawn) == 4, "batches of five for two sets of eight images"


def test_the_sample_is_of_each_set_and_by_seed(
    models: list[dict[str, Any]], synthesize: Callable[..., pa.Table], tmp_path: Path
) -> None:
    """Customized images that have a control, with these; a larger sample begins with the smaller one."""
    path = tmp_path / "part.parquet"
    tables.write(path, "synthesized", whole := synthesize(models, control_samples_each=1))
    rows = {row["query_id"]: row for row in whole.to_pylist()}
    before: set[str] = set()
    for samples in (1, 2, 9):
        found = pa.concat_tables(report_sample.sample_tables(path, samples=samples, seed=3)).to_pylist()
        assert all(row == rows[row["query_id"]] for row in found)
        for model in models:
            own = [row for row in found if row["exemplar_set"] == model["exemplar_set"]]
            customized = {
                report_sample.image_identity(row) for row in own if row["condition"] == requests.CUSTOMIZED
            }
            controls = {
                report_sample.image_identity(row) for row in own if row["condition"] == requests.CONTROL
            }
            assert customized == controls and len(customized) == min(samples, 2)
        names = {row["query_id"] for row in found}
        assert before <= names
        before = names
    others = [
        {
            row["query_id"]
            for table in report_sample.sample_tables(path, samples=1, seed=seed)
            for row in table.to_pylist()
        }
        for seed in range(8)
    ]
    assert any(others[0] != one for one in others)


@pytest.mark.parametrize("keep", ["all", "sample"])
def test_the_scripts(
    keep: str,
    models: list[dict[str, Any]],
    loaded: Components,
    tmp_path: Path,
    run_script: Callable[..., None],
) -> None:
    tables.write(tmp_path / "models.parquet", "models", models[2:])
    tables.write(tmp_path / "prompts.parquet", "prompts", fixtures.prompt_rows(SETS))
    tables.write_json(tmp_path / "base_model.json", loaded.base.as_json())
    settings = {name: OPTIONS[name] for name in ("steps", "guidance", "image_format", "quality")}
    output = tmp_path / "synthesized" / "part-0000.parquet"
    run_script(
        "synthesize_part",
        input={name: str(tmp_path / f"{name}.parquet") for name in ("models", "prompts")}
        | {"base_model": str(tmp_path / "base_model.json")},
        output={"images": str(output), "queries": str(output.with_name("queries-0000.parquet"))},
        params={
            "run": str(tmp_path / "run"),
            "keep": keep,
            "settings": settings,
            "samples": {"samples_each": 1, "control_samples_each": 1},
            "batch": OPTIONS["batch"],
            "seed": 9,
            "image_code": "x",
        },
        wildcards={"part": "0000"},
    )
    table = tables.read(output, "synthesized")
    assert table["condition"].to_pylist() == [requests.CUSTOMIZED] * 2 + [requests.CONTROL] * 2
    queries = tables.read(output.with_name("queries-0000.parquet"), "queries")
    assert queries.equals(table.select(queries.column_names))

    def kept() -> list[int]:
        return [path.stat().st_ino for path in tmp_path.glob("store/synthesized/*.parquet")]

    # the store has the part itself under another name, or the piece until the sample is drawn
    assert len(kept()) == 1 and (kept() == [output.stat().st_ino]) == (keep == "all")
    run_script(
        "sample_part",
        input={"images": str(output)},
        output={"sample": str(output.with_name("sample-0000.parquet"))},
        params={"run": str(tmp_path / "run"), "keep": keep, "shown": {"samples": 1}, "seed": 9},
        wildcards={"part": "0000"},
    )
    assert kept() == ([output.stat().st_ino] if keep == "all" else [])
    shown = tables.read(output.with_name("sample-0000.parquet"), "synthesized")
    assert shown["condition"].to_pylist() == [requests.CUSTOMIZED, requests.CONTROL]
