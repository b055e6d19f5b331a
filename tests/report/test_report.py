"""The report of a simulated run: page, counts, tables, gallery and files."""

from __future__ import annotations

import csv
import html.parser
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from attrib_core.attribution.metrics import best_features, metrics_table
from attrib_core.common.errors import InputError
from attrib_core.diffusion.synthesis import report_sample
from attrib_core.report import build, formatting, run_results
from attrib_core.report.sections import gallery, row_lookup
from attrib_core.storage import tables
from tests.report.report_fixtures import SAMPLES, inputs_of, jobs_of, write_images, write_run

ROOT = Path(__file__).parents[2]
ENCODERS, MAPPERS = ["pixel", "efficientnet"], ["untuned", "linear-object", "linear-style"]
SHOWN = dict(gallery_sets=2, retrievals=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    write_run(folder)
    return folder


def make(run: Path, **changes: Any) -> build.Report:
    options = dict(
        run="tiny", seed=3, encoders=ENCODERS, mappers=MAPPERS, sections={"synthesis": {"steps": 12}},
        benchmarks=run / "benchmarks", jobs=jobs_of(run), ties="half", **SHOWN,
    )  # fmt: skip
    return build.build(run_results.RunFiles.of(inputs_of(run)), **(options | changes))


@pytest.fixture(scope="module")
def report(run: Path) -> build.Report:
    return make(run)


class Page(html.parser.HTMLParser):
    """Elements, ids and images of a page; an unclosed or crossed element fails."""

    VOID = frozenset("meta img br path rect circle use line image".split())

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"]] if values.get("id") else []
        self.sources += [values[name] or "" for name in ("src", "href", "xlink:href") if name in values]
        if tag == "img":
            self.images.append(values)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


def test_the_page_is_self_contained_and_well_formed(report: build.Report) -> None:
    page = Page(report.html)
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert all(source.startswith(("data:image/", "#")) for source in page.sources)
    assert {source[1:] for source in page.sources if source.startswith("#")} <= set(page.ids)
    assert all(image["alt"] for image in page.images)
    assert "<script" not in report.html and "@import" not in report.html
    assert not re.search(r"url\((?!#)", report.html)
    assert len(report.html) < 6e6


def test_counts_are_those_of_the_files(run: Path, report: build.Report) -> None:
    facts = run_results.read_facts(run_results.RunFiles.of(inputs_of(run)))
    exemplars = pq.read_table(run / "exemplars.parquet")
    assert facts.exemplars == exemplars.num_rows
    assert len(facts.sets) == len(set(exemplars["exemplar_set"].to_pylist())) == 17
    assert facts.pool_rows == 80 + exemplars.num_rows
    assert facts.distractors == facts.pool_rows - facts.excluded_rows
    assert facts.queries == {"customized": 17 * 8, "control": 17 * 8}
    assert facts.rejects == {"too small": 4, "unreadable": 3}
    assert sum(row["size"] for row in facts.sets) == facts.exemplars
    assert f"equal shares for all candidates have {math.log(facts.distractors + 1):.3f}" in report.html


def test_the_headline_table_has_the_measured_values(run: Path, report: build.Report) -> None:
    rows = {
        tuple(row[name] for name in ("split", "kind", "encoder", "metric", "k")): row
        for row in report.tables["headline.csv"]
    }
    columns = {"untuned": "untuned", "linear-object": "tuned", "linear-style": "tuned"}
    for row in pq.read_table(run / "metrics.parquet").to_pylist():
        across = row["mapper"] not in ("untuned", f"linear-{row['kind']}")
        if row["seen"] == row["prompt_kind"] == "all" and not across:
            line = rows[row["split"], row["kind"], row["encoder"], row["metric"], row["k"]]
            column = f"{row['condition']}_{columns[row['mapper']]}"
            assert line[f"{column}_value"] == row["value"]
            high = None if math.isnan(row["ci_high"]) else row["ci_high"]  # of one model there is none
            assert line[f"{column}_ci_high"] == high
            assert (line["chance"], line["n_models"]) == (row["chance"], row["n_models"])
    one = next(row for row in rows.values() if row["split"] == "test" and row["k"] == 10)
    assert f"{formatting.share(one['customized_tuned_value'])}<i>" in report.html


def test_matched_and_strata_have_the_values_of_the_tables(run: Path, report: build.Report) -> None:
    matched = metrics_table.nan_to_none(pq.read_table(run / "matched.parquet"))
    assert matched and report.tables["matched.csv"] == matched
    strata = metrics_table.nan_to_none(pq.read_table(run / "strata.parquet"))
    assert report.tables["strata.csv"] == [row for row in strata if row["split"] == "test"] != []
    section = report.html.partition("Unseen and seen categories, matched within like categories")[
        2
    ].partition("</section>")[0]
    wanted = ("pixel", "untuned", "customized", "test", "object", "all", "recall_at_k", 10)
    names = ("encoder", "mapper", "condition", "split", "kind", "prompt_kind", "metric", "k")
    (one,) = (row for row in matched if tuple(row[name] for name in names) == wanted)
    few = one["ci_low"] is None
    interval = "" if few else f"[{formatting.points(one['ci_low'])}, {formatting.points(one['ci_high'])}]"
    assert f"<td>{formatting.points(one['difference'])}<i>{interval}</i></td>" in section
    for row in strata:
        if tuple(row[name] for name in names) == wanted and row["group_by"] == "category":
            assert f'<td class="l">{row["group"]}</td><td>{row["n_models"]}</td>' in section
            assert f"<td>{formatting.share(row['value'])}<i>" in section


def test_the_recall_curve_passes_through_the_measured_recall(run: Path, report: build.Report) -> None:
    curve = {(row["kind"], row["encoder"], row["k"]): row for row in report.tables["recall_curve.csv"]}
    checked, tuned = 0, 0
    for row in report.tables["headline.csv"]:
        point = curve.get((row["kind"], row["encoder"], row["k"]))
        if row["split"] == "test" and row["metric"] == "recall_at_k" and point:
            assert point["untuned"] == pytest.approx(row["customized_untuned_value"], abs=1e-12)
            assert point["tuned"] == pytest.approx(row["customized_tuned_value"], abs=1e-12)
            tuned += point["tuned"] != point["untuned"]
            assert point["control"] == pytest.approx(row["control_untuned_value"], abs=1e-12)
            assert point["chance"] == pytest.approx(row["chance"], abs=1e-12)
            assert point["ceiling"] == pytest.approx(row["ceiling"], abs=1e-12)
            checked += 1
    assert checked >= 4 and tuned


@pytest.mark.slow
def test_the_gallery_samples_images_with_a_control(tmp_path: Path) -> None:
    write_run(tmp_path)
    for part, path in enumerate(sorted(tmp_path.glob("synthesized/part-*.parquet"))):
        rows = tables.read(path, "synthesized").to_pylist()
        fewer = [row for row in rows if row["condition"] == "customized" or row["sample_index"] == 1]
        write_images(tmp_path, part, fewer)
    shown = make(tmp_path, gallery_sets=5).tables["gallery.csv"]
    assert shown and all(row["query_id"].endswith("/1") for row in shown)


def test_the_gallery_is_sampled_by_seed_and_shows_the_soft_scores(run: Path, report: build.Report) -> None:
    soft = {}
    for path in sorted(run.glob("calibration/*/*/soft_scores.parquet")):
        for row in pq.read_table(path).to_pylist():
            soft[path.parent.parent.name, path.parent.name, row["query_id"], row["rank"]] = row
    known = metrics_table.read_metrics(run / "metrics.parquet", ENCODERS, MAPPERS)
    best = {}
    for kind in ("object", "style"):
        encoder, mapper = best_features.best_on_validation(known, kind)
        best[kind] = (encoder, f"linear-{kind}" if mapper == "tuned" else "untuned")
    assert any(mapper != "untuned" for _, mapper in best.values())
    shown = report.tables["gallery.csv"]
    sets = {row["exemplar_set"]: row for row in pq.read_table(run / "exemplars.parquet").to_pylist()}
    assert len(shown) == 2 * 2 * SAMPLES * SHOWN["retrievals"]
    for row in shown:
        assert sets[row["exemplar_set"]]["split"] == "test"
        truth = soft[*best[sets[row["exemplar_set"]]["kind"]], row["query_id"], row["rank"]]
        for name in ("candidate_id", "is_exemplar", "similarity", "influence"):
            assert row[name] == truth[name]
    soft_scores = {kind: run.joinpath("calibration", *best[kind], "soft_scores.parquet") for kind in best}
    files = run_results.RunFiles.of(inputs_of(run))
    other = gallery.build(files, soft_scores=soft_scores, seed=4, sets_each=2, retrievals=4)
    ids = {found.query_id for kind in other.sets.values() for one in kind for found in one.retrievals}
    assert ids and ids != {row["query_id"] for row in shown}


def test_the_sample_does_not_depend_on_order_or_on_other_sets() -> None:
    names = [f"set-{number}" for number in range(40)]
    chosen = report_sample.choose_by_seed(names, 5, 7, "object")
    assert report_sample.choose_by_seed(reversed(names), 5, 7, "object") == chosen
    assert report_sample.choose_by_seed(names, 3, 7, "object") == chosen[:3]
    assert report_sample.choose_by_seed([name for name in names if name in chosen], 5, 7, "object") == chosen


def test_a_missing_image_is_an_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"part-0000\.parquet .*image_id 'nobody'"):
        row_lookup.rows_by_id(sorted(run.glob("pool/part-*")), "image_id", ["nobody"], ["caption"])


