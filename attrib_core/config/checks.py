"""What must hold between keys of the config, and between the config and the world."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attrib_core.common import families
from attrib_core.common.constants import SPLITS
from attrib_core.common.errors import InputError
from attrib_core.config.schema import Config
from attrib_core.data import prompts
from attrib_core.data.exemplars import assign_splits, sampling
from attrib_core.diffusion.pipeline import description
from attrib_core.features.heads.heads import check_starts
from attrib_core.storage.store import layout

SPLIT_TOLERANCE = 1e-9
NEEDED = {"train": 2, "validation": 1}
"""Sets that a mapper is trained and chosen on, at least: contrastive training needs two."""
PART = {"pool_images": 1500, "exemplar_sets": 16}
"""Sizes of parts in small runs, where the config names none."""
MOST_PARTS = 160
"""More of either kind make Snakemake's own work felt; so larger runs get larger parts."""


def with_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as plain values, each family's options checked and its defaults filled in."""
    filled = dict(config)
    source = families.complete("sources", config["pool"]["source"], "pool.source")
    filled["pool"] = config["pool"] | {"source": source}
    filled["base_model"] = families.complete("base_models", config["base_model"], "base_model")
    filled["customizer"] = families.complete("customizers", config["customizer"], "customizer")
    filled["prior"] = families.complete("priors", config["prior"], "prior")
    filled["encoders"] = {
        name: families.complete("encoders", section, f"encoders.{name}")
        for name, section in config["encoders"].items()
    }
    return filled


