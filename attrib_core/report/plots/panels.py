"""The panels of the page: which plots a run has, and their text for screen readers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup

from attrib_core.attribution.metrics.metrics_table import TUNED, Metrics, Row
from attrib_core.common.constants import KINDS, UNTUNED
from attrib_core.report import formatting
from attrib_core.report.plots import figures, svg
from attrib_core.report.plots.curves import Curves, Key
from attrib_core.report.plots.style import LINES
from attrib_core.report.plots.svg import Panel
from attrib_core.report.sections.mapper_selection import Choice

FILES = {
    "dots": "recall.svg",
    "curves": "recall_curve.svg",
    "reliability": "reliability.svg",
    "similarities": "similarities.svg",
    "mapper": "mapper.svg",
}


@dataclass(frozen=True)
class Plots:
    """The plots of a run by figure: panels, series of the legend, columns of the file; and the recall curves."""

    panels: dict[str, list[Panel]]
    series: dict[str, list[str]]
    columns: dict[str, int]
    recall_rows: list[Row]

    def inline(self) -> dict[str, list[Markup]]:
        """Return the panels of each figure as `<svg>` elements of the page."""
        return {
            figure: [svg.inline(panel, f"{figure}{i}") for i, panel in enumerate(panels)]
            for figure, panels in self.panels.items()
        }

    def legends(self) -> dict[str, list[tuple[Markup, str]]]:
        """Return the legend of each figure of the page: (mark, label)."""
        return {
            figure: [
                (svg.legend_mark(name, f"{figure}-legend{i}"), LINES[name]["label"])
                for i, name in enumerate(names)
            ]
            for figure, names in self.series.items()
        }

    def files(self) -> dict[str, str]:
        """Return an SVG document for each figure, by file name."""
        return {
            file: svg.sheet(self.panels[figure], self.series[figure], columns=self.columns[figure])
            for figure, file in FILES.items()
        }


def plots_of(
    metrics: Metrics,
    measured: Mapping[Key, Curves],
    reliability: Mapping[str, Sequence[Row]],
    choices: Sequence[Choice],
) -> Plots:
    """Return the plots that the run has numbers for; `reliability` is by panel, as `influence.panels` gives it."""
    panels: dict[str, list[Panel]] = {name: [] for name in FILES}
    recall_rows: list[Row] = []
    for kind in metrics.values("kind", KINDS, split="test"):
        label = f"Recall and mAP of {kind} sets; the numbers are in the table below"
        dots = partial(figures.recall_dots, metrics=metrics, kind=kind)
        panels["dots"].append(Panel(dots, label, figures.recall_dots_height(metrics)))
    for kind in metrics.kinds:
        for encoder in metrics.encoders:
            if (encoder, UNTUNED, kind, "customized") in measured:
                panel, rows = _recall(metrics, measured, kind, encoder)
                panels["curves"].append(panel)
                recall_rows += rows
                panels["similarities"].append(_similarities(metrics, measured, kind, encoder))
    for encoder in metrics.encoders:
        for judged, all_bins in reliability.items():
            bins = {
                name: pooled(
                    _test_bins(all_bins, encoder, {metrics.resolve(mapper, k) for k in metrics.kinds})
                )
                for name, _, mapper in figures.series(metrics)[1:]
            }
            plot = partial(figures.reliability, rows=bins, title=f"{encoder}\n{judged}")
            label = f"Reliability of influence, {encoder}, {judged}"
            panels["reliability"].append(Panel(plot, label, height=300, width=300))
    for choice in choices:
        label = f"Validation over epochs, {choice.encoder}, {formatting.mapper(choice.mapper)}"
        panels["mapper"].append(Panel(partial(figures.mapper_curves, choice=choice), label, height=280))
    series = [name for name, _, _ in figures.series(metrics)]
    legends: dict[str, list[str]] = {
        "dots": [*series, "chance", "ceiling"],
        "curves": [*series, "chance", "ceiling"],
        "reliability": ["diagonal", *series[1:]],
        "similarities": ["distractors", *_similarity_series(metrics)],
        "mapper": ["chosen penalty", "other penalties", "chosen", "untuned mAP"],
    }
    columns = dict.fromkeys(FILES, 2) | dict(reliability=len(reliability))
    return Plots(panels, legends, columns, recall_rows)


def _similarity_series(metrics: Metrics) -> list[str]:
    """The series that the panels of similarities have."""
    mappers = [metrics.mapper_for(kind) for kind in metrics.kinds]
    return ["control", *([UNTUNED] if None in mappers else []), *([TUNED] if any(mappers) else [])]


def _recall(
    metrics: Metrics, measured: Mapping[Key, Curves], kind: str, encoder: str
) -> tuple[Panel, list[Row]]:
    first = measured[encoder, UNTUNED, kind, "customized"]
    curves = {"chance": first.chance, "ceiling": first.ceiling}
    points = []
    for name, condition, mapper in figures.series(metrics):
        curve = measured.get((encoder, metrics.resolve(mapper, kind) or "", kind, condition))
        if curve is not None:
            curves[name] = curve.recall
        for k in metrics.values("k", metric="recall_at_k"):
            row = metrics.get(
                "recall_at_k", k, encoder=encoder, mapper=mapper, kind=kind, condition=condition
            )
            if row and k <= first.ks[-1]:
                points.append((name, row))
    rows: list[Row] = [
        dict(kind=kind, encoder=encoder, k=int(k)) | {name: float(curve[i]) for name, curve in curves.items()}
        for i, k in enumerate(first.ks)
    ]
    plot = partial(
        figures.recall_curves,
        curves=curves,
        ks=first.ks,
        points=points,
        title=f"{kind.capitalize()} sets, {encoder}",
    )
    return Panel(plot, f"Recall over K of {kind} sets, {encoder} features", height=330), rows


def pooled(rows: Iterable[Row]) -> list[Row]:
    """Merge the bins of several calibrators: means over all candidates."""
    bins: dict[float, list[Row]] = {}
    for row in rows:
        bins.setdefault(row["bin_low"], []).append(row)
    return [_pool(bins[low]) for low in sorted(bins)]


def _pool(rows: Sequence[Row]) -> Row:
    if len(rows) == 1:
        return rows[0]
    total = sum(row["n_candidates"] for row in rows)
    found = dict(rows[0], n_candidates=total)
    for name in ("mean_influence", "exemplar_share"):
        parts = [row[name] * row["n_candidates"] for row in rows if row[name] is not None]
        found[name] = sum(parts) / total if total else None
    return found


def _test_bins(rows: Iterable[Row], encoder: str, mappers: Collection[str | None]) -> list[Row]:
    return [
        row
        for row in rows
        if (row["encoder"], row["split"]) == (encoder, "test") and row["mapper"] in mappers
    ]


def _similarities(metrics: Metrics, measured: Mapping[Key, Curves], kind: str, encoder: str) -> Panel:
    """With the tuned features where the kind has any, otherwise the untuned."""
    mapper = metrics.mapper_for(kind)
    name = UNTUNED if mapper is None else TUNED
    own = measured[encoder, mapper or UNTUNED, kind, "customized"]
    densities = {"distractors": own.distractors, name: own.exemplars}
    control = measured.get((encoder, mapper or UNTUNED, kind, "control"))
    if control is not None:
        densities["control"] = control.exemplars
    plot = partial(
        figures.similarities, densities=densities, title=f"{kind.capitalize()} sets, {name} {encoder}"
    )
    return Panel(plot, f"Cosine similarities of {kind} sets, {encoder} features", height=250)
