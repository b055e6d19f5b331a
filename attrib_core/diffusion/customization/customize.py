"""The stage `customize`: train the models of a part that are not there yet, and list all of them.

Deltas stand in the store of all runs, under a key of all that they depend on. The
record beside a delta is written last, so that a model is finished or not; a killed
part loses at most the stack in work. What a job of another run trains meanwhile is waited for, and not trained.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrib_core.common import families, hashing
from attrib_core.common.errors import InputError
from attrib_core.diffusion.customization import inputs, train_stack, training_data
from attrib_core.diffusion.customization.method import Customizer
from attrib_core.diffusion.customization.training_data import ExemplarSet
from attrib_core.diffusion.deltas import delta_files
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.diffusion.pipeline.description import BaseModel
from attrib_core.storage.schemas.generation import MEASURED
from attrib_core.storage.store import claims, layout

LOGGER = logging.getLogger(__name__)
DELTAS = "deltas"


def customize(
    sets: Sequence[ExemplarSet],
    prior: Path,
    base: BaseModel,
    *,
    settings: Mapping[str, Any],
    modifier_token: str,
    run: Path,
    seed: int,
    code: str,
    device: str,
    job: str = "customize_part/whole",
) -> list[dict[str, Any]]:
    """Rows of the table `models`, one for each set in its order; what is missing is trained and written.

    `prior` is the file of the table of that name. `settings` is the config section
    `customizer`: family and options. They, the seed and `code`, the fingerprint of
    what `stacks`, `concepts` and the family reach, are part of each model's key.
    `run` is the folder of the run, beside which the store stands; `job` is under what
    name it is noted which deltas the rows refer to. A delta that is there is taken
    after a check of its bytes. Raises InputError for bad images,
    prompts or a loss that is not finite, once all other sets are trained and written.
    """
    family, options = families.split(settings)
    method: Customizer = families.load("customizers", family, options, where="customizer")
    folder = layout.folder(run, DELTAS)
    classes = {(one.kind, one.category) for one in sets} if method.prior_batch else set()
    prior_rows = inputs.read_prior(prior, classes)
    prints = _prior_prints(prior_rows)
    conditions = {"settings": dict(settings), "token": modifier_token, "seed": seed, "code": code}
    model_keys = {one.name: model_key(one, base.fingerprint, conditions, prints) for one in sets}
    layout.refer(run, job, DELTAS, model_keys.values())
    lacking = [one for one in sets if train_stack.finished(folder, model_keys[one.name]) is None]
    missing = {model_keys[one.name]: one for one in lacking}
    if len(missing) < len(sets):
        LOGGER.info("%d of %d models are there already", len(sets) - len(missing), len(sets))
    loaded: Components | None = None
    width, failures = method.stack, list[str]()
    for mine in claims.turns(
        folder,
        [[model_keys[one.name] for one in members] for members in _stacks(lacking, method.stack)],
        lambda key: train_stack.finished(folder, key) is not None,
        what="models",
    ):
        if loaded is None:
            loaded = train_stack.network(base, modifier_token, device, method.tokens)
            classes &= {(one.kind, one.category) for one in lacking}
            prior_of = training_data.priors(prior_rows, loaded, sorted(classes))
        for members in _stacks([missing[key] for key in mine], method.stack):
            width, failed = train_stack.train(
                members,
                model_keys,
                prior_of,
                loaded,
                method,
                folder=folder,
                token=modifier_token,
                seed=seed,
                width=width,
            )
            failures += failed
    if failures:
        for line in failures[1:]:
            LOGGER.error("%s", line)
        more = f" (and {len(failures) - 1} more sets failed, see the log)" if len(failures) > 1 else ""
        raise InputError(failures[0] + more)
    rows = []
    for one in sets:
        record = train_stack.finished(folder, model_keys[one.name])
        if record is None:
            raise RuntimeError(f"{folder}: the delta of {one.name!r} is gone as soon as it was written")
        rows.append(_row(one, model_keys[one.name], record, family, base, modifier_token))
    return rows


def _stacks(sets: Sequence[ExemplarSet], width: int) -> Iterator[Sequence[ExemplarSet]]:
    """The sets in stacks, each of one kind: kinds may differ in their number of steps."""
    for kind in dict.fromkeys(one.kind for one in sets):
        members = [one for one in sets if one.kind == kind]
        yield from (members[start : start + width] for start in range(0, len(members), width))


def model_key(
    one: ExemplarSet, base: str, conditions: Mapping[str, Any], prior_prints: Mapping[tuple[str, str], str]
) -> str:
    """The key of a model: a digest of all that it depends on. `base` is the base model's fingerprint.

    The stack's width is part of it, by the settings: it may decide last bits.
    """
    pixels = {name: hashlib.sha256(image).hexdigest() for name, image in one.images.items()}
    prior = prior_prints.get((one.kind, one.category), "")
    return hashing.content_key(
        "model", one.name, one.kind, one.category, pixels, one.subjects, prior, base, dict(conditions)
    )


def _prior_prints(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Digest of the prior images and prompts of each class."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        entry = found.setdefault((row["kind"], row["category"]), [])
        entry += [row["prompt"], hashlib.sha256(row["image"]["bytes"]).hexdigest()]
    return {name: hashing.digest(parts) for name, parts in found.items()}


def _row(
    one: ExemplarSet, key: str, record: Mapping[str, Any], family: str, base: BaseModel, token: str
) -> dict[str, Any]:
    delta_path, token_path = delta_files.paths(layout.relative(DELTAS), key)
    return {
        "model_key": key,
        "exemplar_set": one.name,
        "method": family,
        "base_model": base.fingerprint,
        "modifier_token": token,
        "delta_path": delta_path.as_posix(),
        "token_path": token_path.as_posix(),
        **{name: record[name] for name in ("checksum", "steps", "loss", *MEASURED)},
    }
