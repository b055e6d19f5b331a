"""Which features the report speaks of: what "tuned" means in a run, and what the validation split prefers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrib_core.report import words
from attrib_core.report.data import KINDS, TUNED, UNTUNED, Metrics, trained_on

AN = ("a", "e", "i", "o", "u", "mlp")
"""Beginnings of the names of mappers that take "an"."""


def best(metrics: Metrics, kind: str) -> tuple[str, str]:
    """Encoder, and UNTUNED or TUNED, whose mAP on the validation sets of a kind is farthest above its control's.

    Without a control it is the highest mAP. What the words of a prompt say, the control says too: features
    that read nothing else lie above theirs by nothing. The test split plays no part in this choice.
    Without validation sets it is the first encoder, tuned where the run has a mapper for the kind.
    """

    def value(encoder: str, mapper: str) -> float:
        where = dict(encoder=encoder, mapper=mapper, kind=kind, split="validation")
        row = metrics.get("mean_average_precision", None, **where)
        control = metrics.get("mean_average_precision", None, condition="control", **where)
        return row["value"] - (control["value"] if control else 0.0) if row else -1.0

    mappers = [UNTUNED] if metrics.head(kind) is None else [TUNED, UNTUNED]
    pairs = [(encoder, mapper) for encoder in metrics.encoders for mapper in mappers]
    return max(pairs, key=lambda pair: value(*pair))


def calibrators(metrics: Metrics) -> list[tuple[str, str, list[str]]]:
    """The best features of each kind by their names in the run, each once, with the kinds that they are for."""
    found = []
    for kind in metrics.kinds:
        encoder, mapper = best(metrics, kind)
        real = metrics.real(mapper, kind) or UNTUNED
        entry = (encoder, real, kinds_of(metrics, real))
        if entry not in found:
            found.append(entry)
    return found


def kinds_of(metrics: Metrics, mapper: str) -> list[str]:
    """The kinds of sets that a mapper is for, and its calibrator: all, unless it was trained on one."""
    return [kind for kind in metrics.kinds if trained_on(mapper) in (kind, "both", UNTUNED)]


def kept(metrics: Metrics, identities: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """(encoder, kind) where TUNED is the identity, given the (encoder, mapper) of which that is so."""
    return [
        (encoder, kind)
        for kind in metrics.kinds
        for encoder in metrics.encoders
        if (encoder, metrics.head(kind)) in identities
    ]


def meaning(metrics: Metrics) -> str:
    """One sentence: what is called tuned in this run; empty where nothing is."""
    if not metrics.heads:
        return ""
    heads = {kind: metrics.head(kind) for kind in KINDS if kind in metrics.kinds}
    sources = {kind: head and trained_on(head) for kind, head in heads.items()}
    if len(sources) > 1 and all(source == kind for kind, source in sources.items()):
        return (
            "Tuned features of a kind of sets are those of the mapper that was trained on sets of that kind."
        )
    return f"Tuned features are {words.listing([_source(*pair) for pair in sources.items()])}."


def _source(kind: str, source: str | None) -> str:
    if source is None:
        return f"none for {kind} sets, which no mapper was trained on"
    what = "both kinds of sets" if source == "both" else f"{source} sets"
    return f"for {kind} sets those of the mapper that was trained on {what}"


def names(mappers: Sequence[str]) -> str:
    """The mappers of a run in words: "an object mapper and a style mapper"."""
    found = [words.mapper(name) for name in mappers]
    return words.listing([f"{'an' if name.startswith(AN) else 'a'} {name}" for name in found])
