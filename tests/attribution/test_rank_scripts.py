"""The scripts rank, measure and calibrate, one after the other on the same generated files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attrib_core.attribution.calibration.calibrators import CALIBRATORS
from attrib_core.features.heads import heads
from attrib_core.storage import tables
from tests.attribution.ranking_fixtures import World, world, write_parts

IMAGE = {"bytes": b"", "path": None}


def write_run(folder: Path, generated: World) -> dict[str, Any]:
    """Write all inputs of the three scripts."""
    tables.write(
        folder / "exemplars.parquet",
        "exemplars",
        [
            {
                "exemplar_id": f"{name}-e{i}",
                "exemplar_set": name,
                "image_id": f"{name}-e{i}",
                "image": IMAGE,
                "caption": "a thing",
                "kind": "style" if len(vectors) > 1 else "object",
                "category": f"category {number}",
                "subject": None,
                "style": None,
                "split": "validation" if number % 2 else "test",
                "seen": number % 3 == 0,
            }
            for number, (name, vectors) in enumerate(generated.exemplars.items())
            for i in range(len(vectors))
        ],
    )
    tables.write(
        folder / "excluded.parquet",
        "excluded",
        [{"image_id": row, "reason": "exemplar", "exemplar_id": "s00-e0"} for row in generated.pool_ids[:3]],
    )
    rows = []
    for number, row in enumerate(generated.query_rows().to_pylist()):
        condition = "control" if number % 4 == 3 else "customized"
        rest = {"model_key": "m", "prompt_index": 0, "sample_index": number, "prompt": "", "seed": 1}
        rows.append({**row, "condition": condition, **rest})
    tables.write(folder / "synthesized" / "queries-0000.parquet", "queries", rows[:9])
    tables.write(folder / "synthesized" / "queries-0001.parquet", "queries", rows[9:])
    dim = generated.pool.shape[1]
    head = heads.Linear(np.eye(dim, dtype=np.float32), np.zeros(dim, np.float32))
    heads.save(folder / "linear.safetensors", heads.Heads(head, head), {})
    exemplars = np.concatenate(list(generated.exemplars.values()))
    queries = np.concatenate(list(generated.queries.values()))
    return {
        "pool": [str(path) for path in write_parts(folder / "pool", generated.pool_ids, generated.pool, 70)],
        "queries": [
            str(path) for path in write_parts(folder / "queries", [r["query_id"] for r in rows], queries, 9)
        ],
        "exemplar_embeddings": str(
            write_parts(
                folder / "own", generated.exemplar_rows().column("exemplar_id").to_pylist(), exemplars, 999
            )[0]
        ),
        "query_rows": [str(folder / "synthesized" / f"queries-{part:04d}.parquet") for part in range(2)],
        "exemplars": str(folder / "exemplars.parquet"),
        "excluded": str(folder / "excluded.parquet"),
    }


def test_from_embeddings_to_metrics_and_soft_scores(run_script: Callable[..., None], tmp_path: Path) -> None:
    given = write_run(tmp_path, world(1, rows=200, dim=12, set_sizes=[1, 1, 3, 2, 1, 1], queries_each=4))
    settings = {"top_k": 10, "bins": 64}
    blocks = {"query_block": 5, "pool_block": 50, "query_group": 8}
    ranks = {}
    for mapper in ("untuned", "linear"):
        outputs = {name: str(tmp_path / f"{name}-{mapper}.parquet") for name in ("ranks", "candidates")}
        ranks[mapper] = outputs
        run_script(
            "rank",
            input={**given, "mapper": [] if mapper == "untuned" else [str(tmp_path / "linear.safetensors")]},
            output=outputs,
            params={"settings": settings, "blocks": blocks},
            wildcards={"encoder": "pixel", "mapper": mapper},
        )
    untuned, linear = (tables.read(Path(ranks[mapper]["ranks"]), "ranks") for mapper in ("untuned", "linear"))
    assert len(untuned) == 4 * 9 and untuned.column("n_distractors")[0].as_py() == 197
    counts = ["query_id", "exemplar_id", "n_above", "n_tied", "n_siblings_above", "n_siblings_tied"]
    assert untuned.select(counts).equals(linear.select(counts)), "the head maps to the same but for rounding"

    outputs = {
        name: str(tmp_path / f"{name}.parquet") for name in ("metrics", "comparisons", "strata", "matched")
    }
    run_script(
        "measure",
        input={"ranks": [one["ranks"] for one in ranks.values()], "exemplars": given["exemplars"]},
        output=outputs,
        params={
            "settings": {"recall_ks": [5], "bootstrap": 20, "ties": "half", "alike": [["fruit", "bird"]]},
            "seed": 1,
        },
    )
    measured = tables.read(Path(outputs["metrics"]), "metrics")
    assert set(measured.column("condition").to_pylist()) == {"customized", "control"}
    assert len(tables.read(Path(outputs["strata"]), "strata"))
    assert not len(tables.read(Path(outputs["matched"]), "matched"))  # too few sets to match
    differences = tables.read(Path(outputs["comparisons"]), "comparisons")
    tuned = differences.filter(pa.compute.equal(differences.column("comparison"), "mapper"))
    assert len(tuned) and set(tuned.column("difference").to_pylist()) == {0.0}

    names = ("soft_scores", "calibration", "reliability")
    outputs = {name: str(tmp_path / "soft" / f"{name}.parquet") for name in names}
    run_script(
        "calibrate",
        input={**ranks["untuned"], "exemplars": given["exemplars"]},
        output={**outputs, "calibrator": str(tmp_path / "soft" / "calibrator.json")},
        params={
            "settings": {"shown": 5},
            "kinds": ["object", "style"],
            "seed": 1,
        },
    )
    for name in names:
        assert len(tables.read(Path(outputs[name]), name))
    calibrator = json.loads((tmp_path / "soft" / "calibrator.json").read_text())
    assert calibrator["encoder"] == "pixel" and set(calibrator["forms"]) == set(CALIBRATORS)
    assert calibrator["fitted_on"]["queries"] == 9


def test_a_failed_job_leaves_no_table(
    run_script: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generated = world(1, rows=20, dim=4, set_sizes=[1])
    given = write_run(tmp_path, generated)
    generated.pool[13] = np.nan
    given["pool"] = [
        str(path) for path in write_parts(tmp_path / "bad", generated.pool_ids, generated.pool, 10)
    ]
    outputs = {name: str(tmp_path / "out" / f"{name}.parquet") for name in ("ranks", "candidates")}
    with pytest.raises(SystemExit):
        run_script(
            "rank",
            input={**given, "mapper": []},
            output=outputs,
            params={"settings": {}, "blocks": {"query_group": 8}},
            wildcards={"encoder": "pixel", "mapper": "untuned"},
        )
    assert "part-0001.parquet: embedding of 'p00013'" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