def test_a_report_without_times_and_images(run: Path) -> None:
    built = make(run, gallery_sets=0, benchmarks=run / "nowhere")
    page = Page(built.html)
    assert not page.images and 'href="#gallery"' not in built.html and 'href="#times"' not in built.html
    assert built.tables["gallery.csv"] == built.tables["stages.csv"] == []


def test_each_mapper_has_a_panel_and_a_line_for_each_kind(report: build.Report) -> None:
    assert report.html.count("<h3>Mappers across kinds of sets</h3>") == 1
    assert "that was trained on this kind" in report.html
    across = report.html.partition("<h3>Mappers across kinds of sets</h3>")[2].partition("</table>")[0]
    assert across.count("object mapper") == across.count("style mapper") == len(ENCODERS)
    for encoder in ENCODERS:
        assert f">{encoder}, object mapper<" in report.html
        assert f">{encoder}, style mapper<" in report.html


@pytest.mark.parametrize("mappers", [MAPPERS[:2], MAPPERS[:1]])
def test_a_kind_without_a_mapper_has_no_tuned_values(run: Path, mappers: list[str]) -> None:
    inputs = inputs_of(run)
    for name, paths in inputs.items():
        if isinstance(paths, list):
            inputs[name] = [path for path in paths if not ("linear-" in path and mappers[-1] not in path)]
    built = build.build(
        run_results.RunFiles.of(inputs), run="tiny", seed=3, encoders=ENCODERS, mappers=mappers, sections={},
        benchmarks=run / "benchmarks", jobs=jobs_of(run), **SHOWN,
    )  # fmt: skip
    assert not Page(built.html).open and "Mappers across kinds" not in built.html
    rows = {row["kind"]: row for row in built.tables["headline.csv"]}
    if len(mappers) > 1:
        assert rows["style"]["customized_tuned_value"] is None
        assert rows["object"]["customized_tuned_value"] is not None
        assert "none for style sets, on which no mapper was trained" in built.html
    else:
        assert "customized_tuned_value" not in rows["object"] and 'id="mapper"' not in built.html


