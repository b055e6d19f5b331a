"""The marks that stand for series, in the page's legends and on sheets of plots."""

from __future__ import annotations

import html
from collections.abc import Sequence

from markupsafe import Markup

from attrib_core.report.plots import svg

LABELS = {
    "control": "base model (control)",
    "untuned": "customized, untuned features",
    "tuned": "customized, tuned features",
    "chance": "chance",
    "chance-line": "chance",
    "ceiling": "ceiling",
    "ceiling-line": "ceiling",
    "distractors": "distractors",
    "diagonal": "statement is true",
    "chosen": "chosen",
    "tuned-line": "chosen penalty",
    "other-line": "other penalties",
    "untuned-line": "untuned",
}
_LINE = '<path d="M1 7h24" stroke="{0}" stroke-width="1.6"{1}/>'
_TICK = '<path d="M13 0v14" stroke="{0}" stroke-width="1.4"{1}/>'
MARKS = {
    "control": _LINE.format(svg.CONTROL, "")
    + f'<rect x="9.5" y="3.5" width="7" height="7" fill="{svg.PAPER}" stroke="{svg.CONTROL}" stroke-width="1.5"/>',
    "untuned": _LINE.format(svg.UNTUNED_COLOR, "")
    + f'<circle cx="13" cy="7" r="3.8" fill="{svg.UNTUNED_COLOR}"/>',
    "tuned": _LINE.format(svg.TUNED_COLOR, "")
    + f'<path d="M13 2.6 17.4 7 13 11.4 8.6 7z" fill="{svg.TUNED_COLOR}"/>',
    "chance": _TICK.format(svg.INK, ' stroke-dasharray="1.6 1.6"'),
    "chance-line": _LINE.format(svg.INK, ' stroke-dasharray="1.6 2"'),
    "ceiling": _TICK.format(svg.INK, ""),
    "ceiling-line": _LINE.format(svg.INK, ""),
    "distractors": f'<rect x="3" y="2" width="20" height="10" fill="{svg.RULE}"/>',
    "diagonal": _LINE.format(svg.INK, ' stroke-dasharray="4 3"'),
    "tuned-line": _LINE.format(svg.TUNED_COLOR, ""),
    "other-line": _LINE.format(svg.CONTROL, ""),
    "untuned-line": _LINE.format(svg.INK, ' stroke-dasharray="1.6 2"'),
    "chosen": f'<circle cx="13" cy="7" r="5" fill="none" stroke="{svg.INK}" stroke-width="1.4"/>',
}
"""Shapes in a box of 26 x 14."""


def mark(name: str) -> Markup:
    """The mark of a series as an `<svg>` element that follows the colours of the page."""
    shapes = MARKS[name]
    for color, variable in svg.VARIABLES.items():
        shapes = shapes.replace(color, f"var(--{variable})")
    return Markup(f'<svg viewBox="0 0 26 14" aria-hidden="true">{shapes}</svg>')


def row(names: Sequence[str]) -> str:
    """A legend as an SVG document of its own, for a sheet of plots."""
    parts, x = [], 0.0
    for name in names:
        label = LABELS[name]
        parts.append(f'<g transform="translate({x:g} 5)">{MARKS[name]}</g>')
        style = f"font: 12px {svg.FONT}; fill: {svg.INK}"
        parts.append(f'<text x="{x + 33:g}" y="16" style="{style}">{html.escape(label)}</text>')
        x += 33 + 6.9 * len(label) + 24
    return f'<svg viewBox="0 0 {x:g} 24">{"".join(parts)}</svg>'
