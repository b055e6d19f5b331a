"""Which features the report speaks of: what "tuned" means in a run, and what the validation split prefers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrib_core.attribution.metrics.best_features import best_on_validation, kinds_for_mapper
from attrib_core.attribution.metrics.metrics_table import Metrics, trained_on
from attrib_core.common.constants import KINDS, UNTUNED
from attrib_core.report import formatting

AN = ("a", "e", "i", "o", "u", "mlp")
"""Beginnings of the names of mappers that take "an"."""


def calibrators(metrics: Metrics) -> list[tuple[str, str, list[str]]]:
    """The best features of each kind by their names in the run, each once, with the kinds that they are for."""
    found = []
    for kind in metrics.kinds:
        encoder, mapper = best_on_validation(metrics, kind)
        real = metrics.resolve(mapper, kind) or UNTUNED
        entry = (encoder, real, kinds_for_mapper(metrics, real))
        if entry not in found:
            found.append(entry)
    return found


def kept(metrics: Metrics, identities: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """(encoder, kind) where TUNED is the identity, given the (encoder, mapper) of which that is so."""
    return [
        (encoder, kind)
        for kind in metrics.kinds
        for encoder in metrics.encoders
        if (encoder, metrics.mapper_for(kind)) in identities
    ]


def meaning(metrics: Metrics) -> str:
    """One sentence: what is called tuned in this run; empty where nothing is."""
    if not metrics.trained_mappers:
        return ""
    heads = {kind: metrics.mapper_for(kind) for kind in KINDS if kind in metrics.kinds}
    sources = {kind: head and trained_on(head) for kind, head in heads.items()}
    if len(sources) > 1 and all(source == kind for kind, source in sources.items()):
        return (
            "Tuned features of a kind of sets are those of the mapper that was trained on sets of that kind."
        )
    return f"Tuned features are {formatting.listing([_source(*pair) for pair in sources.items()])}."


def _source(kind: str, source: str | None) -> str:
    if source is None:
        return f"none for {kind} sets, which no mapper was trained on"
    what = "both kinds of sets" if source == "both" else f"{source} sets"
    return f"for {kind} sets those of the mapper that was trained on {what}"


def names(mappers: Sequence[str]) -> str:
    """The mappers of a run in words: "an object mapper and a style mapper"."""
    found = [formatting.mapper(name) for name in mappers]
    return formatting.listing([f"{'an' if name.startswith(AN) else 'a'} {name}" for name in found])
