"""All plots of the page: which panels there are, inline for the page and whole for files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from attrib_core.report import figures, legend, svg, words
from attrib_core.report.curves import Curves, Key
from attrib_core.report.data import KINDS, UNTUNED, Metrics, Row
from attrib_core.report.mapper_choice import Choice

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
    reliability: Sequence[Row],
    choices: Sequence[Choice],
) -> Drawn:
    """Draw everything that the run has numbers for."""
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
        bins = {
            name: [
                row
                for row in reliability
                if (row["encoder"], row["mapper"], row["split"]) == (encoder, mapper, "test")
            ]
            for name, _, mapper in figures.series(metrics)[1:]
        }
        found["reliability"].append(
            (figures.reliability(bins, title=encoder), f"Reliability of influence, {encoder}")
        )
    found["mapper"] = [
        (figures.mapper_curves(choice), f"Validation over epochs, {choice.encoder}") for choice in choices
    ]
    looks = [name for name, _, _ in figures.series(metrics)]
    legends: dict[str, list[str]] = {
        "mapper": ["tuned-line", "other-line", "chosen", "untuned-line"],
        "dots": [*looks, "chance", "ceiling"],
        "curves": [*looks, "chance-line", "ceiling-line"],
        "reliability": ["diagonal", *looks[1:]],
        "similarities": ["distractors", "control", looks[-1]],
    }
    inline = {
        name: [
            Markup(svg.inline(document, name=f"{name}{number}", label=label))
            for number, (document, label) in enumerate(documents)
        ]
        for name, documents in found.items()
    }
    files = {
        FILES[name]: svg.sheet([document for document, _ in documents], head=legend.row(legends[name]))
        for name, documents in found.items()
    }
    return Drawn(inline, legends, files, recall_rows)


def _recall(
    metrics: Metrics, measured: Mapping[Key, Curves], kind: str, encoder: str
) -> tuple[str, list[Row]]:
    first = measured[encoder, UNTUNED, kind, "customized"]
    lines = {"chance": first.chance, "ceiling": first.ceiling}
    marks = []
    for name, condition, mapper in figures.series(metrics):
        if (encoder, mapper, kind, condition) in measured:
            lines[name] = measured[encoder, mapper, kind, condition].recall
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


def _similarities(metrics: Metrics, measured: Mapping[Key, Curves], kind: str, encoder: str) -> str:
    """With the tuned features where there are any, else the untuned."""
    name, _, mapper = figures.series(metrics)[-1]
    own = measured[encoder, mapper, kind, "customized"]
    densities = {"distractors": own.distractors, name: own.exemplars}
    control = measured.get((encoder, mapper, kind, "control"))
    if control is not None:
        densities["control"] = control.exemplars
    return figures.similarities(
        densities, title=f"{kind.capitalize()} sets, {words.mapper(mapper)} {encoder}"
    )
