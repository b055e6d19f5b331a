"""Plots: SVG of the page and of files, axes, and the distributions behind them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from attrib_core.attribution.metrics.metrics_table import read_metrics
from attrib_core.report.plots import curves, figures, panels, style, svg
from attrib_core.storage import tables
from tests.report.metrics_fixtures import metrics_row


def ids(document: str) -> list[str]:
    return re.findall(r'\bid="([^"]+)"', document)


def test_an_inline_svg_has_its_own_ids_and_the_colours_of_the_page() -> None:
    panel = svg.Panel(lambda axes: axes.plot([0, 1], [0, 1], color=style.TUNED_COLOR), 'a "line"', height=100)
    inline = svg.inline(panel, "one")
    ElementTree.fromstring(inline)
    assert "var(--tuned)" in inline and style.TUNED_COLOR not in inline
    assert all(name.startswith("one-") for name in ids(inline))
    assert set(re.findall(r"url\(#([^)]+)\)", inline)) <= set(ids(inline))
    assert 'aria-label="a &quot;line&quot;"' in inline
    assert 'width="520" height="100"' in inline and 'viewBox="0 0 520 100"' in inline


@pytest.mark.parametrize("series", style.LINES)
def test_legend_marks_have_the_colour_of_their_series(series: str) -> None:
    mark = svg.legend_mark(series, "mark")
    ElementTree.fromstring(mark)
    assert f"var(--{style.CSS_VARIABLES[style.LINES[series]['color']]})" in mark
    assert all(name.startswith("mark-") for name in ids(mark))


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_sheet_has_all_panels_and_a_legend(number: int) -> None:
    sheet = svg.sheet(
        [
            svg.Panel(partial(lambda title, axes: axes.set_title(title), f"panel {i}"), "", 200)
            for i in range(number)
        ],
        ["control", "chance"],
    )
    ElementTree.fromstring(sheet)
    assert re.findall(r">(panel \d)<", sheet) == [f"panel {i}" for i in range(number)]
    assert ">base model (control)<" in sheet and ">chance<" in sheet
    assert len(ids(sheet)) == len(set(ids(sheet))) and "var(--" not in sheet


def test_reliability_has_two_equal_axes_from_zero_to_one() -> None:
    def bins(*values: float) -> list[dict[str, float]]:
        return [dict(mean_influence=one, exemplar_share=one / 2, n_candidates=9) for one in values]

    diagonals = []
    for top in (0.01, 0.9):  # whatever the largest value is
        plot = partial(figures.reliability, rows={"untuned": bins(0.001, top)}, title="e\npublished")
        text = svg.inline(svg.Panel(plot, "", height=300, width=300), "x")
        found = re.search(r'd="M ([\d.]+) ([\d.]+) \nL ([\d.]+) ([\d.]+) [^"]*"[^>]*stroke-dasharray', text)
        assert found is not None
        x, y, right, high = map(float, found.groups())
        assert right - x == pytest.approx(y - high, rel=1e-3) and right - x > 180
        assert text.count(">100<") == 2
        diagonals.append(found.groups())
    assert diagonals[0] == diagonals[1]


def test_histograms_of_similarities_have_an_axis() -> None:
    densities = {"distractors": (np.linspace(-1, 1, 6), np.full(5, 0.2))}
    plot = partial(figures.similarities, densities=densities, title="x")
    drawn = svg.inline(svg.Panel(plot, "", height=250), "x")
    assert ">percent of its peak<" in drawn and ">100<" in drawn


def test_a_single_model_has_no_interval(tmp_path: Path) -> None:
    row = metrics_row(ci_low=float("nan"), ci_high=float("nan"), n_models=1)
    tables.write(tmp_path / "m.parquet", "metrics", [row])
    known = read_metrics(tmp_path / "m.parquet", ["e"], ["untuned"])
    assert known.rows[0]["ci_low"] is None
    plot = partial(figures.recall_dots, metrics=known, kind="object")
    drawing = svg.inline(svg.Panel(plot, "", figures.recall_dots_height(known)), "x")
    assert "Recall@10" in drawing and "nan" not in drawing


def test_bins_of_two_calibrators_are_merged_by_their_candidates() -> None:
    names = ("bin_low", "mean_influence", "exemplar_share", "n_candidates")
    one, other = (
        [dict(zip(names, values, strict=True)) for values in bins]
        for bins in (
            [(0.0, 0.02, 0.0, 30), (0.1, 0.2, 0.3, 10)],
            [(0.0, 0.06, 0.04, 10), (0.1, None, None, 0)],
        )
    )
    first, second = panels.pooled([*one, *other])
    assert first["mean_influence"] == pytest.approx((30 * 0.02 + 10 * 0.06) / 40)
    assert first["exemplar_share"] == pytest.approx(0.01) and first["n_candidates"] == 40
    assert (second["mean_influence"], second["exemplar_share"], second["n_candidates"]) == (0.2, 0.3, 10)
    assert panels.pooled(one) == one


def test_distractor_shares_are_those_of_all_cosines(tmp_path: Path) -> None:
    cosines = np.random.default_rng(5).uniform(-1, 1, (3, 400))
    bins, rows = 200, []
    for number, scores in enumerate(np.sort(cosines, axis=1)[:, ::-1]):
        histogram, edges = np.histogram(scores[20:], bins, (-1, 1))
        sums = np.histogram(scores[20:], edges, weights=scores[20:])[0]
        rows.append(
            dict(
                encoder="e", mapper="untuned", query_id=f"q{number}", candidate_ids=[str(i) for i in range(20)],
                similarities=scores[:20].tolist(), histogram=histogram.tolist(), histogram_sums=sums.tolist(),
            )
        )  # fmt: skip
    tables.write(tmp_path / "candidates.parquet", "candidates", rows)
    _, share = curves.distractor_shares(tmp_path / "candidates.parquet", ["q0", "q2"], bins=50)
    expected = np.histogram(cosines[[0, 2]], 50, (-1, 1))[0] / 800
    assert np.abs(share - expected).max() <= 1 / 800  # a float32 cosine may cross an edge
