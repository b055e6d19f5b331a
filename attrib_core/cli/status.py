"""`python -m attrib_core status RUN`: how far a run is, what failed, and what is still to come."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from attrib_core.config.load import load_config_without_source, plain


def add(commands: Any) -> None:
    """Add `status` to the commands of the command line."""
    one = commands.add_parser("status", help="say how far a run is, what failed, what is to come")
    one.add_argument("folder", type=Path, metavar="RUN", help="folder of the run, such as results/demo")
    one.add_argument(
        "--config", type=Path, default=Path("config.yaml"), help="that of the run; default: %(default)s"
    )
    one.set_defaults(run=status)


def status(arguments: argparse.Namespace) -> int:
    """Print the state of a run."""
    from attrib_core.config.planning import status as planning

    config = plain(load_config_without_source(arguments.config))
    for line in planning.lines(arguments.folder, config):
        print(line.rstrip())
    return 0
