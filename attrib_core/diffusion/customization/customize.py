"""The stage `customize`: train the models of a part that are missing, and list all of them.

Deltas are in the store that all runs share, under a key of everything they depend on. The record of a delta is
written last, so that a model is finished or not; a killed part loses at most the stack it was training.
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
from attrib_core.storage.store import layout, make_missing
from attrib_core.storage.store.make_missing import StoredResults

LOGGER = logging.getLogger(__name__)


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
    """Return a row of the table `models` for each set, in their order, after training and writing what is missing.

    `prior` is the file of the table of that name. `settings` is the config section `customizer`: family and options.
    They, the seed and `code`, the fingerprint of what `train_stack`, `training_data` and the family reach, are part of
    each model's key. `run` is the folder of the run, next to which the store is; `job` is the name under which the
    keys of the models are noted. A delta that is there is used after a check of its bytes. Raises InputError for bad
    images, bad prompts or a loss that is not finite, once all other sets are trained and written.
    """
    family, options = families.split(settings)
    method: Customizer = families.load("customizers", family, options, where="customizer")
    classes = {(one.kind, one.category) for one in sets} if method.prior_batch else set()
    prior_rows = inputs.read_prior(prior, classes)
    prior_digests = _prior_digests(prior_rows)
    conditions = {"settings": dict(settings), "token": modifier_token, "seed": seed, "code": code}
    model_keys = {one.name: model_key(one, base.fingerprint, conditions, prior_digests) for one in sets}
    by_key = {model_keys[one.name]: one for one in sets}
    wanted = StoredResults(list(by_key), run, job, layout.DELTAS, train_stack.finished)
    missing = {key: by_key[key] for key in make_missing.find_missing(wanted, "%d of %d models")}
    groups = [
        [model_keys[one.name] for one in stack] for stack in _stacks(list(missing.values()), method.stack)
    ]
    loaded: Components | None = None
    width, failures = method.stack, list[str]()
    for keys in make_missing.take_turns(wanted, groups, "models"):
        if loaded is None:
            loaded = train_stack.load_network(base, modifier_token, device, method.tokens)
            classes &= {(one.kind, one.category) for one in missing.values()}
            prior_of = training_data.encode_prior_images(prior_rows, loaded, sorted(classes))
        for stack in _stacks([missing[key] for key in keys], method.stack):
            width, failed = train_stack.train(
                stack,
                model_keys,
                prior_of,
                loaded,
                method,
                folder=wanted.folder,
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
        record = train_stack.finished(wanted.folder, model_keys[one.name])
        if record is None:
            raise RuntimeError(
                f"{wanted.folder}: the delta of {one.name!r} was removed right after it was written"
            )
        rows.append(_row(one, model_keys[one.name], record, family, base, modifier_token))
    return rows


def _stacks(sets: Sequence[ExemplarSet], width: int) -> Iterator[Sequence[ExemplarSet]]:
    """Yield the sets in stacks of one kind each: kinds may differ in their number of steps."""
    for kind in dict.fromkeys(one.kind for one in sets):
        members = [one for one in sets if one.kind == kind]
        yield from (members[start : start + width] for start in range(0, len(members), width))


def model_key(
    one: ExemplarSet, base: str, conditions: Mapping[str, Any], prior_digests: Mapping[tuple[str, str], str]
) -> str:
    """Return the key of a model: a digest of everything it depends on. `base` is the base model's fingerprint.

    The width of the stack is part of it, through the settings: it may decide last bits.
    """
    pixels = {name: hashlib.sha256(image).hexdigest() for name, image in one.images.items()}
    prior = prior_digests.get((one.kind, one.category), "")
    return hashing.content_key(
        "model", one.name, one.kind, one.category, pixels, one.subjects, prior, base, dict(conditions)
    )


def _prior_digests(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Return a digest of the prior images and prompts of each class."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        entry = found.setdefault((row["kind"], row["category"]), [])
        entry += [row["prompt"], hashlib.sha256(row["image"]["bytes"]).hexdigest()]
    return {name: hashing.digest(parts) for name, parts in found.items()}


def _row(
    one: ExemplarSet, key: str, record: Mapping[str, Any], family: str, base: BaseModel, token: str
) -> dict[str, Any]:
    delta_path, token_path = delta_files.paths(layout.relative(layout.DELTAS), key)
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
