"""From matplotlib to SVG text: one look, the same bytes each time, and colours that follow the page."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER = "#1d2126", "#626a73", "#d5d9de", "#ffffff"
CONTROL, UNTUNED_COLOR, TUNED_COLOR, EXEMPLAR = "#7b838c", "#2b6cb0", "#c2410c", "#0b7a75"
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    PAPER: "paper",
    CONTROL: "control",
    UNTUNED_COLOR: "untuned",
    TUNED_COLOR: "tuned",
    EXEMPLAR: "exemplar",
}
POINTS = 72  # SVG units an inch: one unit is one CSS pixel on the page
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "attrib",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that measures are the same everywhere
    "font.size": 11.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11.5,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.edgecolor": RULE,
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def axes(width: int, height: int) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure of so many CSS pixels with one set of axes, in the report's look."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / POINTS, height / POINTS), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.subplots()


def text(figure: Figure) -> str:
    """The figure as a whole SVG document, free of dates; equal figures give equal bytes."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=dict(Date=None, Creator=None, Format=None, Type=None))
    return stream.getvalue()


def inline(document: str, *, name: str, label: str) -> str:
    """The `<svg>` element of a document, to stand in a page beside others.

    Ids get `name` as prefix, since each may occur once a page; colours become
    variables of the page; `label` is read out in place of the drawing.
    """
    body, width, height = _element(document, name)
    for color, variable in VARIABLES.items():
        body = body.replace(color, f"var(--{variable})")
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-label="{html.escape(label, quote=True)}" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}"'
    )
    return head + body


def sheet(documents: Sequence[str], *, head: str, columns: int = 2, gap: int = 24) -> str:
    """Panels on one white sheet, row by row under a head (the legend), as a document of its own."""
    panels = [_element(document, f"panel{number}") for number, document in enumerate(documents)]
    rows = [[_element(head, "head")]] + [
        panels[start : start + columns] for start in range(0, len(panels), columns)
    ]
    wide = gap + max(sum(width + gap for _, width, _ in row) for row in rows)
    high = gap + sum(max(height for _, _, height in row) + gap for row in rows)
    parts, y = [], float(gap)
    for row in rows:
        x = float(gap)
        for body, width, height in row:
            place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
            parts.append(f"<svg {place}{body}")
            x += width + gap
        y += max(height for _, _, height in row) + gap
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    start = f'<svg {names} viewBox="0 0 {wide:g} {high:g}" width="{wide:g}" height="{high:g}">'
    return "\n".join([start, f'<rect width="100%" height="100%" fill="{PAPER}"/>', *parts, "</svg>", ""])


def _element(document: str, name: str) -> tuple[str, float, float]:
    """What follows the attributes of a document's `<svg`, with ids made unique; and its width and height."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', body)
    body = re.sub(r"'DejaVu Sans'(?:, sans-serif)?", FONT.replace('"', "'"), body)
    opening = body[: body.index(">")]
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)
    if size is None:
        raise ValueError("matplotlib's SVG has no viewBox")
    return body[len(opening) :].rstrip(), float(size[1]), float(size[2])
