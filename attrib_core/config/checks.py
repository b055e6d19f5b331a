"""Fill in defaults of the config, and check its keys against each other and against files."""

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
LEAST_SETS = {"train": 2, "validation": 1}
"""Least numbers of sets to tune a mapper: contrastive training needs two."""
SMALLEST_PART = {"pool_images": 1500, "exemplar_sets": 16}
"""Default sizes of parts in small runs."""
MOST_PARTS = 160
"""More parts of either kind make Snakemake slow, so larger runs get larger parts."""


def fill_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check the options of each family and fill in their defaults; config as plain values."""
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


def expand_presets(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the presets of encoders in the raw values of a config by family and options."""
    encoders = values.get("encoders")
    if not isinstance(encoders, Mapping):
        return dict(values)
    expanded = {
        name: families.with_preset("encoders", section, f"encoders.{name}")
        if isinstance(section, Mapping)
        else section
        for name, section in encoders.items()
    }
    return dict(values) | {"encoders": expanded}


def fill_part_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the sizes of parts that are null, by the size of the run; config as plain values.

    Sizes are doubled, so that the parts of a growing run seldom change.
    """
    exemplars, stack = config["exemplars"], config["customizer"].get("stack", 1)
    items = {
        "pool_images": config["pool"]["images"],
        "exemplar_sets": exemplars["object_sets"] + exemplars["style_sets"],
    }
    smallest = SMALLEST_PART | {"exemplar_sets": math.ceil(SMALLEST_PART["exemplar_sets"] / stack) * stack}
    sizes = {name: _doubled(smallest[name], number) for name, number in items.items()}
    parts = {name: sizes.get(name) if given is None else given for name, given in config["parts"].items()}
    return dict(config) | {"parts": parts}


def _doubled(size: int, items: int) -> int:
    """Double a part's size until there are at most MOST_PARTS parts."""
    while items > MOST_PARTS * size:
        size *= 2
    return size


def check_across_keys(config: Config) -> None:
    """Check conditions on several keys, which the schema cannot express; InputError with the keys."""
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
            f"calibration.shown: {config.calibration.shown} is more than the number of kept candidates"
            f" (ranking.top_k = {config.ranking.top_k})"
        )
    for section, name in (("calibration", "forms"), ("calibration", "pool_shares"), ("mapper", "trained_on")):
        given = getattr(getattr(config, section), name)
        if len(set(given)) < len(given):
            raise InputError(f"{section}.{name}: {given}; expected each once: {list(dict.fromkeys(given))}")
    if config.synthesis.solver != "ddim" and config.synthesis.eta > 0:
        raise InputError(
            f"synthesis.eta: {config.synthesis.eta}, but synthesis.solver {config.synthesis.solver!r} adds no noise;"
            " set eta to 0, or solver to 'ddim'"
        )
    grouped = [name for group in config.metrics.alike for name in group]
    if len(set(grouped)) < len(grouped):
        twice = max(grouped, key=grouped.count)
        raise InputError(
            f"metrics.alike: category {twice!r} is there twice, expected each in at most one group"
        )
    ks = config.metrics.recall_ks
    if sorted(set(ks)) != ks:
        raise InputError(
            f"metrics.recall_ks: {ks}; expected increasing cut-offs, each once: {sorted(set(ks))}"
        )
    for kind, number in (("object", exemplars.object_sets), ("style", exemplars.style_sets)):
        if number and not getattr(config.prompts, kind):
            raise InputError(f"prompts.{kind}: no list, but exemplars.{kind}_sets is {number}")
        if kind in config.mapper.trained_on and not number:
            raise InputError(
                f"mapper.trained_on: {config.mapper.trained_on}, but exemplars.{kind}_sets is 0;"
                f" take {kind!r} out, so that it is {_without(config.mapper.trained_on, kind)}"
            )
    check_starts(config.mapper.head, config.mapper.starts)
    _check_tuning_sets(config)


