"""The benchmarks run, small, and their methods agree."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / f"{name}.py"), run_name="benchmark")


@pytest.mark.slow
def test_ranking_prints_all_methods_at_all_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--pools", "300", "600", "--dim", "16", "--queries", "9", "--repeats", "1"]
    rows = script("ranking")["main"](options)
    methods = ["published", "ours", "ours, all", "product", "FAISS Flat"]
    assert [(row["pool"], row["method"]) for row in rows] == [
        (pool, m) for pool in (300, 600) for m in methods
    ]
    assert all(row["ms"] > 0 and row["peak_mb"] > 1 and row["fraction"] > 0 for row in rows)
    assert "of the product's speed" in capsys.readouterr().out


def test_every_method_of_the_ranking_benchmark_finds_the_same_ranks(tmp_path: Path) -> None:
    made = script("ranking")
    options = made["_options"](["--queries", "9", "--dim", "16", "--published", "9"])
    made["_generate"](tmp_path, 500, options)
    ranks = {
        name: made["METHODS"][name](tmp_path, options)[0]() for name in ("published", "ours", "ours, all")
    }
    assert list(ranks["published"]) == list(ranks["ours"]) == list(ranks["ours, all"])


def test_index_measures_what_it_builds(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--pools", "900", "--dim", "16", "--queries", "20", "--factories", "Flat", "IVF8,SQ8"]
    rows = script("index")["main"](options)
    assert [row["factory"] for row in rows] == ["Flat", "IVF8,SQ8"]
    assert rows[0]["recall"] == 1.0 and rows[0]["megabytes"] > rows[1]["megabytes"] > 0
    assert "IVF8,SQ8" in capsys.readouterr().out


@pytest.mark.slow
def test_embedding_prints_all_methods_whose_features_agree(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--pictures", "12", "--side", "48", "--size", "32", "--batch", "5", "--at-once", "4"]
    rows = script("embedding")["main"](options)
    assert [row["method"] for row in rows] == ["plain loop", "ours", "ours, threads", "decoding", "network"]
    assert all(row["per_second"] > 0 and row["per_cpu_second"] > 0 and row["peak_mb"] > 1 for row in rows)
    assert "the bottleneck is" in capsys.readouterr().out