def test_an_encoder_without_metrics_is_an_error(run: Path) -> None:
    with pytest.raises(InputError, match=r"metrics\.parquet: no rows for encoder 'clip'"):
        metrics_table.read_metrics(run / "metrics.parquet", ["pixel", "clip"], MAPPERS)


def test_the_script_writes_page_plots_and_tables(
    run: Path, tmp_path: Path, run_script: Callable[..., None], report: build.Report
) -> None:
    run_script(
        "report",
        input=inputs_of(run),
        output=dict(page=str(tmp_path / "report" / "index.html")),
        params=dict(
            settings=SHOWN, run="tiny", seed=3, encoders=ENCODERS, mappers=MAPPERS, ties="half",
            sections={"synthesis": {"steps": 12}}, benchmarks=str(run / "benchmarks"), jobs=jobs_of(run),
        ),
    )  # fmt: skip
    written = {path.name for path in (tmp_path / "report").iterdir()}
    plots = report.plots.files()
    assert written == {"index.html", *report.tables, *plots}
    assert all((tmp_path / "report" / name).read_text("utf-8") == text for name, text in plots.items())
    assert (tmp_path / "report/index.html").read_text("utf-8") == report.html
    with (tmp_path / "report/headline.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert float(rows[0]["chance"]) == report.tables["headline.csv"][0]["chance"]


def test_the_report_needs_neither_torch_nor_snakemake() -> None:
    code = "import sys, attrib_core.report.build; print(sorted({'torch', 'snakemake'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
