"""Select an encoder's features that retrieve best on the validation split."""

from __future__ import annotations

from attrib_core.attribution.metrics.metrics_table import TUNED, UNTUNED, Metrics, trained_on


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


def kinds_of(metrics: Metrics, mapper: str) -> list[str]:
    """The kinds of sets that a mapper is for, and its calibrator: all, unless it was trained on one."""
    return [kind for kind in metrics.kinds if trained_on(mapper) in (kind, "both", UNTUNED)]
