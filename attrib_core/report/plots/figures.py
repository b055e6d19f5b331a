"""The plots of the report: each function draws on one set of axes.

Control, untuned and tuned have the same colour and marker everywhere (see `style.LINES`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from attrib_core.attribution.metrics.metrics_table import TUNED, Metrics, Row
from attrib_core.common.constants import UNTUNED
from attrib_core.report import formatting
from attrib_core.report.plots.style import LINES, RULE
from attrib_core.report.sections.mapper_selection import Choice

TICKS = (1e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
OFFSETS = {"control": -0.26, "untuned": 0.0, "tuned": 0.26}
"""Where on its line of `recall_dots` a series is drawn."""


def series(metrics: Metrics) -> list[tuple[str, str, str]]:
    """Return (series, condition, mapper) of control, untuned and, where the run has a mapper, tuned."""
    found = [("control", "control", UNTUNED), ("untuned", "customized", UNTUNED)]
    return found + [(TUNED, "customized", TUNED) for _ in metrics.tuned]


def recall_dots_height(metrics: Metrics) -> int:
    """Return the height of `recall_dots` in CSS pixels: a line for each metric and each of its encoders."""
    return int(66 + 30 * len(metrics.headline) * (0.85 + len(metrics.encoders)))


def recall_dots(axes: Axes, metrics: Metrics, kind: str) -> None:
    """Draw each metric and encoder on a line: the series with intervals, chance and ceiling."""
    encoders: dict[float, str] = {}
    y = 0.0
    for metric, k in metrics.headline:
        name = formatting.metric(metric, k)
        axes.text(
            -0.01, y, name, transform=axes.get_yaxis_transform(), ha="right", va="center", weight="bold"
        )
        y += 0.85
        for encoder in metrics.encoders:
            where: dict[str, Any] = dict(metric=metric, k=k, encoder=encoder, kind=kind)
            for series_name, condition, mapper in series(metrics):
                row = metrics.get(**where, mapper=mapper, condition=condition)
                if row:
                    _dot(axes, y, row, series_name)
            bounds = metrics.get(**where, mapper=UNTUNED)
            for bound in ("chance", "ceiling"):
                if bounds:
                    axes.plot([bounds[bound]] * 2, [y - 0.42, y + 0.42], **LINES[bound])
            encoders[y] = encoder
            y += 1
    axes.set_yticks(list(encoders), list(encoders.values()))
    axes.set_ylim(y - 0.4, -0.5)
    axes.grid(axis="y", visible=False)
    _root_axis(axes, "x")
    axes.set_xlabel("percent, square-root axis")
    axes.set_title(f"{kind.capitalize()} sets")


def _dot(axes: Axes, line: float, row: Row, name: str) -> None:
    y = line + OFFSETS[name]
    if row["ci_low"] is not None:
        axes.plot([row["ci_low"], row["ci_high"]], [y, y], **LINES[name] | dict(marker=""))
    axes.plot([row["value"]], [y], **LINES[name], clip_on=False)


def _root_axis(axes: Axes, which: str) -> None:
    """Set a square-root axis from 0 to 1: small shares and large ones on one scale, zero included."""
    getattr(axes, f"set_{which}scale")("function", functions=(_root, np.square))
    getattr(axes, f"set_{which}lim")(0, 1.01)
    ticks: list[float] = [0]
    for tick in TICKS:
        if np.sqrt(tick) - np.sqrt(ticks[-1]) >= 0.075:
            ticks.append(tick)
    getattr(axes, f"set_{which}ticks")(ticks, [f"{100 * tick:g}" for tick in ticks])


def _root(values: Any) -> Any:
    return np.sqrt(np.clip(values, 0, None))


def recall_curves(
    axes: Axes,
    curves: Mapping[str, np.ndarray],
    ks: np.ndarray,
    points: Sequence[tuple[str, Row]],
    *,
    title: str,
) -> None:
    """Draw recall over the number K of candidates, on a logarithmic axis.

    `curves` are (len(ks),) shares by series, with 'chance' and 'ceiling'; `points` are (series, row of the metrics),
    drawn with intervals.
    """
    for name, curve in curves.items():
        axes.plot(ks, curve, **LINES[name] | dict(marker=""))
    for name, row in points:
        if row["ci_low"] is not None:
            axes.plot([row["k"]] * 2, [row["ci_low"], row["ci_high"]], **LINES[name] | dict(marker=""))
        axes.plot([row["k"]], [row["value"]], **LINES[name])
    axes.set_xscale("log")
    axes.set_xlim(1, ks[-1])
    decades = [10**power for power in range(7) if 10**power <= ks[-1]]
    axes.set_xticks(decades, [formatting.count(value) for value in decades])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("number of candidates K")
    axes.set_ylim(-0.015, 1.015)
    axes.set_yticks(np.linspace(0, 1, 6), [f"{tick}" for tick in range(0, 101, 20)])
    axes.set_ylabel("recall, percent")
    axes.set_title(title)


def reliability(axes: Axes, rows: Mapping[str, Sequence[Row]], *, title: str) -> None:
    """Draw predicted influence against the true share by bin; larger marks have more candidates.

    `rows` are the bins of the table by series. Both axes are square roots from 0 to 1 and of one length.
    """
    axes.plot([0, 1], [0, 1], **LINES["diagonal"])
    for name, bins in rows.items():
        filled = [row for row in bins if row["mean_influence"] is not None]
        x, y = (np.array([row[column] for row in filled]) for column in ("mean_influence", "exemplar_share"))
        area = [14 + 16 * np.log10(max(1, row["n_candidates"])) for row in filled]
        line = LINES[name]
        axes.plot(x, y, color=line["color"], lw=1.2)
        axes.scatter(
            x,
            y,
            s=area,
            marker=line["marker"],
            color=line["mfc"],
            edgecolors=line["color"],
            zorder=3,
            clip_on=False,
        )
    for which in ("x", "y"):
        _root_axis(axes, which)
    axes.set_box_aspect(1)
    axes.set_xlabel("predicted influence, percent")
    axes.set_ylabel("true share, percent")
    axes.set_title(title)


def similarities(axes: Axes, densities: Mapping[str, tuple[np.ndarray, np.ndarray]], *, title: str) -> None:
    """Draw distributions of cosine similarity: {'distractors' or a series: (edges, share a bin)}.

    Each is scaled to its own peak, since there are thousands of times more distractors than exemplars.
    """
    drawn: list[float] = []
    for name, (edges, share) in densities.items():
        height = share / max(share.max(), 1e-12)
        if name == "distractors":
            axes.stairs(height, edges, fill=True, color=RULE, zorder=1)
        else:
            axes.stairs(height, edges, color=LINES[name]["color"], lw=1.6, zorder=2)
        drawn += [*edges[:-1][height > 0.002], *edges[1:][height > 0.002]]
    axes.set_xlim(min(drawn), min(1.0, max(drawn)))
    axes.set_ylim(0, 1.06)
    axes.set_yticks([0, 0.5, 1], ["0", "50", "100"])
    axes.set_ylabel("percent of its peak")
    axes.set_xlabel("cosine similarity to the query")
    axes.set_title(title)


def mapper_curves(axes: Axes, choice: Choice) -> None:
    """Draw validation mAP over epochs: a line a penalty, a dot a start, a ring at the choice, dotted for untuned."""
    lines: dict[tuple[Any, ...], list[Row]] = {}
    for row in choice.curve:
        lines.setdefault((row["start"], row["shrinkage"], row["penalty"]), []).append(row)
    axes.axhline(choice.untuned, **LINES["untuned mAP"])
    ends: list[tuple[float, float, str, str]] = []
    for key, rows in lines.items():
        chosen = key == (choice.start, choice.shrinkage, choice.penalty)
        line = LINES["chosen penalty" if chosen else "other penalties"] | dict(zorder=3 if chosen else 2)
        x, y = [row["epoch"] for row in rows], [row["validation_mean_average_precision"] for row in rows]
        if key[-1] is None:  # a start without training
            axes.plot(x, y, "o", ms=3.5, color=line["color"], zorder=3, clip_on=False)
        else:
            axes.plot(x, y, **line)
            ends.append((y[-1], x[-1], f"{key[-1]:g}", line["color"]))
    axes.plot([choice.epoch], [choice.value], **LINES["chosen"], zorder=4, clip_on=False)
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
