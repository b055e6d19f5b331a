"""Select the features (encoder and mapper) that retrieve best on the validation split."""

from __future__ import annotations

from attrib_core.attribution.metrics.metrics_table import TUNED, Metrics, trained_on
from attrib_core.common.constants import UNTUNED


def best_on_validation(metrics: Metrics, kind: str) -> tuple[str, str]:
    """Return the encoder, and UNTUNED or TUNED, with the largest validation mAP above the control for a kind.

    The control is subtracted, since features that only read the content of the prompt retrieve as well for it;
    without a control the mAP itself counts. The test split plays no part in this choice. Without validation
    sets it is the first encoder, tuned where the run has a mapper for the kind.
    """

    def gain(encoder: str, mapper: str) -> float:
        where = dict(encoder=encoder, mapper=mapper, kind=kind, split="validation")
        row = metrics.get("mean_average_precision", None, **where)
        control = metrics.get("mean_average_precision", None, condition="control", **where)
        return row["value"] - (control["value"] if control else 0.0) if row else -1.0

    mappers = [UNTUNED] if metrics.mapper_for(kind) is None else [TUNED, UNTUNED]
    pairs = [(encoder, mapper) for encoder in metrics.encoders for mapper in mappers]
    return max(pairs, key=lambda pair: gain(*pair))


def kinds_for_mapper(metrics: Metrics, mapper: str) -> list[str]:
    """Return the kinds of sets that a mapper and its calibrator apply to: all, unless it was trained on one."""
    return [kind for kind in metrics.kinds if trained_on(mapper) in (kind, "both", UNTUNED)]
