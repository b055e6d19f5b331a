"""`python -m attrib_core abc tune`: train a mapper on AbC features and write it as an AbC checkpoint."""

from __future__ import annotations

import argparse
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrib_core.cli import abc_options
from attrib_core.cli.console import log_to_stderr
from attrib_core.cli.out_paths import check_pth
from attrib_core.common.errors import InputError
from attrib_core.common.validation import validate

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from attrib_core.abc_benchmark.test_cases import TestCase
    from attrib_core.features.mapper.tune import Tuning

NOT_OPTIONS = ("trained_on",)
"""Keys of the section that are no options: the files determine what is trained on."""
CHANNEL_STARTS = ["identity"]
"""Default of --starts with --head channel, the only start that such a head has."""
SPLITS = {"train": "to train on", "validation": "that start, penalty and epoch are chosen by"}


def add(one: argparse.ArgumentParser, mapper: type[BaseModel]) -> None:
    """Add the options; those of training are the keys of `mapper`, a section of the config."""
    abc_options.add_pool(one)
    for split, purpose in SPLITS.items():
        text = f"features of the models {purpose}: .pth, as abc embed writes them from a JSON of test cases"
        abc_options.add_files(one, f"--{split}", text, required=True)
        abc_options.add_files(one, f"--{split}-cases", "JSON of each of them, to check the features against")
    for name, field in mapper.model_fields.items():
        if name not in NOT_OPTIONS:
            one.add_argument(_option(name), **_keywords(name, field))
    abc_options.add_integer(one, "--seed", 0, "seed of pairs, distractors and mlps")
    one.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="F",
        help="checkpoint, NAME_tuned.pth; NAME_tuned.curve.parquet and NAME_tuned.choice.json are written next to it",
    )
    one.set_defaults(run=tune, section=mapper)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _keywords(name: str, field: FieldInfo) -> dict[str, Any]:
    """Return the keywords of `add_argument` for a key of the config; its bounds are checked later."""
    many = typing.get_origin(field.annotation) is list
    kind = typing.get_args(field.annotation)[0] if many else field.annotation
    if hasattr(kind, "__metadata__"):  # Annotated, with the bounds
        kind = typing.get_args(kind)[0]
    default = " ".join(map(str, field.default)) if many else str(field.default).lower()
    found: dict[str, Any] = {"default": field.default, "help": f"{field.description}; default: {default}"}
    if name == "starts":  # its default depends on --head
        found["default"] = None
        found["help"] += f"; with --head channel {' '.join(CHANNEL_STARTS)}"
    if kind is bool:
        return found | {"action": argparse.BooleanOptionalAction}
    if many:
        found["nargs"] = "+"
    if typing.get_origin(kind) is typing.Literal:
        return found | {"choices": typing.get_args(kind)}
    return found | {"type": kind, "metavar": "X" if kind is float else "N"}


def tune(arguments: argparse.Namespace) -> int:
    """Read the features, train, choose, write, and print the choice."""
    from dataclasses import fields

    from attrib_core.abc_benchmark import feature_files
    from attrib_core.abc_benchmark.tuning_data import read_tuning_data
    from attrib_core.features.heads import heads
    from attrib_core.features.mapper import tune as tuning

    try:
        values = _settings(arguments)
        check_pth(arguments.out)
        with log_to_stderr("abc tune"):
            data = read_tuning_data(
                feature_files.open_pool(arguments.pool),
                *(_tests(split, arguments) for split in SPLITS),
                validation_distractors=values["validation_distractors"],
                distractors=values["distractors"],
                seed=arguments.seed,
            )
            found = tuning.tune(
                data,
                tuning.Settings(**{field.name: values[field.name] for field in fields(tuning.Settings)}),
                encoder="released",
                mapper=heads.mapper_name(values["head"], shared=values["shared"], kind="released"),
                **{name: values[name] for name in ("penalties", "starts", "shrinkages")},
                seed=arguments.seed,
            )
    except InputError as error:
        raise InputError(re.sub(r"\bmapper\.([a-z_]+)", lambda key: _option(key[1]), str(error))) from None
    for path in _write(found, values, arguments):
        print(f"wrote {path}")
    print(found.choice["verdict"])
    print(
        f"gain on validation {100 * found.choice['gain']:+.1f} points of mAP, {_interval(found.choice)}; this is"
        " optimistic, as the best of many was chosen: run abc evaluate on test features for an unbiased value"
    )
    return 0


def _interval(choice: Mapping[str, Any]) -> str:
    low, high = choice["gain_low"], choice["gain_high"]
    if low is None:
        return "without an interval, since there is one validation model"
    return f"95 % interval over models {100 * low:+.1f} to {100 * high:+.1f}"


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    from attrib_core.features.heads.heads import check_starts

    section = arguments.section
    given = {name: getattr(arguments, name) for name in section.model_fields if name not in NOT_OPTIONS}
    if given["starts"] is None:
        channel = given["head"] == "channel"
        given["starts"] = CHANNEL_STARTS if channel else section.model_fields["starts"].default
    checked: dict[str, Any] = validate(section, given, "mapper").model_dump(
        mode="json", exclude=set(NOT_OPTIONS)
    )
    check_starts(checked["head"], checked["starts"])
    abc_options.check_at_least("--seed", arguments.seed, 0)
    return checked


def _tests(split: str, arguments: argparse.Namespace) -> list[TestCase]:
    from attrib_core.abc_benchmark import test_cases

    paths, cases = getattr(arguments, split), getattr(arguments, f"{split}_cases")
    abc_options.check_distinct_names(f"--{split}", paths)
    abc_options.check_cases(f"--{split}-cases", cases, f"--{split}", paths)
    tests = [test_cases.read_test(path) for path in paths]
    for test, path in zip(tests, cases or [], strict=False):
        test_cases.categories(test, path)
    return tests


def _write(found: Tuning, values: dict[str, Any], arguments: argparse.Namespace) -> list[Path]:
    """Write curve and choice, then the checkpoint: if that exists, the others do."""
    from attrib_core.abc_benchmark import mapper_export
    from attrib_core.storage import tables, torch_files

    out: Path = arguments.out
    curve, choice = (out.with_name(f"{out.stem}.{end}") for end in ("curve.parquet", "choice.json"))
    files = {"pool": str(arguments.pool)} | {
        split: list(map(str, getattr(arguments, split))) for split in SPLITS
    }
    tables.write(curve, "mapper_curve", found.curve)
    tables.write_json(choice, found.choice | {"settings": values, "seed": arguments.seed, "files": files})
    torch_files.save(mapper_export.checkpoint(found.heads), out)
    return [curve, choice, out]
