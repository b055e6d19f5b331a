"""Options and checks that several `abc` commands share."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrib_core.common.errors import InputError, cut
from attrib_core.common.validation import BEYOND


def add_files(one: Any, option: str, text: str, *, required: bool = False) -> None:
    """Add an option that takes one or more files to a parser or a group of its options."""
    one.add_argument(option, type=Path, nargs="+", required=required, metavar="F", help=text)


def add_pool(one: Any) -> None:
    """Add --pool, the features that are searched."""
    one.add_argument(
        "--pool",
        type=Path,
        required=True,
        metavar="F",
        help="features of the pool: .pth, .npy, .parquet, or a folder of Parquet parts",
    )


def add_mapper(one: Any) -> None:
    """Add --mapper, a checkpoint."""
    one.add_argument(
        "--mapper",
        type=Path,
        metavar="F",
        help="mapper checkpoint; without one features are used as they are",
    )


def add_ignored(one: Any, *options: str) -> None:
    """Add options without effect, so that commands of earlier releases still run: intervals are not resampled."""
    for option in options:
        one.add_argument(option, type=int, help=SUPPRESS)


def count(text: str) -> int:
    """Return an integer; ArgumentTypeError for one that is larger than any count, which no array could have."""
    if abs(value := int(text)) >= BEYOND:
        raise ArgumentTypeError(f"{cut(text)}, expected a number below {BEYOND}")
    return value


def add_integer(one: Any, option: str, default: int, text: str) -> None:
    """Add an option that takes an integer."""
    kind = int if option == "--seed" else count
    one.add_argument(option, type=kind, default=default, metavar="N", help=f"{text}; default: %(default)s")


def add_out(one: Any, text: str, *, required: bool = True) -> None:
    """Add --out, a folder."""
    one.add_argument("--out", type=Path, required=required, metavar="DIR", help=text)


def check_at_least(option: str, value: int | None, lowest: int) -> None:
    """Raise InputError for a value below the lowest; None is the default of an option without one."""
    if value is not None and value < lowest:
        raise InputError(f"{option}: {value}, expected at least {lowest}")


def check_distinct_names(option: str, files: Sequence[Path], more: str = "") -> None:
    """Raise InputError where two files have the same name, by which results are labelled."""
    names = [path.stem for path in files]
    if len(set(names)) < len(names):
        raise InputError(
            f"{option}: two files are named {max(names, key=names.count)!r}, expected different names{more}"
        )


def check_cases(option: str, cases: Sequence[Path] | None, of: str, files: Sequence[Path]) -> None:
    """Raise InputError where JSONs of test cases are given, but not one for each file of the option `of`."""
    if cases is not None and len(cases) != len(files):
        raise InputError(f"{option}: {len(cases)} files, expected one for each of {len(files)} of {of}")
