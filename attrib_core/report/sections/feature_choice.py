"""The features of the report: the meaning of "tuned" in a run, and those selected on the validation split."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrib_core.attribution.metrics.best_features import best_on_validation, kinds_for_mapper
from attrib_core.attribution.metrics.metrics_table import Metrics, trained_on
from attrib_core.common.constants import KINDS, UNTUNED
from attrib_core.report import formatting

AN = ("a", "e", "i", "o", "u", "mlp")
"""Prefixes of mapper names with the article "an"."""


def calibrators(metrics: Metrics) -> list[tuple[str, str, list[str]]]:
    """Return (encoder, mapper, kinds it applies to) of the best features of each kind, without duplicates."""
    found = []
    for kind in metrics.kinds:
        encoder, mapper = best_on_validation(metrics, kind)
        mapper = metrics.resolve(mapper, kind) or UNTUNED
        entry = (encoder, mapper, kinds_for_mapper(metrics, mapper))
        if entry not in found:
            found.append(entry)
    return found


def kept(metrics: Metrics, identities: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the (encoder, kind) whose tuned mapper is one of `identities`, (encoder, mapper)."""
    return [
        (encoder, kind)
        for kind in metrics.kinds
        for encoder in metrics.encoders
        if (encoder, metrics.mapper_for(kind)) in identities
    ]


def meaning(metrics: Metrics) -> str:
    """Return a sentence on what is called tuned in this run, empty without mappers."""
    if not metrics.trained_mappers:
        return ""
    mappers = {kind: metrics.mapper_for(kind) for kind in KINDS if kind in metrics.kinds}
    sources = {kind: mapper and trained_on(mapper) for kind, mapper in mappers.items()}
    if len(sources) > 1 and all(source == kind for kind, source in sources.items()):
        return "Tuned features of a kind of sets are those of the mapper that was trained on this kind."
    return f"Tuned features are {formatting.listing([_source(*pair) for pair in sources.items()])}."


def _source(kind: str, source: str | None) -> str:
    if source is None:
        return f"none for {kind} sets, on which no mapper was trained"
    what = "both kinds of sets" if source == "both" else f"{source} sets"
    return f"for {kind} sets those of the mapper that was trained on {what}"


def names(mappers: Sequence[str]) -> str:
    """Return the mappers of a run as text: "an object mapper and a style mapper"."""
    found = [formatting.mapper(name) for name in mappers]
    return formatting.listing([f"{'an' if name.startswith(AN) else 'a'} {name}" for name in found])
