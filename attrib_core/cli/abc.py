"""`python -m attrib_core abc embed | tune | evaluate | calibrate | compare | export`: the published files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrib_core.cli import abc_calibrate, abc_embed, abc_options, abc_tune
from attrib_core.cli.console import log_to_stderr
from attrib_core.cli.out_paths import check_folder
from attrib_core.common.constants import SPLITS, UNTUNED
from attrib_core.common.errors import InputError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from attrib_core.abc_benchmark.feature_files import Matrix
    from attrib_core.abc_benchmark.mapper_files import Mapper
    from attrib_core.abc_benchmark.test_cases import Queries, TestCase
    from attrib_core.attribution.metrics.query_groups import System


def add(commands: Any, *, mapper: type[BaseModel]) -> None:
    """Add `abc` and its subcommands to those of the command line; `mapper` is that section of the config."""
    top = commands.add_parser(
        "abc", help="make, tune on, evaluate, compare or write files of the published benchmark"
    )
    inner = top.add_subparsers(required=True, metavar="COMMAND")
    abc_embed.add(
        inner.add_parser("embed", help="features of a test case's images or a pool's, in the released layout")
    )
    abc_tune.add(inner.add_parser("tune", help="train a mapper on released features"), mapper)
    _add_evaluate(inner.add_parser("evaluate", help="exact metrics of released features, with intervals"))
    abc_calibrate.add(inner.add_parser("calibrate", help="soft influence: fit it, judge it, list it"))
    _add_compare(inner.add_parser("compare", help="differences between two evaluations, with p-values"))
    _add_export(inner.add_parser("export", help="write a run of this project in the released layout"))


def _add_evaluate(one: argparse.ArgumentParser) -> None:
    abc_options.add_pool(one)
    one.add_argument(
        "--test", type=Path, required=True, nargs="+", metavar="F", help="features of test cases: .pth"
    )
    one.add_argument(
        "--cases", type=Path, nargs="+", metavar="F", help="JSON of each test file, for metrics by category"
    )
    abc_options.add_mapper(one)
    one.add_argument(
        "--recall-ks", type=int, nargs="+", default=[5, 10, 100], metavar="K", help="default: 5 10 100"
    )
    one.add_argument(
        "--ties",
        choices=("half", "above", "below"),
        default="half",
        help="where a distractor as similar as the exemplar counts; default: %(default)s",
    )
    one.add_argument(
        "--bad-rows",
        choices=("refuse", "last"),
        default="refuse",
        help="vectors that are not finite or zero: an error, or ranked last; default: %(default)s",
    )
    one.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where similarities are computed; counts do not depend on it; default: %(default)s",
    )
    one.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="resamples of the models; default: %(default)s",
    )
    one.add_argument("--seed", type=int, default=0, help="of the resamples; default: %(default)s")
    one.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for per_query.parquet and metrics.parquet",
    )
    one.set_defaults(run=evaluate)


def _add_compare(one: argparse.ArgumentParser) -> None:
    one.add_argument("first", type=Path, metavar="DIR", help="what abc evaluate wrote")
    one.add_argument("second", type=Path, metavar="DIR", help="what another abc evaluate wrote")
    one.add_argument(
        "--match",
        choices=("model", "category"),
        default="model",
        help="two systems on the same models, or other models within categories; default: %(default)s",
    )
    one.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="resamples of the models; default: %(default)s",
    )
    one.add_argument("--seed", type=int, default=0, help="of the resamples; default: %(default)s")
    one.add_argument("--out", type=Path, metavar="DIR", help="folder for comparisons.parquet")
    one.set_defaults(run=compare)


def _add_export(one: argparse.ArgumentParser) -> None:
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
        help="splits of the run; files begin with their names; default: test",
    )
    one.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for feats/, dataset/json/ and weights/"
    )
    one.set_defaults(run=export)


def evaluate(arguments: argparse.Namespace) -> int:
    """Rank, measure, write and print."""
    from attrib_core.abc_benchmark import evaluate as evaluation
    from attrib_core.abc_benchmark import feature_files, mapper_files, test_cases
    from attrib_core.abc_benchmark import result_tables as results
    from attrib_core.storage import tables

    abc_options.check_cases("--cases", arguments.cases, "--test", arguments.test)
    abc_options.check_names("--test", arguments.test)
    if min(arguments.recall_ks) < 1:
        raise InputError(f"--recall-ks: {min(arguments.recall_ks)}, expected numbers of at least 1")
    if arguments.bootstrap < 1:
        raise InputError(f"--bootstrap: {arguments.bootstrap}, expected at least 1")
    check_folder(arguments.out)
    with log_to_stderr("abc evaluate"):
        pool = feature_files.open_pool(arguments.pool)
        mapper = mapper_files.read_mapper(arguments.mapper) if arguments.mapper else mapper_files.UNTUNED
        tests = [test_cases.read_test(path) for path in arguments.test]
        for test in tests:
            evaluation.check_dimensions(pool, test, mapper)
        about = [
            test_cases.categories(test, path)
            for test, path in zip(tests, arguments.cases or [], strict=False)
        ]
        systems = [
            _system(pool, test, mapper, about[number] if about else None, arguments)
            for number, test in enumerate(tests)
        ]
        per_query = [results.per_query(one, queries) for one, queries in systems]
        labels = {"mapper": str(arguments.mapper or UNTUNED), "ties": arguments.ties}
        rows = [
            {"test": one.encoder, **labels, **row}
            for one, _ in systems
            for row in evaluation.measure(one, resamples=arguments.bootstrap, seed=arguments.seed)
        ]
    with tables.writer(arguments.out / "per_query.parquet", per_query[0].schema) as sink:
        for table in per_query:
            sink.write(table)
    tables.write(arguments.out / "metrics.parquet", "abc_metrics", rows)
    print(
        f"pool of {pool.rows} ({arguments.pool}), mapper {labels['mapper']}, ties {arguments.ties};"
        " per cent, intervals over models"
    )
    for path in arguments.test:
        for line in results.printed(row for row in rows if row["test"] == path.stem):
            print(line)
    return 0


def _system(
    pool: Matrix,
    test: TestCase,
    mapper: Mapper,
    about: list[str | None] | None,
    arguments: argparse.Namespace,
) -> tuple[System, list[Queries]]:
    from attrib_core.abc_benchmark import evaluate as evaluation
    from attrib_core.runtime import devices

    chosen = devices.choose(arguments.device)
    how = {"mapper": mapper, "bad_rows": arguments.bad_rows, "device": chosen}
    counted = [(one, evaluation.count(pool, test, one, **how)) for one in test.queries]
    found = evaluation.system(
        pool.rows, test, counted, recall_ks=arguments.recall_ks, ties=arguments.ties, categories=about
    )
    return found, test.queries


def compare(arguments: argparse.Namespace) -> int:
    """Hold two evaluations against each other; write and print."""
    from attrib_core.abc_benchmark import compare as comparing
    from attrib_core.abc_benchmark import result_tables as results
    from attrib_core.storage import tables

    if arguments.bootstrap < 1:
        raise InputError(f"--bootstrap: {arguments.bootstrap}, expected at least 1")
    if arguments.out is not None:
        check_folder(arguments.out)
    sides = [comparing.read(folder) for folder in (arguments.first, arguments.second)]
    draws = {"resamples": arguments.bootstrap, "seed": arguments.seed}
    rows = list(comparing.compare(*sides, match=arguments.match, **draws))
    if arguments.out is not None:
        tables.write(arguments.out / "comparisons.parquet", "abc_comparisons", rows)
    for which, folder, side in zip(
        ("first", "second"), (arguments.first, arguments.second), sides, strict=True
    ):
        print(f"{which}: {comparing.described(folder, side)}")
    for line in results.printed_comparisons(rows):
        print(line)
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Write a run in the released layout; name the files."""
    from attrib_core.abc_benchmark import export_run as writing

    check_folder(arguments.out)
    with log_to_stderr("abc export"):
        for path in writing.export(
            arguments.folder, encoder=arguments.encoder, splits=arguments.splits, out=arguments.out
        ):
            print(f"wrote {path}")
    return 0
