"""Render plots as SVG: inline in the page with its colours, or as files of several panels under a legend."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attrib_core.report.plots import style

POINTS = 72  # SVG units an inch: one unit is one CSS pixel on the page


@dataclass(frozen=True)
class Panel:
    """A plot with one set of axes: what draws on them, text for screen readers, and its size in CSS pixels."""

    draw: Callable[[Axes], None]
    label: str
    height: int
    width: int = 520


def inline(panel: Panel, name: str) -> Markup:
    """Return a panel as the `<svg>` element of a page; `name` is the prefix of its ids."""
    with _figure(panel.width, panel.height) as figure:
        panel.draw(figure.subplots())
        return _element(figure, name, f'role="img" aria-label="{html.escape(panel.label, quote=True)}"')


def legend_mark(series: str, name: str) -> Markup:
    """Return the line and marker of a series as a small `<svg>` element of a page."""
    with _figure(26, 14) as figure:
        figure.add_artist(Line2D([0.04, 0.5, 0.96], [0.5, 0.5, 0.5], markevery=[1], **style.LINES[series]))
        return _element(figure, name, 'aria-hidden="true"')


def sheet(panels: Sequence[Panel], legend: Sequence[str], *, columns: int = 2) -> str:
    """Return an SVG document of panels, row by row under a legend of these series."""
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [max(panel.height for panel in row) for row in rows]
    width = columns * max((panel.width for panel in panels), default=520)
    with _figure(width, 50 + sum(heights)) as figure:
        figure.set_layout_engine("constrained", w_pad=12 / POINTS, h_pad=12 / POINTS)
        if rows:
            grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights).flat
            for panel, axes in zip(panels, grid, strict=False):
                panel.draw(axes)
            for axes in list(grid)[len(panels) :]:
                axes.remove()
        lines = [Line2D([], [], **style.LINES[series]) for series in legend]
        figure.legend(handles=lines, loc="outside upper left", ncols=len(lines), frameon=False)
        return _document(figure, style.PAPER)


@contextmanager
def _figure(width: int, height: int) -> Iterator[Figure]:
    """An empty figure of a size in CSS pixels, in the report's style."""
    with matplotlib.rc_context(style.SETTINGS):
        figure = Figure(figsize=(width / POINTS, height / POINTS), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


def _document(figure: Figure, background: str = "none") -> str:
    """Return an SVG document in CSS pixels and without dates: equal figures give equal text."""
    stream = io.StringIO()
    metadata = dict(Date=None, Creator=None, Format=None, Type=None)
    figure.savefig(stream, format="svg", facecolor=background, metadata=metadata)
    document = re.sub(r' (width|height)="([\d.]+)pt"', r' \1="\2"', stream.getvalue(), count=2)
    return re.sub(r"'DejaVu Sans'(?:, sans-serif)?", style.FONT, document)


def _element(figure: Figure, name: str, attributes: str) -> Markup:
    """Return the `<svg>` element: ids get a prefix, since each may occur once a page, and colours are the page's."""
    document = _document(figure)
    body = document[document.index("<svg") :].rstrip()
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = re.sub(r'\bid="|url\(#|xlink:href="#', lambda match: f"{match[0]}{name}-", body)
    for color, variable in style.CSS_VARIABLES.items():
        body = body.replace(color, f"var(--{variable})")
    return Markup(body.replace("<svg ", f"<svg {attributes} ", 1))