def with_presets(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config with its presets of encoders replaced by what they stand for."""
    encoders = values.get("encoders")
    if not isinstance(encoders, Mapping):
        return dict(values)
    replaced = {
        name: families.with_preset("encoders", section, f"encoders.{name}")
        if isinstance(section, Mapping)
        else section
        for name, section in encoders.items()
    }
    return dict(values) | {"encoders": replaced}


def with_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as plain values, with the sizes of parts that it leaves open: they follow from the run's size.

    Sizes double, so that a run that grows is seldom cut anew.
    """
    exemplars, stack = config["exemplars"], config["customizer"].get("stack", 1)
    items = {
        "pool_images": config["pool"]["images"],
        "exemplar_sets": exemplars["object_sets"] + exemplars["style_sets"],
    }
    smallest = PART | {"exemplar_sets": math.ceil(PART["exemplar_sets"] / stack) * stack}
    sizes = {name: _doubled(smallest[name], number) for name, number in items.items()}
    parts = {name: sizes.get(name) if given is None else given for name, given in config["parts"].items()}
    return dict(config) | {"parts": parts}


def _doubled(size: int, items: int) -> int:
    """A part's size, doubled until there are no more than MOST_PARTS parts."""
    while items > MOST_PARTS * size:
        size *= 2
    return size


def between_keys(config: Config) -> None:
    """What the model alone cannot say; InputError names the keys."""
    if config.run == layout.STORE:
        raise InputError(f"run: {config.run!r} is the name of the store of all runs; choose another")
    exemplars = config.exemplars
    splits = exemplars.splits
    total = splits.train + splits.validation + splits.test
    if abs(total - 1) > SPLIT_TOLERANCE:
        raise InputError(
            f"exemplars.splits: train {splits.train} + validation {splits.validation} + test {splits.test}"
            f" = {total:g}; they must sum to 1"
        )
    low, high = exemplars.style_set_size
    if low > high:
        raise InputError(f"exemplars.style_set_size: [{low}, {high}]; the smallest size comes first")
    sets = exemplars.object_sets + exemplars.style_sets
    if sets == 0:
        raise InputError("exemplars: object_sets and style_sets are both 0; at least one set is needed")
    needed = exemplars.object_sets + exemplars.style_sets * low
    if needed > config.pool.images:
        raise InputError(
            f"pool.images: {config.pool.images} images are too few for {exemplars.object_sets} object sets and"
            f" {exemplars.style_sets} style sets of {low} or more; at least {needed} are needed"
        )
    if config.calibration.shown > config.ranking.top_k:
        raise InputError(
            f"calibration.shown: {config.calibration.shown} is more than the candidates that are kept"
            f" (ranking.top_k = {config.ranking.top_k})"
        )
    for name in ("forms", "pool_shares"):
        given = getattr(config.calibration, name)
        if len(set(given)) < len(given):
            raise InputError(f"calibration.{name}: {given}; each once: {list(dict.fromkeys(given))}")
    if config.synthesis.solver != "ddim" and config.synthesis.eta > 0:
        raise InputError(
            f"synthesis.eta: {config.synthesis.eta}, but synthesis.solver {config.synthesis.solver!r} adds no noise;"
            " set eta to 0, or solver to 'ddim'"
        )
    grouped = [name for group in config.metrics.alike for name in group]
    if len(set(grouped)) < len(grouped):
        twice = max(grouped, key=grouped.count)
        raise InputError(
            f"metrics.alike: category {twice!r} is there twice, expected each in one group at most"
        )
    ks = config.metrics.recall_ks
    if sorted(set(ks)) != ks:
        raise InputError(f"metrics.recall_ks: {ks}; cut-offs rise, each once: {sorted(set(ks))}")
    for kind, number in (("object", exemplars.object_sets), ("style", exemplars.style_sets)):
        if number and not getattr(config.prompts, kind):
            raise InputError(f"prompts.{kind}: no list, but exemplars.{kind}_sets is {number}")
        if kind in config.mapper.trained_on and not number:
            raise InputError(
                f"mapper.trained_on: {config.mapper.trained_on}, but exemplars.{kind}_sets is 0;"
                f" take {kind!r} out, so that it is {_without(config.mapper.trained_on, kind)}"
            )
    check_starts(config.mapper.head, config.mapper.starts)
    trained_on = config.mapper.trained_on
    if len(set(trained_on)) < len(trained_on):
        raise InputError(f"mapper.trained_on: {trained_on}; each once: {list(dict.fromkeys(trained_on))}")
    _long_enough(config)


def _long_enough(config: Config) -> None:
    """Each kind of sets that a mapper is trained on gives train and validation as many sets as tuning needs.

    Numbers of sets are exact, so it is known before the first model, and not after the last.
    """
    given = _by_split(config)
    given["both"] = {name: given["object"][name] + given["style"][name] for name in SPLITS}
    for kind in config.mapper.trained_on:
        found, few = given[kind], [name for name, least in NEEDED.items() if given[kind][name] < least]
        if few:
            sets = {"both": "object_sets or exemplars.style_sets"}.get(kind, f"{kind}_sets")
            raise InputError(
                f"exemplars.splits: train has {found['train']} and validation {found['validation']} sets for"
                f" mapper.trained_on {kind!r}, which needs {NEEDED['train']} and {NEEDED['validation']} or more; raise"
                f" the share of {' and '.join(few)} or exemplars.{sets}"
            )


def untested(config: Config) -> list[str]:
    """A line about each kind of sets of which the test split has none; such a run ends well and measures nothing."""
    sets = {"object": config.exemplars.object_sets, "style": config.exemplars.style_sets}
    return [
        f"exemplars.splits: test has none of {sets[kind]} {kind} sets, and all headline numbers are of the test split"
        for kind, given in _by_split(config).items()
        if sets[kind] and not given["test"]
    ]


def _by_split(config: Config) -> dict[str, dict[str, int]]:
    """How many sets of each kind each split gets."""
    shares = config.exemplars.splits.model_dump()
    return {
        "object": assign_splits.counts(config.exemplars.object_sets, shares),
        "style": assign_splits.counts(config.exemplars.style_sets, shares),
    }


def _without(trained_on: Sequence[str], kind: str) -> list[str]:
    """What `mapper.trained_on` should say; at least the other kind, which has sets."""
    return [one for one in trained_on if one != kind] or ["style" if kind == "object" else "object"]


def stacks(config: Mapping[str, Any]) -> None:
    """A part is a whole number of stacks, where the customizer trains several sets at once."""
    stack = config["customizer"].get("stack", 1)
    size = config["parts"]["exemplar_sets"]
    if size % stack:
        near = math.ceil(size / stack) * stack
        raise InputError(
            f"parts.exemplar_sets: {size} is no whole number of stacks of {stack} (customizer.stack); try {near}"
        )


def prompt_lists(config: Config) -> None:
    """Every list exists, is well formed, and is long enough where there are sets of its kind."""
    needed = {"object": config.exemplars.object_sets, "style": config.exemplars.style_sets}
    for kind, number in needed.items():
        for prompt_kind, entry in getattr(config.prompts, kind).items():
            where = f"prompts.{kind}.{prompt_kind}"
            if not isinstance(entry, str) and len(entry) < len(SPLITS):
                lacking = [split for split in SPLITS if split not in entry]
                raise InputError(f"{where}: no list for {' and '.join(lacking)}; expected one for each split")
            for name in prompts.list_names(entry):
                _check_list(name, where, config.prompts.prompts_each if number else 0)


def _check_list(name: str, where: str, needed: int) -> None:
    try:
        entries = len(prompts.read_list(name))
    except InputError as error:
        raise InputError(f"{where}: {str(error).removeprefix('prompts: ')}") from None
    if entries < needed:
        raise InputError(
            f"{where}: list {name!r} has {entries} entries, fewer than prompts.prompts_each = {needed}"
        )


def source_rows(config: Mapping[str, Any]) -> None:
    """The source has the rows that are asked, and enough of them for the exemplars, where it can say so."""
    family, options = families.split(config["pool"]["source"])
    source = families.load("sources", family, options, where="pool.source", seed=config["seed"])
    images = config["pool"]["images"]
    if hasattr(source, "__len__") and images > len(source):
        raise InputError(f"pool.images: {images} is more than the {len(source)} images of source {family!r}")
    if hasattr(source, "labels"):
        asked = ("object_sets", "style_sets", "style_set_size", "unseen_categories", "held_out_only")
        options = {name: config["exemplars"][name] for name in asked}
        sampling.check_enough(source.labels(0, images), _held_out(config), source=family, **options)


def _held_out(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the base model never saw, without a look at its weights; None where it does not say."""
    family, options = families.split(config["base_model"])
    try:
        files = families.module("base_models", family).files(**options)
    except InputError:
        return None  # weights that are missing are told with more words when the model is described
    listed = [path for path in files if path.name == description.HELD_OUT]
    return description.held_out(listed[0]) if listed else None
