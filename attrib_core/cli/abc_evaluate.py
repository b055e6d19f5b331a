"""`python -m attrib_core abc evaluate`: exact metrics of AbC test cases."""

from __future__ import annotations

import argparse

from attrib_core.cli import abc_options
from attrib_core.cli.console import log_to_stderr
from attrib_core.cli.out_paths import check_folder
from attrib_core.common.constants import UNTUNED
from attrib_core.common.errors import InputError


def add(one: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    abc_options.add_pool(one)
    abc_options.add_files(one, "--test", "features of test cases: .pth", required=True)
    abc_options.add_files(one, "--cases", "JSON of each test file, for metrics by category")
    abc_options.add_mapper(one)
    one.add_argument(
        "--recall-ks",
        type=abc_options.count,
        nargs="+",
        default=[5, 10, 100],
        metavar="K",
        help="default: 5 10 100",
    )
    one.add_argument(
        "--ties",
        choices=("half", "above", "below", "expected"),
        default="half",
        help="where a distractor as similar as the exemplar counts: half, all or none above it, or the expectation"
        " over random orders; default: %(default)s",
    )
    one.add_argument(
        "--bad-rows",
        choices=("refuse", "last"),
        default="refuse",
        help="vectors that are zero or not finite: an error, or ranked last; default: %(default)s",
    )
    one.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where similarities are computed; counts do not depend on it; default: %(default)s",
    )
    abc_options.add_ignored(one, "--bootstrap", "--seed")
    abc_options.add_out(one, "folder for per_query.parquet and metrics.parquet")
    one.set_defaults(run=evaluate)


def evaluate(arguments: argparse.Namespace) -> int:
    """Rank, compute metrics, write and print."""
    from attrib_core.abc_benchmark import evaluate as evaluation
    from attrib_core.abc_benchmark import feature_files, mapper_files, result_tables, test_cases
    from attrib_core.runtime import devices
    from attrib_core.storage import tables

    abc_options.check_cases("--cases", arguments.cases, "--test", arguments.test)
    abc_options.check_distinct_names("--test", arguments.test)
    if min(arguments.recall_ks) < 1:
        raise InputError(f"--recall-ks: {min(arguments.recall_ks)}, expected numbers of at least 1")
    check_folder(arguments.out)
    labels = {"mapper": str(arguments.mapper or UNTUNED), "ties": arguments.ties}
    per_query, rows = [], []
    with log_to_stderr("abc evaluate"):
        pool = feature_files.open_pool(arguments.pool)
        mapper = mapper_files.read_mapper(arguments.mapper)
        tests = [test_cases.read_test(path) for path in arguments.test]
        for test in tests:
            evaluation.check_dimensions(pool, test, mapper)
        categories: list[list[str | None] | None] = [None] * len(tests)
        if arguments.cases:
            categories = list(map(test_cases.categories, tests, arguments.cases))
        device = devices.choose(arguments.device)
        for test, of_models in zip(tests, categories, strict=True):
            counted = [
                (
                    queries,
                    evaluation.count(
                        pool, test, queries, mapper=mapper, bad_rows=arguments.bad_rows, device=device
                    ),
                )
                for queries in test.queries
            ]
            system = evaluation.system(
                pool.rows,
                test,
                counted,
                recall_ks=arguments.recall_ks,
                ties=arguments.ties,
                categories=of_models,
            )
            per_query.append(result_tables.per_query(system, test.queries))
            measured = evaluation.measure(system)
            rows += [{"test": test.path.stem, **labels, **row} for row in measured]
    with tables.writer(arguments.out / "per_query.parquet", per_query[0].schema) as sink:
        for table in per_query:
            sink.write(table)
    tables.write(arguments.out / "metrics.parquet", "abc_metrics", rows)
    print(
        f"pool of {pool.rows} ({arguments.pool}), mapper {labels['mapper']}, ties {arguments.ties};"
        " per cent, intervals over models"
    )
    for path in arguments.test:
        for line in result_tables.format_metrics(row for row in rows if row["test"] == path.stem):
            print(line)
    return 0
