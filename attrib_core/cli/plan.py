"""`python -m attrib_core plan`: what a run of a config will take, before anything of it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from attrib_core.config.load import load_config_without_source, plain


def add(commands: Any) -> None:
    """Add `plan` to the commands of the command line."""
    one = commands.add_parser(
        "plan", help="say what a run of a config will take: models, images, bytes, device-hours"
    )
    one.add_argument("--config", type=Path, default=Path("config.yaml"), help="default: %(default)s")
    one.add_argument(
        "--rates",
        type=Path,
        metavar="RUN",
        help="folder of a run, finished or not, such as results/demo: its measured times and sizes are used",
    )
    one.set_defaults(run=plan)


def plan(arguments: argparse.Namespace) -> int:
    """Print what a run of a config will take; it needs neither the images nor the weights."""
    from attrib_core.config.planning import plan as planning

    config = plain(load_config_without_source(arguments.config))
    estimate = planning.estimate(config, run=arguments.rates)
    print(arguments.config)
    for line in planning.lines(estimate):
        print(f"  {line}".rstrip())
    return 0
