"""`python -m attrib_core abc calibrate`: soft influence of released features."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from attrib_core.cli import abc_options
from attrib_core.cli.console import log_to_stderr
from attrib_core.cli.out_paths import check_folder
from attrib_core.common.constants import UNTUNED
from attrib_core.common.errors import InputError

if TYPE_CHECKING:
    from attrib_core.abc_benchmark.calibrate import Ranked
    from attrib_core.abc_benchmark.feature_files import Matrix
    from attrib_core.abc_benchmark.mapper_files import Mapper
    from attrib_core.abc_benchmark.test_cases import TestCase
    from attrib_core.attribution.calibration.calibrate import Fitted

FORMS = ("pool_aware", "published", "published_whole_pool")
BAD_ROWS = ("refuse", "drop")


def add(one: argparse.ArgumentParser) -> None:
    """The options of the command."""
    files = one.add_argument_group("files")
    abc_options.add_pool(files)
    files.add_argument(
        "--fit",
        type=Path,
        nargs="+",
        metavar="F",
        help="features of test cases to fit on, of other models: val_*.pth",
    )
    files.add_argument(
        "--test", type=Path, required=True, nargs="+", metavar="F", help="features of test cases to judge on"
    )
    files.add_argument(
        "--fit-cases",
        type=Path,
        nargs="+",
        metavar="F",
        help="JSON of each file of --fit; tells the kinds of sets",
    )
    files.add_argument(
        "--cases", type=Path, nargs="+", metavar="F", help="JSON of each file of --test; the same"
    )
    abc_options.add_mapper(files)
    files.add_argument(
        "--calibrator",
        type=Path,
        metavar="F",
        help="a published checkpoint (.pth), judged as form 'released'; or, in place of --fit, a calibrator.json",
    )
    files.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for what is written")
    files.add_argument(
        "--soft-scores", action="store_true", help="also write soft_scores.parquet, of the first form"
    )
    one.add_argument(
        "--forms", nargs="+", choices=FORMS, default=list(FORMS), metavar="F", help="default: %(default)s"
    )
    one.add_argument(
        "--absent-share",
        type=float,
        default=0.5,
        metavar="P",
        help="share of queries whose sources are taken not to be in the pool; default: %(default)s",
    )
    one.add_argument(
        "--pool-shares",
        type=float,
        nargs="*",
        default=[],
        metavar="P",
        help="parts of the pool on which calibrators are judged too; default: none",
    )
    one.add_argument(
        "--fit-queries",
        type=int,
        metavar="N",
        help="fit on at most so many queries of each model and prompt kind; default: all",
    )
    one.add_argument(
        "--bad-rows",
        choices=BAD_ROWS,
        default="refuse",
        help="vectors that are not finite or zero: an error, or left out of the pool, of a model's exemplars and of"
        " the queries; default: %(default)s",
    )
    for name, default, text in (
        ("--top-k", 100, "candidates that stand singly, and those of a query that soft_scores lists"),
        ("--bins", 2048, "bins of the histogram of all others"),
        ("--bootstrap", 1000, "resamples of the models"),
        ("--seed", 0, "of the resamples, of parts of the pool and of --fit-queries"),
    ):
        one.add_argument(name, type=int, default=default, metavar="N", help=f"{text}; default: %(default)s")
    one.set_defaults(run=calibrate)


def calibrate(arguments: argparse.Namespace) -> int:
    """Rank, fit, judge, write and print."""
    from attrib_core.abc_benchmark import calibrate as soft_influence
    from attrib_core.abc_benchmark import calibrator_files, evaluate, feature_files, mapper_files, test_cases
    from attrib_core.abc_benchmark import result_tables as results
    from attrib_core.attribution.calibration import calibrate as calibration
    from attrib_core.storage import tables

    _check(arguments)
    check_folder(arguments.out)
    _check_left(arguments)
    how: dict[str, Any] = dict(
        shown=arguments.top_k, absent_share=arguments.absent_share, pool_shares=arguments.pool_shares,
        bootstrap=arguments.bootstrap, seed=arguments.seed,
    )  # fmt: skip
    with log_to_stderr("abc calibrate"), ExitStack() as stack:
        pool = feature_files.open_pool(arguments.pool)
        mapper = mapper_files.read_mapper(arguments.mapper) if arguments.mapper else mapper_files.UNTUNED
        given = (
            calibrator_files.read(arguments.calibrator, arguments.absent_share)
            if arguments.calibrator
            else {}
        )
        if arguments.fit and set(given) - {calibrator_files.RELEASED}:
            raise InputError(
                f"--calibrator: {arguments.calibrator} holds fitted forms, expected it alone or --fit alone"
            )
        sides = {
            side: [(test_cases.read_test(path), about) for path, about in _pairs(arguments, side)]
            for side in ("fit", "test")
        }
        for test, _ in [*sides["fit"], *sides["test"]]:
            evaluate.check_dimensions(pool, test, mapper)
        soft_influence.check_apart(*([test for test, _ in own] for own in sides.values()))
        kinds = {
            side: [soft_influence.kinds_of(test, about) for test, about in own] for side, own in sides.items()
        }
        arguments.out.mkdir(parents=True, exist_ok=True)
        scratch = Path(stack.enter_context(TemporaryDirectory(dir=arguments.out)))
        searched = soft_influence.usable(pool, mapper, arguments.bad_rows)
        place = (pool, searched, mapper, arguments)
        ranked = [
            one
            for number, (test, _) in enumerate(sides["fit"])
            for one in _ranked(*place, test, kinds["fit"][number], scratch / f"fit{number}", True)
        ]
        fitted: dict[str, Fitted] = {}
        if ranked:
            fitted = soft_influence.fit(ranked, arguments.forms, arguments.absent_share)
            about = soft_influence.fitted_on(ranked) | {"files": [str(path) for path in arguments.fit]}
            calibration.warn_of_other_kinds(about["kinds"], {kind for some in kinds["test"] for kind in some})
        fitted |= given
        save = None
        if arguments.soft_scores:
            path = arguments.out / "soft_scores.parquet"
            save = stack.enter_context(tables.writer(path, tables.schema("soft_scores"))).write
        rows: dict[str, list[dict[str, Any]]] = {"calibration": [], "reliability": []}
        labels = {"mapper": str(arguments.mapper or UNTUNED)}
        for number, (test, _) in enumerate(sides["test"]):
            for one in _ranked(*place, test, kinds["test"][number], scratch / f"test{number}", False):
                judged = soft_influence.judge(fitted, one, save, **how)
                names = labels | {"test": test.path.stem, "prompt_kind": one.prompt_kind}
                rows["calibration"] += calibration.calibration_rows(judged, **names)
                rows["reliability"] += calibration.reliability_rows(judged, **names)
    for name, found in rows.items():
        tables.write(arguments.out / f"{name}.parquet", f"abc_{name}", found)
    if ranked:
        description = {name: one.description for name, one in fitted.items() if name not in given}
        tables.write_json(
            arguments.out / "calibrator.json", {**_names(arguments), "forms": description, "fitted_on": about}
        )
        if "published" in description:
            calibrator_files.save(fitted["published"], arguments.out / "calibrator.pth")
    print(f"pool of {searched} ({arguments.pool}), mapper {labels['mapper']}; intervals over models")
    for line in results.printed_calibration(rows["calibration"]):
        print(line)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """What can be told from the command line alone."""
    from attrib_core.attribution.calibration import calibrate as calibration
    from attrib_core.attribution.ranking.rank import MAX_BINS

    if not arguments.fit and not arguments.calibrator:
        raise InputError(
            "--fit: missing, expected features to fit on, or --calibrator with fitted parameters"
        )
    fitted_on = arguments.fit or []
    abc_options.check_cases("--fit-cases", arguments.fit_cases, "--fit", fitted_on)
    abc_options.check_cases("--cases", arguments.cases, "--test", arguments.test)
    more = ", and to judge on other models than those that are fitted on"
    abc_options.check_names("--fit, --test", [*fitted_on, *arguments.test], more)
    if arguments.fit_queries is not None and arguments.fit_queries < 1:
        raise InputError(f"--fit-queries: {arguments.fit_queries}, expected at least 1")
    if arguments.top_k < 1:
        raise InputError(f"--top-k: {arguments.top_k}, expected at least 1")
    if not 2 <= arguments.bins <= MAX_BINS:
        raise InputError(f"--bins: {arguments.bins}, expected 2 to {MAX_BINS}")
    try:
        calibration.check(
            arguments.top_k,
            arguments.forms,
            arguments.absent_share,
            arguments.pool_shares,
            arguments.bootstrap,
        )
    except InputError as error:  # which names keys of the config
        key, _, rest = str(error).partition(":")
        raise InputError(f"--{key.rpartition('.')[2].replace('_', '-')}:{rest}") from None


def _check_left(arguments: argparse.Namespace) -> None:
    """No file of an earlier call stays beside tables that it does not belong to."""
    anew = {
        "soft_scores.parquet": arguments.soft_scores,
        "calibrator.json": bool(arguments.fit),
        "calibrator.pth": bool(arguments.fit) and "published" in arguments.forms,
    }
    given = arguments.calibrator and arguments.calibrator.absolute()
    for name, written in anew.items():
        path = arguments.out / name
        if path.exists() and not written and path.absolute() != given:
            raise InputError(
                f"--out: {path} is of an earlier call, and this one writes none; give another folder, or remove it"
            )


def _pairs(arguments: argparse.Namespace, side: str) -> list[tuple[Path, Path | None]]:
    """The files of a side, each with its JSON if there is one."""
    files = getattr(arguments, side) or []
    about = (arguments.fit_cases if side == "fit" else arguments.cases) or [None] * len(files)
    return list(zip(files, about, strict=True))


def _ranked(
    pool: Matrix,
    searched: int,
    mapper: Mapper,
    arguments: argparse.Namespace,
    test: TestCase,
    kinds: list[str],
    folder: Path,
    fitting: bool,
) -> list[Ranked]:
    from attrib_core.abc_benchmark import calibrate as soft_influence

    folder.mkdir()
    return list(
        soft_influence.rank(
            pool,
            test,
            kinds,
            folder,
            mapper=mapper,
            labels=_names(arguments),
            top_k=arguments.top_k,
            bins=arguments.bins,
            most=arguments.fit_queries if fitting else None,
            seed=arguments.seed,
            bad_rows=arguments.bad_rows,
            distractors=searched,
        )
    )


def _names(arguments: argparse.Namespace) -> dict[str, str]:
    """Encoder and mapper as soft_scores and calibrator.json name them: by the folder of the pool, as released."""
    return {
        "encoder": arguments.pool.resolve().parent.name,
        "mapper": arguments.mapper.stem if arguments.mapper else UNTUNED,
    }