def _check_tuning_sets(config: Config) -> None:
    """Check that train and validation have enough sets of each kind that a mapper is trained on."""
    given = _sets_by_split(config)
    given["both"] = {name: given["object"][name] + given["style"][name] for name in SPLITS}
    for kind in config.mapper.trained_on:
        found, few = given[kind], [name for name, least in LEAST_SETS.items() if given[kind][name] < least]
        if few:
            sets = {"both": "object_sets or exemplars.style_sets"}.get(kind, f"{kind}_sets")
            raise InputError(
                f"exemplars.splits: train has {found['train']} and validation {found['validation']} sets for"
                f" mapper.trained_on {kind!r}, which needs {LEAST_SETS['train']} and"
                f" {LEAST_SETS['validation']} or more; raise the share of {' and '.join(few)} or exemplars.{sets}"
            )


def warnings(config: Config) -> list[str]:
    """Return a warning for each kind of sets without any in the test split: nothing would be measured."""
    sets = {"object": config.exemplars.object_sets, "style": config.exemplars.style_sets}
    return [
        f"exemplars.splits: test has none of {sets[kind]} {kind} sets, and all headline numbers are of the test split"
        for kind, given in _sets_by_split(config).items()
        if sets[kind] and not given["test"]
    ]


def _sets_by_split(config: Config) -> dict[str, dict[str, int]]:
    """Return the number of sets by kind and split."""
    shares = config.exemplars.splits.model_dump()
    return {
        "object": assign_splits.counts(config.exemplars.object_sets, shares),
        "style": assign_splits.counts(config.exemplars.style_sets, shares),
    }


def _without(trained_on: Sequence[str], kind: str) -> list[str]:
    """Return `mapper.trained_on` without a kind; at least the other kind, which has sets."""
    return [one for one in trained_on if one != kind] or ["style" if kind == "object" else "object"]


def check_stacks(config: Mapping[str, Any]) -> None:
    """Check that a part is a multiple of the stack, if the customizer trains several sets at once."""
    stack = config["customizer"].get("stack", 1)
    size = config["parts"]["exemplar_sets"]
    if size % stack:
        near = math.ceil(size / stack) * stack
        raise InputError(
            f"parts.exemplar_sets: {size} is not a multiple of the stack of {stack} (customizer.stack); try {near}"
        )


def check_prompt_lists(config: Config) -> None:
    """Check that each list exists, is well formed, and is long enough if there are sets of its kind."""
    needed = {"object": config.exemplars.object_sets, "style": config.exemplars.style_sets}
    for kind, number in needed.items():
        for prompt_kind, entry in getattr(config.prompts, kind).items():
            where = f"prompts.{kind}.{prompt_kind}"
            if not isinstance(entry, str) and len(entry) < len(SPLITS):
                missing = [split for split in SPLITS if split not in entry]
                raise InputError(f"{where}: no list for {' and '.join(missing)}; expected one for each split")
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


def check_source(config: Mapping[str, Any]) -> None:
    """Check that the source has enough rows, and enough candidates for exemplars if it gives labels."""
    family, options = families.split(config["pool"]["source"])
    source = families.load("sources", family, options, where="pool.source", seed=config["seed"])
    images = config["pool"]["images"]
    if hasattr(source, "__len__") and images > len(source):
        raise InputError(f"pool.images: {images} is more than the {len(source)} images of source {family!r}")
    if hasattr(source, "labels"):
        names = ("object_sets", "style_sets", "style_set_size", "unseen_categories", "held_out_only")
        options = {name: config["exemplars"][name] for name in names}
        sampling.check_enough(source.labels(0, images), _held_out(config), source=family, **options)


def source_warnings(config: Mapping[str, Any]) -> list[str]:
    """Return what the source finds odd, such as rows that become rejects; of the config as plain values."""
    family, options = families.split(config["pool"]["source"])
    source = families.load("sources", family, options, where="pool.source", seed=config["seed"])
    return [f"pool.source: {line}" for line in source.warnings()] if hasattr(source, "warnings") else []


def _held_out(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the base model was not trained on, without reading weights; None if it does not say."""
    family, options = families.split(config["base_model"])
    try:
        files = families.module("base_models", family).files(**options)
    except InputError:
        return None  # a better message about missing weights comes when the model is described
    listed = [path for path in files if path.name == description.HELD_OUT]
    return description.held_out(listed[0]) if listed else None
