"""The plots of the report, one panel each, as SVG documents.

Every function takes numbers and returns the text of a whole SVG file. Control,
untuned and tuned have one colour and one marker each, everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from attrib_core.attribution.metrics.metrics_table import TUNED, Metrics, Row
from attrib_core.common.constants import UNTUNED
from attrib_core.report import formatting
from attrib_core.report.plots import svg
from attrib_core.report.sections.mapper_selection import Choice

WIDTH = 520
SQUARE = 300
TICKS = (1e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Look:
    """How a series is drawn."""

    label: str
    color: str
    marker: str
    filled: bool
    offset: float


LOOKS = {
    "control": Look("base model (control)", svg.CONTROL, "s", False, -0.26),
    "untuned": Look("customized, untuned features", svg.UNTUNED_COLOR, "o", True, 0.0),
    "tuned": Look("customized, tuned features", svg.TUNED_COLOR, "D", True, 0.26),
}


def series(metrics: Metrics) -> list[tuple[str, str, str]]:
    """(look, condition, mapper) of the three series; no tuned one where the run has no head."""
    found = [("control", "control", UNTUNED), ("untuned", "customized", UNTUNED)]
    return found + [(TUNED, "customized", TUNED) for _ in metrics.tuned]


def recall_dots(metrics: Metrics, kind: str, *, split: str = "test") -> str:
    """Each metric and encoder on a line: control, untuned and tuned with intervals, chance and ceiling."""
    lines = [
        (metric, k, encoder)
        for metric, k in metrics.headline
        for encoder in metrics.encoders
        if metrics.get(metric, k, encoder=encoder, mapper=UNTUNED, kind=kind, split=split)
    ]
    places, heads, at = [], {}, 0.0
    for metric, k, _ in lines:
        if (metric, k) not in heads:  # a line of its own for the name of the metric
            heads[metric, k] = at
            at += 0.85
        places.append(at)
        at += 1
    with svg.axes(WIDTH, int(66 + 30 * at)) as (figure, axes):
        for place, (metric, k, encoder) in zip(places, lines, strict=True):
            for look, condition, mapper in series(metrics):
                row = metrics.get(
                    metric, k, encoder=encoder, mapper=mapper, kind=kind, split=split, condition=condition
                )
                if row:
                    _dot(axes, place, row, LOOKS[look])
            marks = metrics.get(metric, k, encoder=encoder, mapper=UNTUNED, kind=kind, split=split)
            if marks:
                axes.vlines(
                    marks["chance"], place - 0.42, place + 0.42, color=svg.INK, lw=1.2, ls=(0, (1, 1))
                )
                axes.vlines(marks["ceiling"], place - 0.42, place + 0.42, color=svg.INK, lw=1.2)
        axes.set_yticks(places, [encoder for _, _, encoder in lines])
        for (metric, k), place in heads.items():
            beside = axes.get_yaxis_transform()
            axes.text(
                -0.01,
                place,
                formatting.metric(metric, k),
                transform=beside,
                ha="right",
                va="center",
                weight="bold",
            )
        axes.set_ylim(at - 0.4, -0.5)
        axes.grid(axis="y", visible=False)
        _root_axis(axes, "x", 1.0)
        axes.set_xlabel("percent, square-root axis")
        axes.set_title(f"{kind.capitalize()} sets")
        return svg.text(figure)


def _dot(axes: Axes, place: float, row: Row, look: Look) -> None:
    y = place + look.offset
    if row["ci_low"] is not None:
        axes.hlines(y, row["ci_low"], row["ci_high"], color=look.color, lw=1.6)
    face = look.color if look.filled else svg.PAPER
    axes.plot([row["value"]], [y], look.marker, ms=6.2, color=look.color, mfc=face, mew=1.5, clip_on=False)


def _root_axis(axes: Axes, which: str, top: float) -> None:
    """A square-root axis from 0 to `top`: small shares and large ones on one scale, zero included."""
    getattr(axes, f"set_{which}scale")("function", functions=(_root, _square))
    getattr(axes, f"set_{which}lim")(0, top * 1.01)
    ticks: list[float] = [0]
    for tick in TICKS:
        if tick <= top and np.sqrt(tick) - np.sqrt(ticks[-1]) >= 0.075 * np.sqrt(top):
            ticks.append(tick)
    getattr(axes, f"set_{which}ticks")(ticks, [f"{100 * tick:g}" for tick in ticks])


def _root(values: Any) -> Any:
    return np.sqrt(np.clip(values, 0, None))


def _square(values: Any) -> Any:
    return np.square(values)


def recall_curves(
    curves: Mapping[str, np.ndarray], ks: np.ndarray, marks: Sequence[tuple[str, Row]], *, title: str
) -> str:
    """Recall over the number of candidates looked at, on a logarithmic axis.

    `curves` are (len(ks),) shares by look, with 'chance' and 'ceiling' among
    them; `marks` are rows of the metrics with their look, drawn with intervals.
    """
    with svg.axes(WIDTH, 330) as (figure, axes):
        axes.plot(ks, curves["ceiling"], color=svg.INK, lw=1.2)
        axes.plot(ks, curves["chance"], color=svg.INK, lw=1.2, ls=(0, (1, 1.5)))
        for name, look in LOOKS.items():
            if name in curves:
                axes.plot(ks, curves[name], color=look.color, lw=1.8)
        for name, row in marks:
            look = LOOKS[name]
            if row["ci_low"] is not None:
                axes.vlines(row["k"], row["ci_low"], row["ci_high"], color=look.color, lw=1.6)
            face = look.color if look.filled else svg.PAPER
            axes.plot([row["k"]], [row["value"]], look.marker, ms=5.5, color=look.color, mfc=face, mew=1.5)
        axes.set_xscale("log")
        axes.set_xlim(1, ks[-1])
        decades = [10**power for power in range(7) if 10**power <= ks[-1]]
        axes.set_xticks(decades, [formatting.count(value) for value in decades])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("candidates looked at, K")
        axes.set_ylim(-0.015, 1.015)
        axes.set_yticks(np.linspace(0, 1, 6), [f"{tick}" for tick in range(0, 101, 20)])
        axes.set_ylabel("recall, percent")
        axes.set_title(title)
        return svg.text(figure)


def reliability(rows: Mapping[str, Sequence[Row]], *, title: str) -> str:
    """Predicted influence against the true share, by bin; area grows with the count.

    `rows` are the bins of the table by look. Both axes are square roots from 0 to 1 and of one length.
    """
    full = {name: [row for row in bins if row["mean_influence"] is not None] for name, bins in rows.items()}
    with svg.axes(SQUARE, SQUARE) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=svg.INK, lw=1.2, ls=(0, (4, 3)))
        for name, bins in full.items():
            look = LOOKS[name]
            x, y = (
                np.array([row[column] for row in bins]) for column in ("mean_influence", "exemplar_share")
            )
            area = [14 + 16 * np.log10(max(1, row["n_candidates"])) for row in bins]
            axes.plot(x, y, color=look.color, lw=1.2)
            face = look.color if look.filled else svg.PAPER
            axes.scatter(
                x, y, s=area, marker=look.marker, color=face, edgecolors=look.color, zorder=3, clip_on=False
            )
        for which in ("x", "y"):
            _root_axis(axes, which, 1.0)
        axes.set_box_aspect(1)
        axes.set_xlabel("predicted influence, percent")
        axes.set_ylabel("true share, percent")
        axes.set_title(title)
        return svg.text(figure)


def similarities(densities: Mapping[str, tuple[np.ndarray, np.ndarray]], *, title: str) -> str:
    """Distributions of cosines as outlines: {'distractors' | a look: (edges, share a bin)}.

    Each is scaled to its own peak, since there are thousands of times more
    distractors than exemplars.
    """
    with svg.axes(WIDTH, 250) as (figure, axes):
        drawn = []
        for name, (edges, share) in densities.items():
            height = share / max(share.max(), 1e-12)
            if name == "distractors":
                axes.stairs(height, edges, fill=True, color=svg.RULE, zorder=1)
            else:
                axes.stairs(height, edges, color=LOOKS[name].color, lw=1.6, zorder=2)
            drawn += list(edges[:-1][height > 0.002]) + list(edges[1:][height > 0.002])
        axes.set_xlim(min(drawn), min(1.0, max(drawn)))
        axes.set_ylim(0, 1.06)
        axes.set_yticks([0, 0.5, 1], ["0", "50", "100"])
        axes.set_ylabel("percent of its peak")
        axes.set_xlabel("cosine similarity to the query")
        axes.set_title(title)
        return svg.text(figure)


def mapper_curves(choice: Choice) -> str:
    """Validation mAP over epochs: a line a penalty, a dot a start, a ring at the choice, a dotted line for untuned."""
    lines: dict[tuple[Any, ...], list[Row]] = {}
    for row in choice.curve:
        lines.setdefault((row["start"], row["shrinkage"], row["penalty"]), []).append(row)
    chosen = (choice.start, choice.shrinkage, choice.penalty)
    with svg.axes(WIDTH, 280) as (figure, axes):
        axes.axhline(choice.untuned, color=svg.INK, lw=1.2, ls=(0, (1, 1.5)))
        ends: list[tuple[float, float, str, str]] = []
        for line, rows in lines.items():
            color, width = (svg.TUNED_COLOR, 2.0) if line == chosen else (svg.CONTROL, 1.2)
            x, y = [row["epoch"] for row in rows], [row["validation_mean_average_precision"] for row in rows]
            if line[-1] is None:  # a start as it is
                axes.plot(x, y, "o", ms=3.5, color=color, zorder=3, clip_on=False)
            else:
                axes.plot(x, y, color=color, lw=width, zorder=3 if line == chosen else 2)
                ends.append((y[-1], x[-1], f"{line[-1]:g}", color))
        axes.plot(
            [choice.epoch],
            [choice.value],
            "o",
            ms=9,
            mfc="none",
            color=svg.INK,
            mew=1.4,
            zorder=4,
            clip_on=False,
        )
        low, high = axes.get_ylim()
        axes.set_ylim(max(0, low), min(1, high))
        _label_ends(axes, ends)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}"))
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation mAP, percent")
        axes.set_title(f"{choice.encoder}, {formatting.mapper(choice.mapper)}")
        return svg.text(figure)


def _label_ends(axes: Axes, ends: list[tuple[float, float, str, str]], least: float = 0.055) -> None:
    """Write (y, x, text, color) at the ends of lines, `least` of the axis apart, so that none hides another."""
    low, high = axes.get_ylim()
    ordered, apart = sorted(ends), least * (high - low)
    places = [y for y, _, _, _ in ordered]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + apart)
    limit = high
    for i in reversed(range(len(places))):  # from the top down again, so that none leaves the panel
        places[i] = min(places[i], limit)
        limit = places[i] - apart
    for place, (_, x, text, color) in zip(places, ordered, strict=True):
        axes.annotate(text, (x, place), (5, 0), textcoords="offset points", va="center", color=color)
