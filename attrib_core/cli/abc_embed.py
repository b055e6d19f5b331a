"""`python -m attrib_core abc embed`: features of a test case's images, or of a pool's, in the released layout."""

from __future__ import annotations

import argparse
from pathlib import Path

from attrib_core.cli.console import log_to_stderr
from attrib_core.cli.out_paths import check_pth
from attrib_core.common.errors import InputError


def add(one: argparse.ArgumentParser) -> None:
    """The options of the command."""
    files = one.add_argument_group(
        "images", "of a test case (--testcase and --images), or of a pool (--pool)"
    )
    what = files.add_mutually_exclusive_group(required=True)
    what.add_argument("--testcase", type=Path, metavar="JSON", help="JSON of test cases: test_*.json")
    what.add_argument("--pool", type=Path, metavar="DIR", help="all images below a folder, by their paths")
    files.add_argument(
        "--images", type=Path, metavar="DIR", help="folder that the paths in the JSON start from"
    )
    files.add_argument(
        "--list",
        dest="listed",
        type=Path,
        metavar="F",
        help="of the pool these images alone, in this order: paths relative to --pool, one a line",
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
        help="an option of the encoder, such as weights=PATH; may be given again",
    )
    one.add_argument(
        "--threads", type=int, default=-1, metavar="N", help="that decode; default: 4 beside a GPU, else none"
    )
    one.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    one.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="F",
        help="file of features: test_*.pth, or laion_subset.pth of a pool",
    )
    one.set_defaults(run=embed)


def embed(arguments: argparse.Namespace) -> int:
    """Encode the images of a JSON of test cases or of a folder; name the file and what is in it."""
    from attrib_core.abc_benchmark import embed_cases as of_cases
    from attrib_core.abc_benchmark import embed_pool
    from attrib_core.features.embedding import encoder_protocol

    _check(arguments)
    section = of_cases.section(arguments.encoder, arguments.config, arguments.options)
    with log_to_stderr("abc embed"):
        encoder = encoder_protocol.load(section, where="--encoder", device=arguments.device)
        if arguments.pool is not None:
            lines = embed_pool.embed(
                arguments.pool, encoder, arguments.out, listed=arguments.listed, threads=arguments.threads
            )
        else:
            lines = of_cases.embed(
                arguments.testcase, arguments.images, encoder, arguments.out, threads=arguments.threads
            )
        for line in lines:
            print(line, flush=True)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """What can be told from the command line alone."""
    check_pth(arguments.out)
    if arguments.threads < -1:
        raise InputError(
            f"--threads: {arguments.threads}, expected a number of at least 0, or -1 for the default"
        )
    if arguments.pool is None:
        if arguments.images is None:
            raise InputError("--images: missing, expected the folder that the paths of --testcase start from")
        if arguments.listed is not None:
            raise InputError(f"--list: {arguments.listed} beside --testcase, expected it with --pool alone")
        return
    if arguments.images is not None:
        raise InputError(f"--images: {arguments.images} beside --pool, expected it with --testcase alone")
