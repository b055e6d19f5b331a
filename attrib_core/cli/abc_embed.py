"""`python -m attrib_core abc embed`: features of a test case's or a pool's images, as AbC files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrib_core.cli.console import log_to_stderr
from attrib_core.cli.out_paths import check_pth
from attrib_core.common import families
from attrib_core.common.errors import InputError, close_matches, shown
from attrib_core.storage import yaml_files


def add(one: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    files = one.add_argument_group(
        "images", "of a test case (--testcase and --images), or of a pool (--pool)"
    )
    what = files.add_mutually_exclusive_group(required=True)
    what.add_argument("--testcase", type=Path, metavar="JSON", help="JSON of test cases: test_*.json")
    what.add_argument("--pool", type=Path, metavar="DIR", help="folder; all images below it, by their paths")
    files.add_argument(
        "--images", type=Path, metavar="DIR", help="folder that the paths in the JSON are relative to"
    )
    files.add_argument(
        "--list",
        dest="listed",
        type=Path,
        metavar="F",
        help="only these images of the pool, in this order: paths relative to --pool, one per line",
    )
    one.add_argument(
        "--encoder",
        required=True,
        metavar="NAME",
        help="a preset, such as abc-clip, or a family; with --config an encoder of that config",
    )
    one.add_argument("--config", type=Path, metavar="F", help="config that describes the encoder")
    one.add_argument(
        "--set",
        dest="options",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the encoder, such as weights=PATH; may be repeated",
    )
    one.add_argument(
        "--threads",
        type=int,
        default=-1,
        metavar="N",
        help="threads that decode images; default: 4 with a GPU, else none",
    )
    one.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    one.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="F",
        help="feature file: test_*.pth, or laion_subset.pth of a pool",
    )
    one.set_defaults(run=embed)


def embed(arguments: argparse.Namespace) -> int:
    """Embed the images of a JSON of test cases or of a folder; print what was written."""
    from attrib_core.abc_benchmark import embed_images
    from attrib_core.features.embedding import encoder_protocol

    _check(arguments)
    section = _encoder_section(arguments.encoder, arguments.config, arguments.options)
    with log_to_stderr("abc embed"):
        encoder = encoder_protocol.load(section, where="--encoder", device=arguments.device)
        out, threads = arguments.out, arguments.threads
        if arguments.pool is not None:
            lines = embed_images.embed_pool(
                arguments.pool, encoder, out, listed=arguments.listed, threads=threads
            )
        else:
            lines = embed_images.embed_test_case(
                arguments.testcase, arguments.images, encoder, out, threads=threads
            )
        for line in lines:
            print(line, flush=True)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Check what the command line alone can show to be wrong."""
    check_pth(arguments.out)
    if arguments.threads < -1:
        raise InputError(
            f"--threads: {arguments.threads}, expected a number of at least 0, or -1 for the default"
        )
    if arguments.pool is None:
        if arguments.images is None:
            raise InputError("--images: missing, expected the folder that the paths of --testcase start from")
        if arguments.listed is not None:
            raise InputError(f"--list: {arguments.listed} with --testcase, expected it only with --pool")
    elif arguments.images is not None:
        raise InputError(f"--images: {arguments.images} with --pool, expected it only with --testcase")


def _encoder_section(name: str, config: Path | None, options: Sequence[str]) -> dict[str, Any]:
    """Return the validated config section of an encoder: a preset, a family, or an encoder of a config.

    `options` are "key=value" with a YAML value; they override those of the section.
    """
    if config is None:
        known = {one: {"preset": one} for one in families.presets("encoders")}
        known |= {one: {"family": one} for one in families.names("encoders") if one not in known}
    else:
        known = _read_encoders(config)
    if name not in known:
        raise InputError(f"--encoder: no {name!r}, {close_matches(name, known)}")
    section = known[name] | dict(map(_option_value, options))
    section = families.with_preset("encoders", section, "--encoder")
    if not isinstance(section.get("family"), str):
        raise InputError(
            f"--encoder: {name!r} of {config} names no family and no preset; expected one of them"
        )
    return families.complete("encoders", section, "--encoder")


def _option_value(option: str) -> tuple[str, Any]:
    key, equals, value = option.partition("=")
    if not key or not equals:
        raise InputError(f"--set: {shown(option)}; expected KEY=VALUE, such as weights=PATH")
    return key, yaml_files.value(value)


def _read_encoders(config: Path) -> dict[str, dict[str, Any]]:
    """Return the encoders of a config; its other sections are not checked."""
    try:
        values = yaml_files.read(config)
    except InputError as error:
        raise InputError(f"--config: {error}") from None
    try:
        return {str(name): dict(section) for name, section in values["encoders"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"--config: {config} has no encoders; expected the key, with a section for each name"
        ) from None
