"""`python -m attrib_core abc compare`: differences between two evaluations, with p-values."""

from __future__ import annotations

import argparse
from pathlib import Path

from attrib_core.cli import abc_options
from attrib_core.cli.out_paths import check_folder


def add(one: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    one.add_argument("first", type=Path, metavar="DIR", help="output folder of abc evaluate")
    one.add_argument("second", type=Path, metavar="DIR", help="output folder of another abc evaluate")
    one.add_argument(
        "--match",
        choices=("model", "category"),
        default="model",
        help="two systems on the same models, or different models within categories; default: %(default)s",
    )
    abc_options.add_integer(
        one, "--bootstrap", 1000, "random draws for a p-value, where there are too many models to try all"
    )
    abc_options.add_integer(one, "--seed", 0, "seed of these draws")
    abc_options.add_out(one, "folder for comparisons.parquet", required=False)
    one.set_defaults(run=compare)


def compare(arguments: argparse.Namespace) -> int:
    """Compare two evaluations, write and print the differences."""
    from attrib_core.abc_benchmark import compare as comparison
    from attrib_core.abc_benchmark import result_tables
    from attrib_core.storage import tables

    abc_options.check_at_least("--bootstrap", arguments.bootstrap, 1)
    if arguments.out is not None:
        check_folder(arguments.out)
    folders = {"first": arguments.first, "second": arguments.second}
    sides = {name: comparison.read(folder) for name, folder in folders.items()}
    rows = list(
        comparison.compare(
            *sides.values(), match=arguments.match, resamples=arguments.bootstrap, seed=arguments.seed
        )
    )
    if arguments.out is not None:
        tables.write(arguments.out / "comparisons.parquet", "abc_comparisons", rows)
    for name, folder in folders.items():
        print(f"{name}: {comparison.describe(folder, sides[name])}")
    for line in result_tables.format_comparisons(rows):
        print(line)
    return 0
