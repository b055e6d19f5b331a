"""`python -m attrib_core abc export`: a run as AbC files, which the published code reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from attrib_core.cli import abc_options
from attrib_core.cli.console import log_to_stderr
from attrib_core.cli.out_paths import check_folder
from attrib_core.common.constants import SPLITS


def add(one: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    one.add_argument(
        "--run", dest="folder", type=Path, required=True, metavar="DIR", help="folder of a run: results/NAME"
    )
    one.add_argument("--encoder", required=True, metavar="E", help="encoder of the run")
    one.add_argument(
        "--split",
        dest="splits",
        nargs="+",
        choices=SPLITS,
        default=["test"],
        help="splits of the run; file names begin with them; default: test",
    )
    abc_options.add_out(one, "folder for feats/, dataset/json/ and weights/")
    one.set_defaults(run=export)


def export(arguments: argparse.Namespace) -> int:
    """Write the files and print their paths."""
    from attrib_core.abc_benchmark import export_run

    check_folder(arguments.out)
    with log_to_stderr("abc export"):
        for path in export_run.export(
            arguments.folder, encoder=arguments.encoder, splits=arguments.splits, out=arguments.out
        ):
            print(f"wrote {path}")
    return 0
