"""All plots of the page: which panels there are, inline for the page and whole for files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from attrib_core.attribution.metrics.metrics_table import TUNED, Metrics, Row
from attrib_core.common.constants import KINDS, UNTUNED
from attrib_core.report import formatting
from attrib_core.report.plots import figures, legend, svg
from attrib_core.report.plots.curves import Curves, Key
from attrib_core.report.sections.mapper_selection import Choice

FILES = {
    "dots": "recall.svg",
    "curves": "recall_curve.svg",
    "reliability": "reliability.svg",
    "similarities": "similarities.svg",
    "mapper": "mapper.svg",
}


@dataclass(frozen=True)
class Drawn:
    """Panels and legends by figure; sheets of panels by file name; the numbers of the recall curves."""

    inline: dict[str, list[Markup]]
    legends: dict[str, list[str]]
    files: dict[str, str]
    recall_rows: list[Row]


def draw(
    metrics: Metrics,
    measured: Mapping[Key, Curves],
    reliability: Mapping[str, Sequence[Row]],
    choices: Sequence[Choice],
) -> Drawn:
    """Draw everything that the run has numbers for; `reliability` is by name of the panel, as `influence.panels`."""
    found: dict[str, list[tuple[str, str]]] = {
        "dots": [],
        "curves": [],
        "reliability": [],
        "similarities": [],
    }
    recall_rows: list[Row] = []
    for kind in metrics.values("kind", KINDS, split="test"):
        label = f"Recall and mAP of {kind} sets; the numbers are in the table below"
        found["dots"].append((figures.recall_dots(metrics, kind), label))
    for kind in metrics.kinds:
        for encoder in metrics.encoders:
            if (encoder, UNTUNED, kind, "customized") not in measured:
                continue
            document, rows = _recall(metrics, measured, kind, encoder)
            recall_rows += rows
            found["curves"].append((document, f"Recall over K of {kind} sets, {encoder} features"))
            document = _similarities(metrics, measured, kind, encoder)
            found["similarities"].append((document, f"Cosines of {kind} sets, {encoder} features"))
    for encoder in metrics.encoders:
        for judged, rows_of in reliability.items():
            bins = {
                name: pooled(
                    _reliability_of(rows_of, encoder, {metrics.resolve(mapper, k) for k in metrics.kinds})
                )
                for name, _, mapper in figures.series(metrics)[1:]
            }
            found["reliability"].append(
                (
                    figures.reliability(bins, title=f"{encoder}\n{judged}"),
                    f"Reliability of influence, {encoder}, {judged}",
                )
            )
    found["mapper"] = [
        (
            figures.mapper_curves(choice),
            f"Validation over epochs, {choice.encoder}, {formatting.mapper(choice.mapper)}",
        )
        for choice in choices
    ]
    looks = [name for name, _, _ in figures.series(metrics)]
    legends: dict[str, list[str]] = {
        "mapper": ["tuned-line", "other-line", "chosen", "untuned-line"],
        "dots": [*looks, "chance", "ceiling"],
        "curves": [*looks, "chance-line", "ceiling-line"],
        "reliability": ["diagonal", *looks[1:]],
        "similarities": ["distractors", *_shown_similarities(metrics)],
    }
    inline = {
        name: [
            Markup(svg.inline(document, name=f"{name}{number}", label=label))
            for number, (document, label) in enumerate(documents)
        ]
        for name, documents in found.items()
    }
    files = {
        FILES[name]: svg.sheet(
            [document for document, _ in documents],
            head=legend.row(legends[name]),
            columns=len(reliability) if name == "reliability" else 2,
        )
        for name, documents in found.items()
    }
    return Drawn(inline, legends, files, recall_rows)


def _shown_similarities(metrics: Metrics) -> list[str]:
    """The looks that the panels of cosines have."""
    heads = [metrics.mapper_for(kind) for kind in metrics.kinds]
    return ["control", *([UNTUNED] if None in heads else []), *([TUNED] if any(heads) else [])]


def _recall(
    metrics: Metrics, measured: Mapping[Key, Curves], kind: str, encoder: str
) -> tuple[str, list[Row]]:
    first = measured[encoder, UNTUNED, kind, "customized"]
    lines = {"chance": first.chance, "ceiling": first.ceiling}
    marks = []
    for name, condition, mapper in figures.series(metrics):
        curve = measured.get((encoder, metrics.resolve(mapper, kind) or "", kind, condition))
        if curve is not None:
            lines[name] = curve.recall
        for k in metrics.values("k", metric="recall_at_k"):
            row = metrics.get(
                "recall_at_k", k, encoder=encoder, mapper=mapper, kind=kind, condition=condition
            )
            if row and k <= first.ks[-1]:
                marks.append((name, row))
    rows: list[Row] = [
        dict(kind=kind, encoder=encoder, k=int(k))
        | {name: float(line[place]) for name, line in lines.items()}
        for place, k in enumerate(first.ks)
    ]
    return figures.recall_curves(lines, first.ks, marks, title=f"{kind.capitalize()} sets, {encoder}"), rows


def pooled(rows: Iterable[Row]) -> list[Row]:
    """Bins of reliability of several calibrators as one: means over the candidates of all."""
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


def _reliability_of(rows: Iterable[Row], encoder: str, mappers: Collection[str | None]) -> list[Row]:
    return [
        row
        for row in rows
        if (row["encoder"], row["split"]) == (encoder, "test") and row["mapper"] in mappers
    ]


def _similarities(metrics: Metrics, measured: Mapping[Key, Curves], kind: str, encoder: str) -> str:
    """With the tuned features where the kind has any, else the untuned."""
    head = metrics.mapper_for(kind)
    name, mapper = (UNTUNED, UNTUNED) if head is None else (TUNED, head)
    own = measured[encoder, mapper, kind, "customized"]
    densities = {"distractors": own.distractors, name: own.exemplars}
    control = measured.get((encoder, mapper, kind, "control"))
    if control is not None:
        densities["control"] = control.exemplars
    return figures.similarities(densities, title=f"{kind.capitalize()} sets, {name} {encoder}")
