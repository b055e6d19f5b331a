"""`python -m attrib_core abc calibrate`: calibrated influence on AbC test cases."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from attrib_core.cli import abc_options
from attrib_core.cli.console import log_to_stderr
from attrib_core.cli.out_paths import check_folder
from attrib_core.common.constants import UNTUNED
from attrib_core.common.errors import InputError

if TYPE_CHECKING:
    from attrib_core.attribution.calibration.calibrators import Fitted

FORMS = ("pool_aware", "published", "published_whole_pool")
BAD_ROWS = ("refuse", "drop")


def add(one: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    files = one.add_argument_group("files")
    abc_options.add_pool(files)
    abc_options.add_files(files, "--fit", "features of test cases to fit on, of other models: val_*.pth")
    abc_options.add_files(files, "--test", "features of test cases to evaluate on", required=True)
    abc_options.add_files(files, "--fit-cases", "JSON of each file of --fit, which tells objects from styles")
    abc_options.add_files(files, "--cases", "JSON of each file of --test, likewise")
    abc_options.add_mapper(files)
    files.add_argument(
        "--calibrator",
        type=Path,
        metavar="F",
        help="a published checkpoint (.pth), evaluated as 'released'; or, instead of --fit, a calibrator.json",
    )
    abc_options.add_out(files, "folder for the results")
    files.add_argument(
        "--soft-scores", action="store_true", help="also write soft_scores.parquet, of the first calibrator"
    )
    one.add_argument(
        "--forms",
        nargs="+",
        choices=FORMS,
        default=list(FORMS),
        metavar="F",
        help="kinds of calibrator; default: %(default)s",
    )
    one.add_argument(
        "--absent-share",
        type=float,
        default=0.5,
        metavar="P",
        help="assumed share of queries whose sources are not in the pool; default: %(default)s",
    )
    one.add_argument(
        "--pool-shares",
        type=float,
        nargs="*",
        default=[],
        metavar="P",
        help="shares of the pool on which calibrators are also evaluated; default: none",
    )
    one.add_argument(
        "--fit-queries",
        type=abc_options.count,
        metavar="N",
        help="fit on at most this many queries of each model and prompt kind; default: all",
    )
    one.add_argument(
        "--bad-rows",
        choices=BAD_ROWS,
        default="refuse",
        help="vectors that are zero or not finite: an error, or left out of the pool, the exemplars and the"
        " queries; default: %(default)s",
    )
    abc_options.add_integer(
        one, "--top-k", 100, "candidates stored one by one, and those of a query in soft_scores"
    )
    abc_options.add_integer(one, "--bins", 2048, "bins of the histogram of all others")
    abc_options.add_integer(one, "--seed", 0, "seed of parts of the pool and of --fit-queries")
    abc_options.add_ignored(one, "--bootstrap")
    one.set_defaults(run=calibrate)


def calibrate(arguments: argparse.Namespace) -> int:
    """Rank, fit, evaluate, write and print."""
    from attrib_core.abc_benchmark import calibrate as abc_calibration
    from attrib_core.abc_benchmark import (
        calibrator_files,
        evaluate,
        feature_files,
        mapper_files,
        result_tables,
        test_cases,
    )
    from attrib_core.attribution.calibration import calibrate as calibration
    from attrib_core.attribution.calibration import evaluate as evaluation
    from attrib_core.storage import tables

    _check(arguments)
    check_folder(arguments.out)
    _check_stale_files(arguments)
    names = {  # the encoder is the folder of the pool, as published
        "encoder": arguments.pool.resolve().parent.name,
        "mapper": arguments.mapper.stem if arguments.mapper else UNTUNED,
    }
    rows: dict[str, list[dict[str, Any]]] = {"calibration": [], "reliability": []}
    with log_to_stderr("abc calibrate"), ExitStack() as stack:
        pool = feature_files.open_pool(arguments.pool)
        mapper = mapper_files.read_mapper(arguments.mapper)
        given: dict[str, Fitted] = {}
        if arguments.calibrator:
            given = calibrator_files.read(arguments.calibrator, arguments.absent_share)
        if arguments.fit and set(given) - {calibrator_files.RELEASED}:
            raise InputError(
                f"--calibrator: {arguments.calibrator} holds fitted calibrators, expected it alone or --fit alone"
            )
        fit_tests, tests = (
            [test_cases.read_test(path) for path in paths] for paths in (arguments.fit or [], arguments.test)
        )
        for test in (*fit_tests, *tests):
            evaluate.check_dimensions(pool, test, mapper)
        abc_calibration.check_disjoint(fit_tests, tests)
        fit_kinds, test_kinds = (
            list(map(abc_calibration.kinds_of, some, cases or [None] * len(some)))
            for some, cases in ((fit_tests, arguments.fit_cases), (tests, arguments.cases))
        )
        distractors = abc_calibration.count_distractors(pool, mapper, arguments.bad_rows)
        arguments.out.mkdir(parents=True, exist_ok=True)
        rank = partial(
            abc_calibration.rank,
            pool,
            folder=Path(stack.enter_context(TemporaryDirectory(dir=arguments.out))),
            mapper=mapper,
            labels=names,
            top_k=arguments.top_k,
            bins=arguments.bins,
            seed=arguments.seed,
            bad_rows=arguments.bad_rows,
            distractors=distractors,
        )
        fitted: dict[str, Fitted] = {}
        if fit_tests:
            ranked = [
                one
                for test, kinds in zip(fit_tests, fit_kinds, strict=True)
                for one in rank(test, kinds, max_queries=arguments.fit_queries)
            ]
            fitted = abc_calibration.fit(ranked, arguments.forms, arguments.absent_share)
            fitted_on = abc_calibration.describe_queries(ranked) | {"files": list(map(str, arguments.fit))}
            calibration.warn_of_other_kinds(
                fitted_on["kinds"], {kind for some in test_kinds for kind in some}
            )
        save = None
        if arguments.soft_scores:
            path = arguments.out / "soft_scores.parquet"
            save = stack.enter_context(tables.writer(path, tables.schema("soft_scores"))).write
        labels = {"mapper": str(arguments.mapper or UNTUNED)}
        for test, kinds in zip(tests, test_kinds, strict=True):
            for one in rank(test, kinds):
                evaluated = abc_calibration.evaluate_calibrators(
                    fitted | given,
                    one,
                    save,
                    shown=arguments.top_k,
                    absent_share=arguments.absent_share,
                    pool_shares=arguments.pool_shares,
                    seed=arguments.seed,
                )
                place = labels | {"test": test.path.stem, "prompt_kind": one.prompt_kind}
                rows["calibration"] += evaluation.calibration_rows(evaluated, **place)
                rows["reliability"] += evaluation.reliability_rows(evaluated, **place)
    for name, found in rows.items():
        tables.write(arguments.out / f"{name}.parquet", f"abc_{name}", found)
    if fitted:
        forms = {name: one.description for name, one in fitted.items()}
        tables.write_json(
            arguments.out / "calibrator.json", {**names, "forms": forms, "fitted_on": fitted_on}
        )
        if "published" in fitted:
            calibrator_files.save(fitted["published"], arguments.out / "calibrator.pth")
    print(f"pool of {distractors} ({arguments.pool}), mapper {labels['mapper']}; intervals over models")
    for line in result_tables.format_calibration(rows["calibration"]):
        print(line)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Check what the command line alone can show to be wrong."""
    from attrib_core.attribution.calibration import calibrate as calibration
    from attrib_core.attribution.ranking.rank import MAX_BINS

    if not arguments.fit and not arguments.calibrator:
        raise InputError(
            "--fit: missing, expected features to fit on, or --calibrator with fitted parameters"
        )
    fit_files = arguments.fit or []
    abc_options.check_cases("--fit-cases", arguments.fit_cases, "--fit", fit_files)
    abc_options.check_cases("--cases", arguments.cases, "--test", arguments.test)
    abc_options.check_distinct_names(
        "--fit, --test", [*fit_files, *arguments.test], ", and to evaluate on other models than to fit on"
    )
    abc_options.check_at_least("--fit-queries", arguments.fit_queries, 1)
    abc_options.check_at_least("--top-k", arguments.top_k, 1)
    if not 2 <= arguments.bins <= MAX_BINS:
        raise InputError(f"--bins: {arguments.bins}, expected 2 to {MAX_BINS}")
    try:
        calibration.check_settings(
            arguments.top_k, arguments.forms, arguments.absent_share, arguments.pool_shares
        )
    except InputError as error:  # it names the key of the config
        key, _, rest = str(error).partition(":")
        raise InputError(f"--{key.rpartition('.')[2].replace('_', '-')}:{rest}") from None


def _check_stale_files(arguments: argparse.Namespace) -> None:
    """Raise InputError where a file of an earlier call would stay next to results that it does not belong to."""
    written = {
        "soft_scores.parquet": arguments.soft_scores,
        "calibrator.json": bool(arguments.fit),
        "calibrator.pth": bool(arguments.fit) and "published" in arguments.forms,
    }
    given = arguments.calibrator and arguments.calibrator.absolute()
    for name, replaced in written.items():
        path = arguments.out / name
        if path.exists() and not replaced and path.absolute() != given:
            raise InputError(
                f"--out: {path} is of an earlier call, and this one writes none; give another folder, or remove it"
            )
