"""Sections of the report: row look-up, thumbnails, times, influence; and the formatting of numbers."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from attrib_core.attribution.metrics import metrics_table
from attrib_core.common.errors import InputError
from attrib_core.report import formatting
from attrib_core.report.sections import influence, row_lookup, thumbnails, timings


def test_lookup_reads_across_row_groups(tmp_path: Path) -> None:
    table = pa.table({"name": [f"n{i}" for i in range(1000)], "value": list(range(1000))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=64)
    wanted = ["n3", "n64", "n700", "n999"]
    found = row_lookup.rows_by_id([tmp_path / "a.parquet"], "name", wanted, ["value"])
    assert {name: row["value"] for name, row in found.items()} == dict(n3=3, n64=64, n700=700, n999=999)


def test_small_images_keep_their_pixels_and_large_ones_shrink() -> None:
    def encoded(pixels: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    flat = np.full((64, 64, 3), (10, 200, 30), np.uint8)
    shown = thumbnails.thumbnail(encoded(flat), where="x")
    assert shown.startswith("data:image/png;base64,")
    assert np.array_equal(decoded(shown), flat)
    noise = np.random.default_rng(0).integers(0, 256, (600, 300, 3), dtype=np.uint8)
    assert decoded(thumbnails.thumbnail(encoded(noise), where="x")).shape == (160, 80, 3)
    with pytest.raises(InputError, match=r"^query q1: "):
        thumbnails.thumbnail(b"no image", where="query q1")


def decoded(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB"))


def test_times_are_summed_by_rule(tmp_path: Path) -> None:
    for name, seconds, memory in (("rank/a", 1.5, "10"), ("rank/b", 2.5, "30"), ("pool_part/0000", 9, "NA")):
        path = tmp_path / f"{name}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"s\tmax_rss\tcpu_time\n{seconds}\t{memory}\t1.0\n")
    (tmp_path / "prior.tsv").write_text("s\tmax_rss\tcpu_time\n0.5\t20\t0.4\n")
    (tmp_path / "rank/gone.tsv").write_text("s\tmax_rss\tcpu_time\n99\t99\t99\n")  # of an earlier config
    jobs = ["rank/a", "rank/b", "pool_part/0000", "pool_part/0001", "prior"]
    pool, rank, prior = timings.stage_times(tmp_path, jobs)
    assert (prior.rule, prior.jobs, prior.seconds) == ("prior", 1, 0.5)
    assert (rank.rule, rank.jobs, rank.seconds, rank.cpu_seconds, rank.memory_mb) == (
        "rank",
        2,
        4.0,
        2.0,
        30.0,
    )
    assert (pool.rule, pool.seconds, pool.memory_mb) == ("pool_part", 9.0, None)
    assert timings.stage_times(tmp_path / "nowhere", jobs) == []


def test_costs_of_models_are_summed_by_method_steps_and_device() -> None:
    def row(steps: int, seconds: float, peak: int, threads: int = 1) -> dict[str, Any]:
        return dict(
            method="lora", steps=steps, seconds=seconds, peak_memory=peak, threads=threads, device_name="E"
        )

    rows = [row(10, 2.0, 3_000_000), row(10, 3.0, 2_000_000), row(30, 6.0, 1), row(10, 0.0, 1, threads=2)]
    expensive, cheap, instant = timings.model_costs(rows)
    assert (expensive.steps, expensive.models, expensive.each, expensive.speed) == (30, 1, 6.0, 5.0)
    assert (cheap.steps, cheap.models, cheap.each, cheap.speed, cheap.peak_mb) == (10, 2, 2.5, 4.0, 3.0)
    assert (instant.threads, instant.speed) == (2, float("inf"))


def test_memory_is_formatted() -> None:
    assert formatting.memory(None) == ""
    assert [formatting.memory(value).replace("\u202f", " ") for value in (0.2, 1.4, 1269.5)] == [
        "<1 MB",
        "1 MB",
        "1 270 MB",
    ]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.475, "47.5"),
        (1, "100.0"),
        (0, "0.0"),
        (0.0004, "<\u202f0.1"),
        (-0.012, "\u22121.2"),
        (None, "\u2013"),
    ],
)
def test_percent(value: float | None, written: str) -> None:
    assert formatting.share(value) == written


def test_other_numbers() -> None:
    assert formatting.interval(0.1, 0.25) == "[10.0, 25.0]"
    assert formatting.interval(None, None) == ""
    assert formatting.count(1234567) == "1\u202f234\u202f567"
    assert (formatting.points(0.071), formatting.points(-0.071)) == ("+7.1", "\u22127.1")
    assert [formatting.ratio(value) for value in (1.26, 12.4, 163, 1260)] == [
        "1.3",
        "12",
        "160",
        "1\u202f300",
    ]
    assert [formatting.seconds(value).replace("\u202f", " ") for value in (0.44, 59.7, 312, 11100)] == [
        "0.4 s", "1 min 00 s", "5 min 12 s", "3 h 05 min",
    ]  # fmt: skip
    assert [formatting.rank(value) for value in (14, 14.5, 1233.2)] == ["14", "14.5", "1\u202f233"]


def test_calibrators_are_compared_line_by_line() -> None:
    def line(calibrator: str, value: float, low: float, high: float, **more: object) -> dict[str, object]:
        same = dict(encoder="e", mapper="untuned", split="test", kind="style", pool_share=1.0, n_queries=8)
        named = dict(form=calibrator, metric="negative_log_likelihood", value=value, ci_low=low, ci_high=high)
        return same | named | dict(n_models=3) | more

    rows = [line("pool_aware", 3.0, 2.0, 4.0), line("published", 5.0, 4.5, 6.0)]
    rows += [
        line("published", 0.25, 0.1, 0.5, metric="impossible"),
        line("published", 2.0, 1.0, 3.0, pool_share=0.5),
    ]
    rows += [line("pool_aware", 1.5, 1.0, 3.0, pool_share=0.5)]
    known = metrics_table.Metrics((), ("e",), ("untuned",))
    summary = influence.summary(rows, known)
    assert "than the published one in 1 of 1 lines of one kind of sets; in 1 of them" in summary
    assert "25.0" in summary and "3 models" in summary
    headings, lines = influence.pools(rows, known)
    assert headings[0] == "whole pool" and [one["cells"] for one in lines] == [
        ["3.000", "1.500"],
        ["5.000", "2.000"],
    ]
    assert influence.table(rows, known)[1][0]["cells"][0] == ("3.000", "[2.000, 4.000]")
    assert [one["calibrator"] for one in influence.none_table(rows, known)[1]] == ["pool-aware"]
    assert influence.none_table([one for one in rows if one["form"] == "published"], known)[1] == []
    both = [one | dict(kind=kind) for one in rows for kind in ("all", "object", "style")]
    assert "in 2 of 2 lines of one kind" in influence.summary(both, known)
    assert influence.summary([], known).startswith("The test split has no exemplar sets")
    rows[0] |= dict(value=7.0, ci_high=8.0)
    assert "in 0 of 1 lines" in influence.summary(rows, known)
