"""Requested images: every prompt of a set, a number of samples, customized and control."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from attrib_core.common import hashing
from attrib_core.common.errors import InputError

CUSTOMIZED, CONTROL = "customized", "control"


@dataclass(frozen=True)
class Request:
    """An image to generate; for a control, `model_key` is the base model's fingerprint."""

    query_id: str
    exemplar_set: str
    model_key: str
    condition: str
    prompt_kind: str
    prompt_index: int
    sample_index: int
    prompt: str
    seed: int


def model_requests(
    model: Mapping[str, Any],
    prompts: Iterable[Mapping[str, Any]],
    *,
    samples_each: int,
    control_samples_each: int,
    seed: int,
) -> list[Request]:
    """List the requests of one model, from its row of the table `models` and the rows of `prompts` of its set.

    Each prompt has `samples_each` customized images and `control_samples_each` controls. A customized image and its
    control share their seed, so that they differ only by the model and the token. Raises InputError for a prompt
    without the modifier token, and for a control prompt with it.
    """
    token = model["modifier_token"]
    rows = list(prompts)
    if not rows:
        raise InputError(
            f"prompts of {model['exemplar_set']!r}: there are none; run the rule exemplars again"
        )
    for row in rows:
        if token not in row["prompt"]:
            raise InputError(
                f"prompts of {row['exemplar_set']!r}: {row['prompt']!r} lacks the modifier token {token!r}"
            )
        if token in row["control_prompt"]:
            raise InputError(
                f"prompts of {row['exemplar_set']!r}: control prompt {row['control_prompt']!r} has the modifier"
                f" token {token!r}, which the base model does not know"
            )
    return [
        Request(
            query_id=f"{row['exemplar_set']}.{condition}.{row['prompt_kind']}-{row['prompt_index']}.{sample}",
            exemplar_set=row["exemplar_set"],
            model_key=model["model_key"] if condition == CUSTOMIZED else model["base_model"],
            condition=condition,
            prompt_kind=row["prompt_kind"],
            prompt_index=row["prompt_index"],
            sample_index=sample,
            prompt=row["prompt"] if condition == CUSTOMIZED else row["control_prompt"],
            seed=hashing.seed(
                "synthesize", seed, row["exemplar_set"], row["prompt_kind"], row["prompt_index"], sample
            ),
        )
        for condition, samples in ((CUSTOMIZED, samples_each), (CONTROL, control_samples_each))
        for row in rows
        for sample in range(samples)
    ]
